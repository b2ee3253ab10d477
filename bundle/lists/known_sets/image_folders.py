# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Label tables from folders of images: of known data sets, and of any folder with one folder a class."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.lists.known_sets.layouts import Collection, Item, folder_items
from bundle.lists.patients import file_digest, group_copies, patients_of, tell_copies, write_copies
from bundle.lists.splits import patient_splits
from bundle.reading.formats import split_frame

__all__ = ["class_folders_of", "collection_rows", "folder_classes"]

logger = logging.getLogger(__name__)
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def class_folders_of(root: Path, class_folders: Mapping[str, str]) -> Collection:
    """
    Return the images of folders that are one class each.

    Args:
        root: folder that the others are in.
        class_folders: class name to folder.

    Raises:
        ValueError: When a folder has no images.
    """
    items: list[Item] = []
    for name, folder in class_folders.items():
        found = folder_items(root, folder, [name], "")
        if not found:
            raise ValueError(f"folder of class '{name}' must have images, '{folder}' has none.")
        items += found
    return Collection(items, tuple(class_folders), None)


def folder_classes(root: Path) -> dict[str, str]:
    """
    Return class name to folder, for a folder with one folder a class.

    Args:
        root: the folder.

    Raises:
        ValueError: When there are fewer than two folders, or they are named for a split.
    """
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "__MACOSX")
    splits = [name for name in names if name.lower() in _SPLIT_NAMES]
    if splits or len(names) < 2:
        rule = "must have one folder a class, at least two"
        raise ValueError(f"'{root.name}' {rule}, and none named for a split, got {names}.")
    return {name: name for name in names}


def collection_rows(
    collection: Collection,
    root: str | Path,
    parts: Sequence[str] = ("training", "training", "training", "validation", "test"),
    seed: int = 0,
    group_pictures: bool = True,
    copies_file: str | Path = "",
) -> list[dict[str, Any]]:
    """
    Return the rows of a label table for a collection of images.

    Images of one patient stay together, as do identical files and near copies of one picture, which count as one
    patient. Where the data set has test images of its own, these stay as they are; images of their patients, and copies
    of them, are left out of training, and the log says how many. The same holds for validation images of its own.

    Args:
        collection: see :py:class:`bundle.lists.known_sets.layouts.Collection`.
        root: folder that the paths start from.
        parts: name of every equal part of the images whose split is ours to make, see :py:func:`patient_splits`;
            ``"test"`` is left out of it where there are test images already.
        seed: of the shuffle.
        group_pictures: read every image once, small, to find near copies.
        copies_file: CSV to write with the near copies that were found; none for an empty word.

    Returns:
        rows for :py:func:`write_label_table`, their labels in the order of the collection's classes.

    Raises:
        ValueError: When there is no image, or fewer patients than parts.
    """
    if not collection.items:
        raise ValueError(f"'{Path(root).name}' must hold images, it holds none.")
    items = [{**item, "label": "|".join(item["classes"])} for item in collection.items]
    named = {item["patient"] for item in items if item["patient"]}
    copies = group_copies(items, group_pictures)
    stand_in: dict[str, str] = {}
    for item, patient in zip(items, patients_of(items), strict=True):
        if patient not in named:  # a digest, so that a split does not depend on where the files are
            first = file_digest(split_frame(item["image"])[0])[:16]
            item["patient"] = stand_in.setdefault(patient, first)
    names = {item["split"] for item in items}
    for fixed in ("test", "validation"):
        held = {item["patient"] for item in items if item["split"] == fixed}
        later = ("test", "validation")[: ("test", "validation").index(fixed) + 1]
        shared = [item for item in items if item["patient"] in held and item["split"] not in later]
        for item in shared:
            item["split"] = "left out"
        if shared:
            logger.warning(
                "%d images are left out: they are of patients, or copies of images, of the data set's own %s images",
                *(len(shared), fixed),
            )
    if "validation" not in names:
        pool = [item for item in items if item["split"] in ("", "training")]
        parts = [part for part in parts if part != "test" or "test" not in names]
        labels = [[int(c in item["classes"]) for c in collection.classes] for item in pool]
        for item, split in zip(
            pool, patient_splits(labels, [item["patient"] for item in pool], parts, seed), strict=True
        ):
            item["split"] = split
    tell_copies(items, copies, root)
    if copies_file:
        write_copies(copies_file, items, copies, root)
    return [
        {
            "image": Path(os.path.relpath(item["image"], root)).as_posix(),
            "patient": item["patient"],
            "label": [int(c in item["classes"]) for c in collection.classes],
            "split": item["split"],
        }
        for item in sorted(items, key=lambda item: item["split"] == "test")
        if item["split"] != "left out"
    ]
