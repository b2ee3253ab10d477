# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How well boxes find what was annotated; one class of findings at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.box_utils import box_area, box_iou

from bundle.rules import number_in

__all__ = [
    "LocalizationAccuracy",
    "annotation_key",
    "compute_localization_accuracy",
    "compute_mean_iou",
    "overlaps",
    "summarize_localization",
]

logger = logging.getLogger(__name__)
Boxes = Sequence[torch.Tensor]  # one (K, 4) an image: left, upper, right, lower edge in pixels


class LocalizationAccuracy(NamedTuple):
    """Fraction of the annotated boxes found, and false boxes per image."""

    accuracy: float
    average_false_positives: float


def overlaps(boxes: torch.Tensor, truths: torch.Tensor, kind: str = "iou") -> torch.Tensor:
    """
    Return the overlap of every box with every annotated one.

    Args:
        boxes: shape ``(K, 4)``, edges in pixels.
        truths: shape ``(M, 4)``.
        kind: ``iou``, intersection over union; ``iobb``, intersection over the area of the found box, as in Wang et al.
            (CVPR 2017, https://arxiv.org/abs/1705.02315).

    Returns:
        values 0..1, shape ``(K, M)``.

    Raises:
        ValueError: When ``kind`` is unknown.
    """
    if kind == "iou":
        return torch.as_tensor(box_iou(boxes, truths))
    if kind != "iobb":
        raise ValueError(f"kind must be 'iou' or 'iobb', got '{kind}'.")
    sides = torch.minimum(boxes[:, None, 2:], truths[None, :, 2:]) - torch.maximum(
        boxes[:, None, :2], truths[None, :, :2]
    )
    return sides.clamp_min(0).prod(dim=-1) / torch.as_tensor(box_area(boxes))[:, None]


def compute_localization_accuracy(
    boxes: Boxes,
    truths: Boxes,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    bounds: Mapping[float, float] | None = None,
    kind: str = "iou",
) -> dict[float, LocalizationAccuracy]:
    """
    Return accuracy and average false positives at each overlap threshold.

    Sec. 3.2 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958) after Wang et al. (CVPR 2017): all first
    boxes of all images, then all second ones and so on, are taken until one more false box would lift the average
    number of false boxes per image above its bound. A box that overlaps an annotation by more than the threshold finds
    it; a second box on the same annotation is neither a find nor false.

    Args:
        boxes: found boxes of each image, best first.
        truths: annotated boxes of each image; none for an image without a finding.
        thresholds: overlaps, 0..1.
        bounds: greatest average of false positives by threshold; without an entry every box is taken.
        kind: see :py:func:`overlaps`.

    Returns:
        for each threshold; the accuracy is ``nan`` when nothing is annotated.

    Raises:
        ValueError: When there is not one list of annotations for each image, no image, a box is none, a threshold is
            not in [0, 1], a bound not a number of at least 0, or for a threshold that is not among ``thresholds``.
    """
    _check(boxes, truths)
    _check_boxes("found", boxes)
    for value in thresholds:
        number_in("thresholds", value, 0, 1)
    limits = {float(threshold): bound for threshold, bound in (bounds or {}).items()}  # JSON has words for keys
    for limit in limits.values():
        number_in("bounds", limit, 0)
    if unknown := sorted(set(limits) - set(thresholds)):
        raise ValueError(f"bounds must be for thresholds among {list(thresholds)}, got {unknown}.")
    tables = [overlaps(found, truth, kind) for found, truth in zip(boxes, truths, strict=True)]
    ranked = [
        (rank, image) for rank in range(max(map(len, boxes))) for image in range(len(boxes)) if rank < len(boxes[image])
    ]
    total = sum(map(len, truths))
    results = {}
    for threshold in thresholds:
        bound = limits.get(threshold, float("inf"))
        false = 0
        hit: set[tuple[int, int]] = set()
        for rank, image in ranked:
            matches = (tables[image][rank] > threshold).nonzero().flatten().tolist()
            if not matches and (false + 1) / len(boxes) > bound:
                break
            false += not matches
            hit.update((image, match) for match in matches)
        accuracy = len(hit) / total if total else float("nan")
        results[threshold] = LocalizationAccuracy(accuracy, false / len(boxes))
    return results


