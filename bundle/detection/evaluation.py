# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation judges of the detector: all boxes of every finding, and in validation their mean precision."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.utils import CommonKeys, convert_to_tensor

from bundle.detection.inferer import selected_boxes
from bundle.detection.precision import summarize_detection
from bundle.detection.targets import LabelledBoxes, annotated_boxes
from bundle.files import atomic_path
from bundle.preprocessing.box_frames import found_in_source, outside_file
from bundle.reading.formats import split_frame
from bundle.rules import class_names
from bundle.training.processes.reduction import gathered

__all__ = ["DetectionMetrics", "MeanAveragePrecision", "mean_ap_metric"]


class DetectionMetrics:
    """
    Collect the boxes of every finding of every image of an evaluator, and compare them with the annotated ones.

    All boxes of the inferer count, whatever their score: average precision asks for their order. They go into the
    metrics alone; what results say is the business of :py:class:`bundle.detection.DetectionResultd`.

    A finding that an image's label names and no box shows is not judged in that image.

    Args:
        classes: names in the order of the network's logits.
        boxes: annotated boxes by path or bare name, see :py:func:`bundle.lists.read_boxes`.
        best_box: metrics of the best box of each finding of each image, as
            :py:func:`bundle.localization.summarize_localization` has them: the paper's way to judge a localizer.
        table_path: CSV to write with a row for each box: image, class, edges in pixels, score; ``None`` for none.

    Raises:
        ValueError: When ``classes`` are no names.
    """

    def __init__(
        self,
        classes: Sequence[str],
        boxes: Mapping[str, LabelledBoxes],
        best_box: Callable[..., dict[str, Any]] | None = None,
        table_path: str | Path | None = None,
    ) -> None:
        self.classes, self.boxes, self.best_box = class_names(classes), boxes, best_box
        self.table_path = table_path
        self.found: dict[str, dict[str, torch.Tensor]] = {}
        self.unknown: dict[str, set[str]] = {}
        self._unfit = ""

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator with decollation and :py:class:`bundle.detection.PyramidInferer`.
        """
        engine.add_event_handler(Events.STARTED, self._clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _clear(self, engine: Engine) -> None:
        self.found.clear()
        self.unknown.clear()
        self._unfit = ""

    def __call__(self, engine: Engine) -> None:
        """Collect the boxes of one batch."""
        items: Any = engine.state.output
        for item in items:
            image, out = item[CommonKeys.IMAGE], item[CommonKeys.PRED]
            path = str(split_frame(str(image.meta["filename_or_obj"]))[0])
            boxes, logits = (convert_to_tensor(out[key]).cpu() for key in ("boxes", "box_logits"))
            self.found[path] = {
                name: scored_boxes(*found_in_source(boxes[c], logits[c].sigmoid(), image))
                for c, name in enumerate(self.classes)
            }
            there = set(item.get("true_findings") or ())
            annotated = annotated_boxes(self.boxes, path)
            for edges in annotated.values():
                self._unfit = outside_file(edges, image) or self._unfit
            self.unknown[path] = there - set(annotated)

    def summarize(self, results: Sequence[Any] = ()) -> dict[str, Any]:
        """
        Return the metrics of :py:func:`bundle.detection.summarize_detection`, and under ``best_box`` that of it.

        Args:
            results: ignored; they hold the boxes of findings that are present, not of all.

        Raises:
            ValueError: When an annotated box lies outside of its image.
        """
        if self._unfit:
            raise ValueError(self._unfit)
        if self.table_path is not None:
            self._write_table(Path(self.table_path))
        truths = {path: annotated_boxes(self.boxes, path) for path in self.found}
        metrics = summarize_detection(self.found, truths, self.classes, self.unknown)
        if self.best_box is not None:
            best = {path: {name: rows[:1, :4] for name, rows in own.items()} for path, own in self.found.items()}
            metrics["best_box"] = self.best_box(best, {path: own for path, own in truths.items() if own})
        return metrics

    def _write_table(self, path: Path) -> None:
        with atomic_path(path) as partial, partial.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["image", "class", "left", "upper", "right", "lower", "score"])
            for image, found in self.found.items():
                for name, rows in found.items():
                    for *edges, score in rows.tolist():
                        writer.writerow([Path(image).name, name, *(round(edge, 2) for edge in edges), round(score, 6)])


def scored_boxes(edges: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """
    Return boxes with their score behind the edges.

    Args:
        edges: shape ``(K, 4)``.
        scores: shape ``(K,)``.

    Returns:
        shape ``(K, 5)``.
    """
    return torch.cat([edges, scores[:, None].to(edges)], dim=1)


class MeanAveragePrecision(Metric):
    """
    Mean average precision over the findings at one overlap, on the network's input, for the choice of the best epoch.

    Args:
        classes: names in the order of the network's logits.
        overlap: a key of ``mean_average_precision`` of :py:func:`bundle.detection.summarize_detection`.
    """

    def __init__(self, classes: Sequence[str], overlap: str = "0.4") -> None:
        self.classes, self.overlap = class_names(classes), overlap
        super().__init__()

    def reset(self) -> None:
        """Forget all images."""
        self._images: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], set[str]]] = []

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add the items of a batch: ``image``, ``pred`` ``(N, C + 4)`` and ``annotated`` ``(M, 5)``."""
        for item in output:
            height, width = item[CommonKeys.IMAGE].shape[-2:]
            pred = convert_to_tensor(item[CommonKeys.PRED], track_meta=False).detach().cpu()
            if not pred.isfinite().all():
                raise ValueError("the detector's output must be finite, as it is not after a training that diverged.")
            boxes, logits = selected_boxes(pred, height, width)
            rows = convert_to_tensor(item["annotated"], track_meta=False).cpu()
            found, truths, unknown = {}, {}, set()
            for c, name in enumerate(self.classes):
                real = logits[c].isfinite()
                found[name] = scored_boxes(boxes[c][real], logits[c][real].sigmoid())
                mine = rows[rows[:, 0] == c, 1:]
                placed = mine[(mine[:, 2:] > mine[:, :2]).all(dim=1)]
                if len(placed):
                    truths[name] = placed
                elif len(mine):
                    unknown.add(name)
            self._images.append((found, truths, unknown))

    def compute(self) -> float:
        """
        Return the mean over all processes' images.

        Raises:
            ValueError: When no validation image has a box.
        """
        images = {str(number): image for number, image in enumerate(gathered(self._images))}
        found = {key: image[0] for key, image in images.items()}
        truths = {key: image[1] for key, image in images.items()}
        unknown = {key: image[2] for key, image in images.items()}
        means = summarize_detection(found, truths, self.classes, unknown)["mean_average_precision"]
        if not means:
            raise ValueError(
                f"the validation images must have boxes of one of the classes {list(self.classes)}, or there is no "
                "precision to choose the best network by."
            )
        return means[self.overlap]


def mean_ap_metric(classes: Sequence[str], overlap: str = "0.4") -> MeanAveragePrecision:
    """
    Return :py:class:`MeanAveragePrecision` as a metric of an engine.

    Args:
        classes: see there.
        overlap: see there.
    """
    return MeanAveragePrecision(classes, overlap)
