# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The boxes that an evaluation judges: of every class, whatever its probability, and in no result."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.utils import CommonKeys, convert_to_tensor

from bundle.files import atomic_path
from bundle.localization.metrics import annotation_key, overlaps, summarize_localization
from bundle.preprocessing.box_frames import boxes_in_source, found_in_source, outside_file
from bundle.reading.formats import split_frame
from bundle.rules import class_names
from bundle.training.pointing_game import compute_pointing_game

__all__ = ["LocalizationMetrics"]


def _hottest_in_source(heatmap: torch.Tensor, image: MetaTensor) -> torch.Tensor:
    """
    Return the center of a map's hottest cell in pixels of the file.

    Args:
        heatmap: that covers the network's input whole, shape ``(h, w)``.
        image: the network's input, see :py:func:`bundle.preprocessing.box_frames.boxes_in_source`.

    Returns:
        column and row, shape ``(2,)``.
    """
    height, width = heatmap.shape
    row, column = divmod(int(heatmap.flatten().argmax()), width)
    scale = torch.tensor([image.shape[-1] / width, image.shape[-2] / height] * 2)
    cell = torch.tensor([column, row, column + 1, row + 1]) * scale
    left, upper, right, lower = boxes_in_source(cell[None], image)[0]
    return torch.stack([(left + right) / 2, (upper + lower) / 2])


class LocalizationMetrics:
    """
    Collect the boxes of every class of every image of an evaluator, and compare them with the annotated ones.

    The convention of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958, Sec. 3.2): an image's annotated class
    is known, and only the place is judged, so a box counts whatever the probability of its class and however large it
    is. These boxes go into the metrics alone. What tables, report and DICOM objects say of an image is the business of
    :py:class:`bundle.localization.AttentionResultd`, and the same as in inference.

    Args:
        classes: names in the order of the maps.
        boxes: annotated boxes by path or bare name of the image and class, see
            :py:func:`bundle.lists.read_boxes`.
        bounds: see :py:func:`bundle.localization.summarize_localization`.
        kind: overlap, see :py:func:`bundle.localization.metrics.overlaps`.
        table_path: CSV to write with a row for each annotated box: image, class, its edges in pixels, and the largest
            overlap of a found box with it, 0..1; ``None`` for none. Comparisons of methods are paired by it.

    Raises:
        ValueError: When ``classes`` are no names.
    """

    def __init__(
        self,
        classes: Sequence[str],
        boxes: Mapping[str, Mapping[str, torch.Tensor]],
        bounds: Mapping[str, Mapping[float, float]] | None = None,
        kind: str = "iou",
        table_path: str | Path | None = None,
    ) -> None:
        self.table_path = table_path
        self.classes, self.boxes, self.bounds, self.kind = class_names(classes), boxes, bounds, kind
        self.found: dict[str, dict[str, torch.Tensor]] = {}
        self.points: dict[str, dict[str, torch.Tensor]] = {}
        self._keys: set[str] = set()
        self._unfit: str | None = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator with decollation and :py:class:`bundle.localization.AttentionMiningInferer`.
        """
        engine.add_event_handler(Events.STARTED, self._clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _clear(self, engine: Engine) -> None:
        self.found.clear()
        self.points.clear()
        self._keys.clear()
        self._unfit = None

    def __call__(self, engine: Engine) -> None:
        """Collect the boxes of one batch."""
        items: Any = engine.state.output
        for item in items:
            image, out = item[CommonKeys.IMAGE], item[CommonKeys.PRED]
            path = split_frame(str(image.meta["filename_or_obj"]))[0]
            key = annotation_key(self.boxes, str(path))
            for edges in self.boxes.get(key, {}).values():
                self._unfit = outside_file(edges, image) or self._unfit
            logits = convert_to_tensor(out["logits"]).cpu()
            if key in self.boxes and key in self._keys:
                self._unfit = f"an annotation must be of one image, that of '{path.name}' is of two or more."
            elif not logits.isfinite().all():
                c = int((~logits.isfinite()).int().argmax())
                self._unfit = (
                    f"logits must be finite, got {float(logits[c])} for '{path.name}', class '{self.classes[c]}'."
                )
            self._keys.add(key)
            parts = zip(out["boxes"], out["map_heights"], strict=True)
            self.found[str(path)] = {
                label: found_in_source(convert_to_tensor(edges).cpu(), convert_to_tensor(heights).cpu(), image)[0]
                for label, (edges, heights) in zip(self.classes, parts, strict=True)
            }
            maps = convert_to_tensor(out["heatmap"]).cpu()
            self.points[str(path)] = {
                label: _hottest_in_source(heat, image) for label, heat in zip(self.classes, maps, strict=True)
            }

    def summarize(self, results: Sequence[Any] = ()) -> dict[str, Any]:
        """
        Return the metrics of :py:func:`bundle.localization.summarize_localization`, and by class ``pointing_game``.

        The pointing game is :py:func:`bundle.training.compute_pointing_game` of the hottest cell of each final map.

        Args:
            results: ignored; they hold the boxes of findings that are present, not of all.

        Raises:
            ValueError: When one annotation is found for two images, such as files of one name or frames of one file,
                a box lies outside of its image, or an image's logits are not finite, so that its maps and boxes are
                none.
        """
        if self._unfit is not None:
            raise ValueError(self._unfit)
        if self.table_path is not None:
            self._write_table(Path(self.table_path))
        metrics = summarize_localization(self.found, self.boxes, self.bounds, self.kind)
        annotated = {path: self.boxes.get(annotation_key(self.boxes, path), {}) for path in self.points}
        for label, values in metrics.get("classes", {}).items():
            chosen = [path for path, truths in annotated.items() if label in truths]
            points = torch.stack([self.points[path][label] for path in chosen])
            values["pointing_game"] = compute_pointing_game(points, [annotated[path][label] for path in chosen])
        return metrics

    def _write_table(self, path: Path) -> None:
        with atomic_path(path) as partial, partial.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["image", "class", "left", "upper", "right", "lower", "overlap"])
            for image, found in self.found.items():
                for label, truths in self.boxes.get(annotation_key(self.boxes, image), {}).items():
                    boxes = found.get(label, truths.new_zeros(0, 4))
                    best = (
                        overlaps(boxes, truths, self.kind).amax(dim=0) if len(boxes) else truths.new_zeros(len(truths))
                    )
                    for edges, value in zip(truths.tolist(), best.tolist(), strict=True):
                        writer.writerow([Path(image).name, label, *edges, round(value, 4)])
