# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Boxes of VinDr-CXR, one for what several readers boxed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from bundle.lists.csv_files import read_rows
from bundle.lists.known_sets.vindr import vindr_class
from bundle.rules import is_number, number_in, whole_number

__all__ = ["fused_boxes", "is_vindr_boxes", "vindr_boxes"]

_SIDE = 65536.0  # of a picture that holds every box: the library wants shares, and overlaps do not depend on it
_EDGES = ("x_min", "y_min", "x_max", "y_max")


def is_vindr_boxes(path: str | Path) -> bool:
    """Return whether a CSV file is VinDr-CXR's list of boxes, by its columns."""
    return {"image_id", "class_name", "rad_id", *_EDGES} <= set(read_rows(Path(path))[0])


def vindr_boxes(path: str | Path, min_readers: int = 2, overlap: float = 0.4) -> Iterator[tuple[str, str, list[float]]]:
    """
    Yield the boxes of VinDr-CXR that enough readers agree on (Nguyen et al., 2020, arXiv:2012.15029).

    Three radiologists read each training image by themselves; see :py:func:`fused_boxes` for how theirs become one.

    Args:
        path: ``train.csv`` of Kaggle, or ``annotations_*.csv`` of PhysioNet, plain or gzipped: a row a box, with
            ``image_id``, ``class_name``, ``rad_id`` and edges in pixels of the DICOM file.
        min_readers: number of readers who must agree, 1 to 3, where an image has as many; the test images of
            PhysioNet, which were agreed on, have one.
        overlap: intersection over union from which two boxes are of one place.

    Yields:
        file name (``image_id`` and ``.dicom``), class, and left, upper, right, lower edge in pixels.

    Raises:
        ValueError: When a row is no such box, or ``ensemble-boxes`` is not installed; names the row.
    """
    whole_number("min_readers", min_readers)
    path = Path(path)
    readers: dict[str, set[str]] = defaultdict(set)
    found: dict[tuple[str, str], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for number, row in read_rows(path)[1]:
        image, reader = row["image_id"], row["rad_id"]
        readers[image].add(reader)
        name = vindr_class(row["class_name"], f"{path.name} row {number}")
        if any(row[edge] for edge in _EDGES):
            found[image, name][reader].append(_edges([row[edge] for edge in _EDGES], f"{path.name} row {number}"))
    for (image, name), by_reader in found.items():
        boxes = [by_reader.get(reader, []) for reader in sorted(readers[image])]
        for edges in fused_boxes(boxes, min(min_readers, len(boxes)), overlap):
            yield f"{image}.dicom", name, edges


def fused_boxes(boxes: list[list[list[float]]], min_readers: int = 2, overlap: float = 0.4) -> list[list[float]]:
    """
    Return one box for what several readers boxed, by weighted box fusion, all readers alike.

    Solovyev et al., Image and Vision Computing 2021, https://arxiv.org/abs/1910.13302, by the authors' library: boxes
    that overlap become one, whose edges are the mean of theirs.

    Args:
        boxes: of each reader, edges in pixels, one class.
        min_readers: boxes that a fused one needs to be kept, at most the number of readers.
        overlap: intersection over union above which two are one, 0..1.

    Raises:
        ValueError: When ``ensemble-boxes`` is not installed, or ``overlap`` is out of range.

    Example, with the extra installed: of ``[[[0, 0, 100, 100]], [[10, 0, 110, 100]], [[300, 0, 400, 90]]]`` is left
    ``[[5.0, 0.0, 105.0, 100.0]]``.
    """
    number_in("overlap", overlap, 0, 1)
    fusion, installed = optional_import("ensemble_boxes", name="weighted_boxes_fusion")
    if not installed:
        raise ValueError("VinDr-CXR's boxes need ensemble-boxes: pip install 'attention-imaging-bundle[vindr]'.")
    shares = [np.asarray(own, dtype=np.float64).reshape(-1, 4) / _SIDE for own in boxes]
    ones = [np.ones(len(own)) for own in boxes]
    edges, scores, _ = fusion(
        [s.tolist() for s in shares], ones, [np.zeros(len(own)) for own in boxes], iou_thr=overlap
    )
    enough = np.asarray(scores) * len(boxes) > min_readers - 0.5  # the score is the share of the readers
    kept = np.asarray(edges)[enough].reshape(-1, 4) * _SIDE
    return [[round(float(edge), 2) for edge in box] for box in kept]


def _edges(words: list[str], where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    left, upper, right, lower = numbers or [0.0] * 4
    if not all(map(is_number, numbers)) or not (0 <= left < right < _SIDE and 0 <= upper < lower < _SIDE):
        raise ValueError(f"{where}: edges must be x_min < x_max and y_min < y_max in pixels, got {words}.")
    return numbers
