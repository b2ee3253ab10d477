# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Label tables from folders of images, one folder a class, such as the covid19 and BrainMRI collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.data.files import file_sha256
from bundle.data.splits import patient_splits

__all__ = ["image_folder_table"]


def image_folder_table(
    root: str | Path,
    class_folders: Mapping[str, str],
    test_folders: Mapping[str, str] | None = None,
    parts: Sequence[str] = ("train", "train", "train", "val", "test"),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """
    Return the rows of a label table for folders of images, one class each.

    Such collections name no patients. Files with the same content, of which BrainMRI has 22 groups, share a hash that
    stands for the patient, so no copy of a training image can be tested on; a test image's copies among the training
    images are left out.

    Args:
        root: folder that the paths start from.
        class_folders: class name to folder below ``root``; with ``test_folders`` the training images only.
        test_folders: class name to folder of test images, where the collection has a split of its own.
        parts: name of every equal part of the images of ``class_folders``, see :py:func:`patient_splits`.
        seed: of the shuffle.

    Returns:
        rows for :py:func:`write_label_table`, their labels in the order of ``class_folders``.

    Raises:
        ValueError: When a folder has no files.
    """
    classes = list(class_folders)
    test = _rows(Path(root), classes, test_folders) if test_folders else []
    tested = {row["patient"] for row in test}
    rows = [row for row in _rows(Path(root), classes, class_folders) if row["patient"] not in tested]
    splits = patient_splits([row["label"] for row in rows], [row["patient"] for row in rows], parts, seed)
    return [{**row, "split": split} for row, split in zip(rows, splits, strict=True)] + [
        {**row, "split": "test"} for row in test
    ]


def _rows(root: Path, classes: list[str], folders: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for name, folder in folders.items():
        files = sorted(p for p in (root / folder).glob("*") if p.is_file())
        if not files:
            raise ValueError(f"folder of class '{name}' must have files, '{folder}' has none.")
        for file in files:
            digest = file_sha256(file)[:16]
            label = [int(c == name) for c in classes]
            rows.append({"path": file.relative_to(root).as_posix(), "patient": digest, "label": label})
    return rows
