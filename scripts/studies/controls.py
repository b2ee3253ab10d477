# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What needs no network, and what a network has to beat: the controls of the studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from study_sets import Chosen

from bundle.classification.metrics import compute_classification_metrics
from bundle.detection import known_items, summarize_detection
from bundle.lists import LabelDataList, read_boxes
from bundle.lists.csv_files import read_rows
from bundle.lists.patients import items_digest
from bundle.localization.anchors import cluster_boxes
from bundle.localization.metrics import summarize_localization

__all__ = ["CONTROLS", "frequent_anchor", "median_box", "median_box_precision", "view_alone"]

Row = dict[str, Any]
ANCHORS = 3  # the default of anchors_per_finding


def size_of(path: str | Path) -> torch.Tensor:
    """Return width, height, width and height of a picture, what the edges of a box are divided by."""
    with Image.open(path) as picture:
        return torch.tensor([*picture.size, *picture.size], dtype=torch.float32)


def median_box(chosen: Chosen) -> tuple[Row, Row]:
    """
    Return what the median box of a class says of every test image: where lesions are on average, without a look.

    The four edges are medians over the boxes of the training images, as shares of the width and height of each.

    Args:
        chosen: flags of a set with ``labels_csv``, ``classes`` and ``boxes_path``.

    Returns:
        the metrics of :py:func:`bundle.localization.metrics.summarize_localization`, and ``items`` and ``digest`` of
        the training images.
    """
    return one_box(chosen, lambda boxes: boxes.quantile(0.5, dim=0))


def frequent_anchor(chosen: Chosen) -> tuple[Row, Row]:
    """Return what the typical box of the most training images says of every test image, as :py:func:`median_box`."""
    return one_box(chosen, lambda boxes: torch.tensor(cluster_boxes(boxes, ANCHORS)[0], dtype=torch.float32))


def one_box(chosen: Chosen, fit: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Row, Row]:
    """Return the metrics of one box a class, fitted to the boxes of the training images, and these images."""
    classes: Sequence[str] = str(chosen.train["classes"]).split(",")
    lists = LabelDataList(str(chosen.both["labels_csv"]), str(chosen.both["dataset_dir"]), classes)
    boxes = read_boxes(str(chosen.evaluate["boxes_path"]))
    shares: dict[str, list[torch.Tensor]] = {label: [] for label in classes}
    for item in lists.training:
        for label, edges in boxes.get(item["image"], {}).items():
            shares[label].append(edges / size_of(item["image"]))
    fitted = {label: fit(torch.cat(found)) for label, found in shares.items()}
    found = {
        item["image"]: {label: (box * size_of(item["image"]))[None] for label, box in fitted.items()}
        for item in lists.test
    }
    training = {"items": len(lists.training), "digest": items_digest(lists.training)}
    return summarize_localization(found, boxes), training


def median_box_precision(chosen: Chosen) -> tuple[Row, Row]:
    """
    Return what the median box of a class is worth as a detection of it in every test image.

    Its score is the share of the training images that have the class, the same for all images.

    Args:
        chosen: see :py:func:`median_box`.

    Returns:
        the metrics of :py:class:`bundle.detection.DetectionMetrics`, and ``items`` and ``digest`` of the training
        images.
    """
    classes: Sequence[str] = str(chosen.train["classes"]).split(",")
    lists = LabelDataList(str(chosen.both["labels_csv"]), str(chosen.both["dataset_dir"]), classes)
    boxes = read_boxes(str(chosen.evaluate["boxes_path"]))
    training, test = known_items(lists.training, boxes, classes), lists.test
    sizes = {item["image"]: size_of(item["image"]) for item in (*training, *test)}
    found: dict[str, dict[str, torch.Tensor]] = {item["image"]: {} for item in test}
    for number, label in enumerate(classes):
        own = [boxes.get(item["image"], {}).get(label, torch.zeros(0, 4)) / sizes[item["image"]] for item in training]
        middle = torch.cat(own).quantile(0.5, dim=0)
        share = float(np.mean([item["label"][number] for item in training]))
        for path in found:
            found[path][label] = torch.cat([middle * sizes[path], torch.tensor([share])])[None]
    truths = {item["image"]: boxes.get(item["image"], {}) for item in test}
    unknown = {
        item["image"]: {label for label, there in zip(classes, item["label"], strict=True) if there}
        - set(truths[item["image"]])
        for item in test
    }
    metrics = summarize_detection(found, truths, classes, unknown)
    places = {path: {label: rows[:, :4] for label, rows in own.items()} for path, own in found.items()}
    best_box = summarize_localization(places, {path: own for path, own in truths.items() if own})
    return {**metrics, "best_box": best_box}, {"items": len(training), "digest": items_digest(training)}


def view_alone(chosen: Chosen) -> tuple[Row, Row]:
    """
    Return what the view of a film says of its findings: their share among the training films of the same view.

    Args:
        chosen: flags of a set with ``labels_csv`` and ``classes``, in a folder with ``manifest.csv``.

    Returns:
        the metrics of :py:func:`bundle.classification.metrics.compute_classification_metrics`, and ``items`` and
        ``digest`` of the training images.
    """
    classes: Sequence[str] = str(chosen.train["classes"]).split(",")
    folder = Path(str(chosen.both["dataset_dir"]))
    views = {row["image"]: row["view"] for _, row in read_rows(folder / "manifest.csv")[1]}
    lists = LabelDataList(str(chosen.both["labels_csv"]), str(folder), classes, exclusive=False)
    labels: dict[str, list[Any]] = {}
    for item in lists.training:
        labels.setdefault(views[Path(item["image"]).name], []).append(item["label"])
    shares = {view: np.mean(found, axis=0) for view, found in labels.items()}
    metrics = compute_classification_metrics(
        np.stack([shares[views[Path(item["image"]).name]] for item in lists.test]),
        np.stack([item["label"] for item in lists.test]),
        classes,
        [item["patient"] for item in lists.test],
    )
    return metrics, {"items": len(lists.training), "digest": items_digest(lists.training)}


CONTROLS: dict[str, Callable[[Chosen], tuple[Row, Row]]] = {
    "frequent_anchor": frequent_anchor,
    "median_box": median_box,
    "median_box_precision": median_box_precision,
    "view_alone": view_alone,
}