def compute_mean_iou(boxes: Boxes, truths: Boxes) -> float:
    """
    Return the mean intersection over union of each image's best-ranked box with the annotation it fits best.

    Args:
        boxes: found boxes of each image, best first; an image without one counts as 0.
        truths: annotated boxes; images without any are left out.

    Returns:
        0..1, ``nan`` when nothing is annotated.

    Raises:
        ValueError: When there is not one list of annotations for each image, no image, or a box is none.
    """
    _check(boxes, truths)
    _check_boxes("found", boxes)
    values = [
        overlaps(found[:1], truth).max().item() if len(found) else 0.0
        for found, truth in zip(boxes, truths, strict=True)
        if len(truth)
    ]
    return float(np.mean(values)) if values else float("nan")


def summarize_localization(
    found: Mapping[str, Mapping[str, torch.Tensor]],
    boxes: Mapping[str, Mapping[str, torch.Tensor]],
    bounds: Mapping[str, Mapping[float, float]] | None = None,
    kind: str = "iou",
) -> dict[str, Any]:
    """
    Return the localization metrics over the images annotated with each class.

    Args:
        found: boxes by path of the image and class, as left, upper, right, lower edge in pixels, shape ``(K, 4)``, best
            first; a class that an image has no boxes of may be left out.
        boxes: annotated boxes by path or bare name of the image and class, see
            :py:func:`bundle.lists.read_boxes`.
        bounds: greatest average of false positives by class and threshold, see
            :py:func:`compute_localization_accuracy`.
        kind: see :py:func:`overlaps`.

    Returns:
        ``overlap``, the kind, and ``classes``, by name ``images`` (how many are annotated with it), ``mean_iou``, and
        ``accuracy`` and ``false_positives_per_image`` by threshold; nothing where no image is annotated.

    Raises:
        ValueError: When a bound is for a threshold that is not evaluated, or a box is none; names image and class.
    """
    known = {label for annotated in boxes.values() for label in annotated}
    if unknown := sorted(set(bounds or {}) - known):
        logger.warning("bounds of false positives for %s, which no image is annotated with", ", ".join(unknown))
    classes: dict[str, dict[str, Any]] = {}
    there = {path: boxes.get(annotation_key(boxes, path), {}) for path in found}
    for label in dict.fromkeys(label for annotated in there.values() for label in annotated):
        chosen = [path for path, annotated in there.items() if label in annotated]
        truths = [there[path][label] for path in chosen]
        mine = [torch.as_tensor(found[path].get(label, torch.zeros(0, 4))).float() for path in chosen]
        names = [f"'{PurePath(path).name}', class '{label}'" for path in chosen]
        _check_boxes("found", mine, names)
        _check_boxes("annotated", truths, names)
        limits = (bounds or {}).get(label)
        found_at = compute_localization_accuracy(mine, truths, bounds=limits, kind=kind)
        classes[label] = {
            "images": len(chosen),
            "mean_iou": compute_mean_iou(mine, truths),
            "accuracy": {str(threshold): value.accuracy for threshold, value in found_at.items()},
            "false_positives_per_image": {str(t): value.average_false_positives for t, value in found_at.items()},
        }
    return {"overlap": kind, "classes": classes} if classes else {}


def annotation_key(boxes: Mapping[str, Any], path: str) -> str:
    """
    Return what an image's annotations are found by: its path where they name paths, else its bare name.

    Args:
        boxes: annotated boxes by path or bare name.
        path: of the image.

    Example:
        >>> annotation_key({"a.png": {}}, "/films/a.png"), annotation_key({"/films/a.png": {}}, "/films/a.png")
        ('a.png', '/films/a.png')
    """
    return path if path in boxes else PurePath(path).name


def _check(found: Sequence | torch.Tensor, truths: Boxes) -> None:
    if len(found) != len(truths) or len(truths) == 0:
        raise ValueError(f"one list of annotations is needed for each image, got {len(truths)} for {len(found)}.")
    _check_boxes("annotated", truths)


def _check_boxes(what: str, boxes: Boxes, names: Sequence[str] | None = None) -> None:
    """Refuse boxes whose edges are not finite or in the wrong order."""
    for number, edges in enumerate(boxes):
        if not edges.isfinite().all() or (edges[:, 2:] < edges[:, :2]).any():
            where = f"image {number}" if names is None else names[number]
            rule = "boxes must be finite left, upper, right, lower edges"
            raise ValueError(f"{rule}, one of those {what} for {where} is not.")
