# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels of NIH ChestX-ray14 with its official split by patient."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bundle.lists.csv_files import read_rows
from bundle.lists.file_kinds import files_by_name
from bundle.lists.splits import patient_splits

__all__ = ["CHESTXRAY14_CLASSES", "chestxray14_folder", "chestxray14_table"]

logger = logging.getLogger(__name__)

CHESTXRAY14_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


def chestxray14_table(
    data_entry: str | Path, test_list: str | Path | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """
    Return 14 image labels a radiograph from NIH's data entry file (Wang et al., 2017, arXiv:1705.02315).

    Args:
        data_entry: ``Data_Entry_2017_v2020.csv``, ``.gz`` allowed.
        test_list: the official ``test_list.txt``; ``None`` for one part of eight by patient, stratified, as a test
            set of our own.
        seed: of the shuffle.

    Returns:
        rows for :py:func:`write_label_table`, labels in the order of ``CHESTXRAY14_CLASSES``; "No Finding" is all 0.

    Raises:
        ValueError: When a label is unknown, the test list names an image that the file lacks, or a patient is on both
            sides of the official split.
    """
    rows: list[dict[str, Any]] = [
        {"image": name, "patient": patient, "label": [int(c in found) for c in CHESTXRAY14_CLASSES], "split": ""}
        for name, patient, found in _entries(Path(data_entry))
    ]
    if test_list is not None:
        _mark_test(rows, Path(test_list))
    rest = [row for row in rows if not row["split"]]
    parts = ("validation",) + (() if test_list else ("test",))
    parts = ("training",) * (8 - len(parts)) + parts
    splits = patient_splits([row["label"] for row in rest], [row["patient"] for row in rest], parts, seed)
    for row, split in zip(rest, splits, strict=True):
        row["split"] = split
    return rows


def chestxray14_folder(root: Path) -> list[dict[str, Any]]:
    """
    Return the items of the data set as downloaded.

    Args:
        root: folder with ``Data_Entry_2017*.csv``, the images anywhere below it (``images_001/images/*.png``), and
            perhaps ``test_list.txt`` (with ``train_val_list.txt``), whose split is taken over.

    Returns:
        items of the images that are there, see :py:class:`bundle.lists.known_sets.layouts.Collection`.

    Raises:
        ValueError: As :py:func:`chestxray14_table`, and when no image is there.
    """
    files = files_by_name(root)
    rows: list[dict[str, Any]] = [
        {"image": name, "patient": patient, "classes": tuple(c for c in CHESTXRAY14_CLASSES if c in found), "split": ""}
        for name, patient, found in _entries(min(root.glob("Data_Entry_2017*.csv*")))
    ]
    if (root / "test_list.txt").is_file():
        _mark_test(rows, root / "test_list.txt")
        for row in rows:
            row["split"] = row["split"] or "training"
    there = [row for row in rows if row["image"] in files]
    if not there:
        raise ValueError(
            f"'{root.name}' must hold images of its data entry file, '{rows[0]['image']}' and the others are not there."
        )
    if len(there) < len(rows):
        logger.warning(
            "%d of the %d images of ChestX-ray14 are not there, they are left out", len(rows) - len(there), len(rows)
        )
    return [{"image": str(files[row.pop("image")]), **row} for row in there]


def _entries(path: Path) -> list[tuple[str, str, set[str]]]:
    """Return image name, patient and findings of each row of the data entry file."""
    columns, rows = read_rows(path)
    missing = {"Image Index", "Finding Labels", "Patient ID"} - set(columns)
    if missing or not rows:
        raise ValueError(
            f"{path.name} must have rows and the columns 'Image Index', 'Finding Labels' and 'Patient ID'."
        )
    entries = []
    for number, row in rows:
        found = set(row["Finding Labels"].split("|")) - {"No Finding"}
        if not found <= set(CHESTXRAY14_CLASSES):
            raise ValueError(f"{path.name} row {number}: unknown finding {sorted(found - set(CHESTXRAY14_CLASSES))}.")
        entries.append((row["Image Index"], row["Patient ID"], found))
    return entries


def _mark_test(rows: list[dict[str, Any]], test_list: Path) -> None:
    tested = set(test_list.read_text(encoding="utf-8-sig").split())
    known = {row["image"] for row in rows}
    if not tested <= known:
        raise ValueError(
            f"{test_list.name} must name images of the data entry file, '{min(tested - known)}' is not one."
        )
    patients = {row["patient"] for row in rows if row["image"] in tested}
    for number, row in enumerate(rows, start=2):
        if row["image"] in tested:
            row["split"] = "test"
        elif row["patient"] in patients:
            raise ValueError(f"data entry row {number}: the patient is on both sides of {test_list.name}.")
