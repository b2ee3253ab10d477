# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Average precision of boxes, by MONAI's COCO metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou

from bundle.rules import class_names

__all__ = ["summarize_detection"]

_OVERLAPS = (0.4, 0.5)  # VinDr-CXR's, and the one that most name
_RANGE = (0.5, 0.95, 0.05)  # COCO's
_BOXES = 100  # of one image and class

Boxes = Mapping[str, torch.Tensor]


def summarize_detection(
    found: Mapping[str, Boxes],
    truths: Mapping[str, Boxes],
    classes: Collection[str],
    unknown: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """
    Return the average precision of the boxes of each class over all images.

    COCO's definition (Lin et al., ECCV 2014, https://arxiv.org/abs/1405.0312, and its evaluation code): boxes of all
    images by falling score, each takes the annotation of its image that it overlaps most and that no better one took,
    if by at least the threshold; the largest precision at or above each of 101 recalls is averaged. A class without an
    annotation has none, and no part in the mean.

    Args:
        found: by image and class, left, upper, right, lower edge and a score, shape ``(K, 5)``; every image is a key.
        truths: by image and class, edges, shape ``(M, 4)``; an image without any may be left out.
        classes: names.
        unknown: by image, the classes that are there at a place that is not known: they are not judged in that image.

    Returns:
        ``images``, their number; ``mean_average_precision`` and, under ``classes`` and the name,
        ``average_precision``, by overlap ``0.4``, ``0.5`` and COCO's ``0.5 to 0.95``, and how many ``boxes`` are
        annotated in how many ``images``; nothing where no box is.

    Raises:
        ValueError: When there is no image.

    Example:
        >>> truths = {"a": {"Mass": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}}
        >>> found = {"a": {"Mass": torch.tensor([[0.0, 0.0, 10.0, 8.7, 0.8]])}, "b": {}}
        >>> summarize_detection(found, truths, ["Mass"])["mean_average_precision"]
        {'0.4': 1.0, '0.5': 1.0, '0.5 to 0.95': 0.8}
    """
    if not found:
        raise ValueError("average precision needs one image at least, got none.")
    names = class_names(list(classes))
    counts = {name: [len(truths.get(path, {}).get(name, ())) for path in found] for name in names}
    there = [name for name in names if sum(counts[name])]
    if not there:
        return {"images": len(found), "mean_average_precision": {}, "classes": {}}
    images = [_of_image(found[path], truths.get(path, {}), there, (unknown or {}).get(path, ())) for path in found]
    metric = COCOMetric(there, iou_list=_OVERLAPS, iou_range=_RANGE, max_detection=(_BOXES,), verbose=False)
    boxes, labels, scores, edges, classes = (list(column) for column in zip(*images, strict=True))
    overlaps: Any = metric.iou_thresholds
    same: Any = box_iou
    matched = matching_batch(same, overlaps, boxes, labels, scores, edges, classes, max_detections=_BOXES)
    values = metric(matched)[0]
    ends = "_".join(f"{number:.2f}" for number in (_RANGE[0], _RANGE[1], _RANGE[2]))
    keys = {str(overlap): f"AP_IoU_{overlap:.2f}_MaxDet_{_BOXES}" for overlap in _OVERLAPS}
    keys["0.5 to 0.95"] = f"mAP_IoU_{ends}_MaxDet_{_BOXES}"
    by_class: dict[str, Any] = {
        name: {
            "images": sum(count > 0 for count in counts[name]),
            "boxes": sum(counts[name]),
            "average_precision": {overlap: _plain(values[f"{name}_{key}"]) for overlap, key in keys.items()},
        }
        for name in there
    }
    means = {
        overlap: _plain(np.mean([by_class[name]["average_precision"][overlap] for name in there])) for overlap in keys
    }
    return {"images": len(found), "mean_average_precision": means, "classes": by_class}


def _of_image(found: Boxes, truths: Boxes, names: Sequence[str], unknown: Collection[str]) -> tuple[np.ndarray, ...]:
    """Return boxes, classes and scores that were found, and boxes and classes that are annotated."""
    rows, numbers = [np.zeros((0, 5))], [np.zeros(0, int)]
    edges, classes = [np.zeros((0, 4))], [np.zeros(0, int)]
    for number, name in enumerate(names):
        if name in truths:
            edges.append(torch.as_tensor(truths[name]).double().numpy())
            classes.append(np.full(len(truths[name]), number))
        if name in found and not (name in unknown and name not in truths):
            rows.append(torch.as_tensor(found[name]).double().numpy())
            numbers.append(np.full(len(found[name]), number))
    mine = np.concatenate(rows)
    return mine[:, :4], np.concatenate(numbers), mine[:, 4], np.concatenate(edges), np.concatenate(classes)


def _plain(value: Any) -> float:
    return round(float(value), 6)
