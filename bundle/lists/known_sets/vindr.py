# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels of VinDr-CXR from the boxes of its readers."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from bundle.lists.csv_files import binary_label, read_rows
from bundle.lists.file_kinds import files_by_name
from bundle.lists.splits import patient_splits

__all__ = [
    "VINDR_CLASSES",
    "VINDR_EXTRA_CLASSES",
    "vindr_class",
    "vindr_classes",
    "vindr_folder",
    "vindr_lists",
    "vindr_table",
]

logger = logging.getLogger(__name__)

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


VINDR_EXTRA_CLASSES = (  # of the PhysioNet release, beside Kaggle's fifteen
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
)
_KNOWN = {name.lower(): name for name in (*VINDR_CLASSES, *VINDR_EXTRA_CLASSES)} | {"other disease": "Other diseases"}

Readings = dict[str, dict[str, set[str]]]  # image: class: readers who saw it


def vindr_table(annotations: str | Path, min_readers: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """
    Return image labels of the radiographs of VinDr-CXR's training annotations (Nguyen et al., 2020, arXiv:2012.15029).

    Three radiologists read every image. A class is positive when at least ``min_readers`` of them marked it, however
    many boxes each drew. With the default majority an image on which no two agree has no positive label at all, not
    even "No finding". The file has no patients: every image counts as one.

    Args:
        annotations: the training CSV of Kaggle or PhysioNet, ``.gz`` allowed: ``image_id``, ``class_name`` and
            ``rad_id``, one row a box; or ``image_id``, ``rad_id`` and a column of 0 and 1 a class.
        min_readers: number of readers who must agree, 1 to 3.
        seed: of the split into 70 % training, 10 % validation and 20 % test, stratified by the rarest finding.

    Returns:
        rows for :py:func:`write_label_table`, labels in the order of :py:func:`vindr_classes`.

    Raises:
        ValueError: When ``min_readers`` is not in [1, 3] or a class is unknown.
    """
    _check_readers(min_readers)
    classes, readings = _readings(Path(annotations))
    images = sorted(readings)
    labels = [[int(len(readings[i][c]) >= min_readers) for c in classes] for i in images]
    parts = ("training",) * 7 + ("validation",) + ("test",) * 2
    splits = patient_splits(labels, images, parts, seed)
    return [
        {"image": f"{i}.dicom", "patient": i, "label": label, "split": split}
        for i, label, split in zip(images, labels, splits, strict=True)
    ]


def vindr_classes(annotations: str | Path) -> tuple[str, ...]:
    """
    Return the classes of an annotation file: Kaggle's fifteen, and what PhysioNet's has beside them.

    Args:
        annotations: see :py:func:`vindr_table`.
    """
    return _readings(Path(annotations))[0]


def vindr_lists(root: Path) -> dict[str, Path]:
    """
    Return the files of image labels by the folder of their images, as Kaggle or PhysioNet name them, if any.

    Args:
        root: folder of the data set.
    """
    found = {}
    for split in ("train", "test"):
        for place in (root / f"image_labels_{split}.csv", root / f"annotations/image_labels_{split}.csv"):
            if place.is_file():
                found[split] = place
    kaggle = root / "train.csv"
    if not found and kaggle.is_file():
        with kaggle.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline()
        if "image_id" in head and "rad_id" in head:
            found["train"] = kaggle
    return found


def vindr_folder(root: Path, min_readers: int = 2) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """
    Return classes and items of the data set as downloaded.

    Args:
        root: folder with ``train/*.dicom`` and ``train.csv`` (Kaggle), or ``train``, ``test`` and
            ``annotations/image_labels_*.csv`` (PhysioNet), whose test split is taken over. Kaggle's test images have no
            labels and are left out.
        min_readers: number of readers who must agree; the test labels of PhysioNet are agreed on already.

    Returns:
        the classes; and items of the images that are there, see :py:class:`bundle.lists.known_sets.layouts.Collection`.

    Raises:
        ValueError: As :py:func:`vindr_table`, and when no image is there.
    """
    _check_readers(min_readers)
    lists = vindr_lists(root)
    names: dict[str, None] = {}
    items, missing = [], 0
    for split, path in lists.items():
        files = files_by_name(root / split, stems=True) if (root / split).is_dir() else {}
        classes, readings = _readings(path)
        names |= dict.fromkeys(classes)
        for image, readers in sorted(readings.items()):
            enough = min_readers if split == "train" else 1
            found = tuple(c for c in classes if len(readers[c]) >= enough)
            official = "" if len(lists) == 1 else "test" if split == "test" else "training"
            if image in files:
                items.append({"image": str(files[image]), "patient": "", "classes": found, "split": official})
            missing += image not in files
    if not items:
        raise ValueError(f"'{root.name}' must hold the images of its list in 'train', none of {missing} is there.")
    if missing:
        logger.warning(
            "%d of the %d images of VinDr-CXR are not there, they are left out", missing, missing + len(items)
        )
    return tuple(names), items


def _check_readers(min_readers: int) -> None:
    if not 1 <= min_readers <= 3:
        raise ValueError(f"min_readers must be in [1, 3], got {min_readers}.")


def _readings(path: Path) -> tuple[tuple[str, ...], Readings]:
    """Return the classes of a file and who saw what, from a row a box or from a column a class."""
    columns, rows = read_rows(path)
    readings: Readings = defaultdict(lambda: defaultdict(set))
    if "image_id" not in columns:
        raise ValueError(f"{path.name} must have a column 'image_id', got {columns}.")
    if "class_name" in columns:
        for number, row in rows:
            name = vindr_class(row["class_name"], f"{path.name} row {number}")
            readings[row["image_id"]][name].add(row.get("rad_id", ""))
        seen = {name for readers in readings.values() for name in readers}
    else:
        named = {
            column: vindr_class(column, f"{path.name} row 1")
            for column in columns
            if column not in ("image_id", "rad_id")
        }
        seen = set(named.values())
        for number, row in rows:
            readers = readings[row["image_id"]]
            for column, name in named.items():
                label = binary_label(row[column])
                if label is None:
                    raise ValueError(f"{path.name} row {number}: label '{column}' must be 0 or 1, got '{row[column]}'.")
                if label:
                    readers[name].add(row.get("rad_id", ""))
    return (*VINDR_CLASSES, *(name for name in VINDR_EXTRA_CLASSES if name in seen)), readings


def vindr_class(name: str, where: str) -> str:
    """
    Return the class as VinDr-CXR spells it.

    Args:
        name: in any case.
        where: it stands, for the message.

    Raises:
        ValueError: When there is no such class.
    """
    if name.lower() not in _KNOWN:
        raise ValueError(
            f"{where}: class must be one of VinDr's {len(VINDR_CLASSES) + len(VINDR_EXTRA_CLASSES)}, got '{name}'."
        )
    return _KNOWN[name.lower()]
