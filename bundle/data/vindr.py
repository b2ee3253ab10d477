# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels of VinDr-CXR from the boxes of its readers."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path
from typing import Any

from bundle.data.splits import patient_splits

__all__ = ["VINDR_CLASSES", "vindr_table"]

VINDR_CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "No finding",
)


def vindr_table(
    annotations: str | Path, min_readers: int = 2, suffix: str = ".dicom", seed: int = 0
) -> list[dict[str, Any]]:
    """
    Return 15 image labels a radiograph from VinDr-CXR's training annotations (Nguyen et al., 2020, arXiv:2012.15029).

    Three radiologists read every image. A class is positive when at least ``min_readers`` of them marked it, however
    many boxes each drew. With the default majority an image on which no two agree has no positive label at all, not
    even "No finding". The file has no patients: every image counts as one.

    Args:
        annotations: the training CSV, ``.gz`` allowed, with columns ``image_id``, ``class_name`` and ``rad_id``.
        min_readers: number of readers who must agree, 1 to 3.
        suffix: file name ending of the images.
        seed: of the split into 70 % training, 10 % validation and 20 % test, stratified by the rarest finding.

    Returns:
        rows for :py:func:`write_label_table`, labels in the order of ``VINDR_CLASSES``.

    Raises:
        ValueError: When ``min_readers`` is not in [1, 3] or a class is unknown.
    """
    if not 1 <= min_readers <= 3:
        raise ValueError(f"min_readers must be in [1, 3], got {min_readers}.")
    readers: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    path = Path(annotations)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if row["class_name"] not in VINDR_CLASSES:
                raise ValueError(
                    f"{path.name} row {number}: class must be one of VinDr's 15, got '{row['class_name']}'."
                )
            readers[row["image_id"]][row["class_name"]].add(row["rad_id"])
    images = sorted(readers)
    labels = [[int(len(readers[i][c]) >= min_readers) for c in VINDR_CLASSES] for i in images]
    parts = ("train",) * 7 + ("val",) + ("test",) * 2
    splits = patient_splits(labels, images, parts, seed)
    return [
        {"path": i + suffix, "patient": i, "label": label, "split": split}
        for i, label, split in zip(images, labels, splits, strict=True)
    ]
