# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The maps that an evaluation compares with annotated boxes, beside a map that ignores the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events

from bundle.anomaly.map_metrics import box_regions, heat_in_regions, per_region_overlap, pixel_auroc
from bundle.reading.formats import split_frame
from bundle.results.handler import seen_region
from bundle.results.records import pixels_seen
from bundle.training.auroc import patient_bootstrap
from bundle.training.pointing_game import compute_pointing_game

__all__ = ["MapMetrics"]

_SIDE = 128  # points of a map along its longer side: the networks' maps have 28
_MEAN = 32  # cells along each side of the mean map
Boxes = Mapping[str, Mapping[str, torch.Tensor]]


class _Map(NamedTuple):
    heat: np.ndarray  # (h, w), minus infinity where the network did not look
    rows: np.ndarray  # of its points, in pixels of the file
    columns: np.ndarray
    boxes: torch.Tensor  # (M, 4)
    patient: str

    def regions(self) -> np.ndarray:
        return box_regions(self.boxes.numpy(), self.columns, self.rows)

    def hottest(self) -> torch.Tensor:
        row, column = np.unravel_index(self.heat.argmax(), self.heat.shape)
        return torch.tensor([self.columns[column], self.rows[row]])

    def with_heat_of(self, mean: torch.Tensor) -> _Map:
        """Return the same image with a map of shape ``(1, 1, h, w)`` that lies over the whole of it."""
        heat = F.interpolate(mean, self.heat.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
        return self._replace(heat=np.where(np.isfinite(self.heat), heat, -np.inf))


class MapMetrics:
    """
    Collect the heatmaps of the annotated and the normal images of an evaluator, and compare them with the boxes.

    Everything is in pixels of the file, at every n-th of them, so that the longer side has at most 128. Abnormal images
    without a box are left out, since nobody knows where they are abnormal. The mean map of the normal images stands
    beside: it does not look at the image, and has to be beaten.

    Args:
        boxes: annotated boxes by path or bare name of the image and class, see :py:func:`bundle.lists.read_boxes`; the
            classes do not matter, and a box that is there twice counts once. ``None`` collects nothing.
    """

    def __init__(self, boxes: Boxes | None) -> None:
        self.boxes = boxes
        self._maps: list[_Map] = []
        self._annotated: set[str] = set()
        self._twice: str | None = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator with decollation, whose post-processing leaves ``heatmap`` in pixels of the file.
        """
        if self.boxes is not None:
            engine.add_event_handler(Events.STARTED, self._clear)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _clear(self, engine: Engine) -> None:
        self._maps.clear()
        self._annotated.clear()
        self._twice = None

    def __call__(self, engine: Engine) -> None:
        """Collect the maps of one batch."""
        assert self.boxes is not None
        pairs: Any = zip(engine.state.batch, engine.state.output, strict=True)  # type: ignore[call-overload]
        for batch, output in pairs:
            item = {**batch, **output}
            path = split_frame(str(item["image"].meta["filename_or_obj"]))[0]
            key = str(path) if not isinstance(self.boxes, dict) or str(path) in self.boxes else path.name
            normal = int(item["label"]) == 0  # has no boxes, though an abnormal image of its name may have
            edges = [] if normal else list(self.boxes.get(key, {}).values())
            if not edges and not normal:
                continue
            if edges and key in self._annotated:
                self._twice = f"an annotation must be of one image, that of '{path.name}' is of two or more."
            if edges:
                self._annotated.add(key)
            boxes = torch.cat(edges).unique(dim=0) if edges else torch.zeros(0, 4)
            self._maps.append(_sampled(item, boxes, str(item.get("patient") or path)))

    def summarize(self) -> dict[str, Any]:
        """
        Return the metrics of the maps; nothing where there is no list of boxes.

        Returns:
            ``annotated_images``, ``annotated_boxes``; ``pixel_auroc`` and ``per_region_overlap``, see
            :py:mod:`bundle.anomaly.map_metrics`; ``pointing_game`` and ``heat_in_boxes`` with intervals by patient,
            means over the annotated images; ``area_of_boxes``, what a map that is the same everywhere has in both;
            and the four with ``_of_mean_map``, of the mean map of the normal images, where there is one.

        Raises:
            ValueError: When no image is annotated, or one annotation is found for two images.
        """
        if self.boxes is None:
            return {}
        if self._twice is not None:
            raise ValueError(self._twice)
        if not self._annotated:
            raise ValueError(f"boxes must be of images of this evaluation, those of {len(self.boxes)} images are not.")
        regions = [each.regions() for each in self._maps]
        metrics: dict[str, Any] = {
            "annotated_images": len(self._annotated),
            "annotated_boxes": sum(map(len, regions)),
            **_measured(self._maps, regions),
            "area_of_boxes": float(np.mean([masks.any(axis=0).mean() for masks in regions if len(masks)])),
        }
        normal = [each.heat for each, masks in zip(self._maps, regions, strict=True) if not len(masks)]
        if normal:
            mean = _mean_map(normal)
            blind = _measured([each.with_heat_of(mean) for each in self._maps], regions)
            metrics |= {f"{name}_of_mean_map": value for name, value in blind.items() if "_interval" not in name}
        return metrics


def _sampled(item: Mapping[str, Any], boxes: torch.Tensor, patient: str) -> _Map:
    heat = torch.as_tensor(item["heatmap"])[0].float().cpu().numpy()
    heat = np.where(pixels_seen(heat.shape, seen_region(item["image"])), heat, -np.inf)
    step = -(-max(heat.shape) // _SIDE)
    rows, columns = (np.arange(step // 2, side, step) for side in heat.shape)
    return _Map(heat[np.ix_(rows, columns)], rows + 0.5, columns + 0.5, boxes, patient)


def _mean_map(heats: Sequence[np.ndarray]) -> torch.Tensor:
    """Return the mean of maps of any size, each stretched to the same; where the network did not look is no heat."""
    filled = [torch.from_numpy(np.where(np.isfinite(h), h, h[np.isfinite(h)].min()))[None, None] for h in heats]
    return torch.stack([F.interpolate(h.float(), (_MEAN, _MEAN), mode="area") for h in filled]).mean(dim=0)


def _measured(maps: Sequence[_Map], regions: Sequence[np.ndarray]) -> dict[str, Any]:
    heats = [each.heat for each in maps]
    annotated = [(each, np.asarray(masks.any(axis=0))) for each, masks in zip(maps, regions, strict=True) if len(masks)]
    patients = [each.patient for each, _ in annotated]
    of_all = {"pixel_auroc": pixel_auroc(heats, regions), "per_region_overlap": per_region_overlap(heats, regions)}
    metrics: dict[str, Any] = {name: value for name, value in of_all.items() if not np.isnan(value)}
    of_one: dict[str, Callable[[_Map, np.ndarray], float]] = {
        "pointing_game": lambda each, _: compute_pointing_game(each.hottest()[None], [each.boxes]),
        "heat_in_boxes": lambda each, inside: heat_in_regions(each.heat, inside),
    }
    for name, measure in of_one.items():
        values = np.array([measure(each, inside) for each, inside in annotated])
        ends = patient_bootstrap(lambda index, v=values: v[index].mean(keepdims=True), patients)  # type: ignore[misc]
        metrics |= {name: float(values.mean()), f"{name}_interval": tuple(ends[:, 0].tolist())}
    return metrics
