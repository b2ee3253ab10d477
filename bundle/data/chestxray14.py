# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels of NIH ChestX-ray14 with its official split by patient."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

from bundle.data.splits import patient_splits

__all__ = ["CHESTXRAY14_CLASSES", "chestxray14_table"]

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
    data_entry: str | Path, test_list: str | Path | None = None, folds: int = 8, seed: int = 0
) -> list[dict[str, Any]]:
    """
    Return 14 image labels a radiograph from NIH's data entry file (Wang et al., 2017, arXiv:1705.02315).

    Args:
        data_entry: ``Data_Entry_2017_v2020.csv``, ``.gz`` allowed.
        test_list: the official ``test_list.txt``; ``None`` for one part in ``folds`` by patient, stratified, as a test
            set of our own.
        folds: number of equal parts by patient; one of the images that are not for testing is for validation.
        seed: of the shuffle.

    Returns:
        rows for :py:func:`write_label_table`, labels in the order of ``CHESTXRAY14_CLASSES``; "No Finding" is all 0.

    Raises:
        ValueError: When a label is unknown, the test list names an image that the file lacks, or a patient is on both
            sides of the official split.
    """
    path = Path(data_entry)
    rows: list[dict[str, Any]] = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for number, entry in enumerate(csv.DictReader(file), start=2):
            found = set(entry["Finding Labels"].split("|")) - {"No Finding"}
            if not found <= set(CHESTXRAY14_CLASSES):
                raise ValueError(
                    f"{path.name} row {number}: unknown finding {sorted(found - set(CHESTXRAY14_CLASSES))}."
                )
            label = [int(c in found) for c in CHESTXRAY14_CLASSES]
            rows.append({"path": entry["Image Index"], "patient": entry["Patient ID"], "label": label, "split": ""})
    if test_list is not None:
        _mark_test(rows, Path(test_list))
    rest = [row for row in rows if not row["split"]]
    parts = ("val",) + (() if test_list else ("test",))
    parts = ("train",) * (folds - len(parts)) + parts
    splits = patient_splits([row["label"] for row in rest], [row["patient"] for row in rest], parts, seed)
    for row, split in zip(rest, splits, strict=True):
        row["split"] = split
    return rows


def _mark_test(rows: list[dict[str, Any]], test_list: Path) -> None:
    tested = set(test_list.read_text().split())
    known = {row["path"] for row in rows}
    if not tested <= known:
        raise ValueError(
            f"{test_list.name} must name images of the data entry file, '{min(tested - known)}' is not one."
        )
    patients = {row["patient"] for row in rows if row["path"] in tested}
    for number, row in enumerate(rows, start=2):
        if row["path"] in tested:
            row["split"] = "test"
        elif row["patient"] in patients:
            raise ValueError(f"data entry row {number}: the patient is on both sides of {test_list.name}.")
