# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The table that every family trains and evaluates from: ``image``, ``patient``, ``split``, and what the images show.

What they show is ``label`` (0 is normal, 1 is not), or a column of 0 and 1 for each class. docs/tables.md is the page.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bundle.files import atomic_path, lies_in
from bundle.lists.csv_files import binary_label, read_rows
from bundle.lists.file_kinds import pointer_reason
from bundle.reading.formats import split_frame

__all__ = ["SPLITS", "Rows", "binary_cell", "check_images", "load_label_table", "read_table", "write_label_table"]

logger = logging.getLogger(__name__)

SPLITS = ("training", "validation", "test")
_OLD_WORDS = {"train": "training", "val": "validation"}

Rows = list[tuple[int, dict[str, str]]]


def read_table(path: str | Path) -> tuple[list[str], Rows]:
    """
    Read the table of any family; the column ``path`` and the words ``train`` and ``val`` of before are understood.

    Args:
        path: a CSV, see :py:func:`bundle.lists.csv_files.read_rows`, with the column ``image`` (``loop.dcm#frame=7``
            for a frame of a loop), and where known ``patient`` and ``split``.

    Returns:
        the names of the columns; and the rows with their numbers, counted as a spreadsheet does: the header is row 1.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is no CSV with rows and images, a split is unknown, or old and new names are mixed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"labels must be an existing CSV file, got '{path}'.")
    columns, rows = read_rows(path)
    old = {"path": "image"} if "path" in columns else {}
    if old and "image" in columns:
        raise ValueError(f"{path.name} row 1: 'path' is the old name of the column 'image', both are there.")
    columns = [old.get(column, column) for column in columns]
    if not rows or "image" not in columns:
        raise ValueError(f"{path.name} must have rows and a column 'image', got columns {columns}.")
    first: dict[str, int] = {}  # row that a word of the splits is met in
    for number, row in rows:
        if old:
            row["image"] = row.pop("path")
        if not row["image"]:
            raise ValueError(f"{path.name} row {number}: image must not be empty.")
        if "split" in columns:
            word = row["split"].lower()
            row["split"] = _OLD_WORDS.get(word, word)
            if row["split"] not in SPLITS:
                raise ValueError(f"{path.name} row {number}: split must be one of {list(SPLITS)}, got '{word}'.")
            first.setdefault(word, number)
    before, now = [word for word in first if word in _OLD_WORDS], [word for word in first if word in SPLITS[:2]]
    if before and now:
        places = f"'{before[0]}' in row {first[before[0]]} and '{now[0]}' in row {first[now[0]]}"
        raise ValueError(f"{path.name}: split must be one of {list(SPLITS)} in all rows, got {places}.")
    if old := old | {word: _OLD_WORDS[word] for word in before}:
        _hint(str(path), ", ".join(f"'{name}' is '{new}' now" for name, new in old.items()))
    return columns, rows


@lru_cache(maxsize=256)  # a run reads its table once a split, and says this once
def _hint(path: str, text: str) -> None:
    logger.info("%s: %s; the names of before still work", Path(path).name, text)


def check_images(images: Iterable[tuple[str, str]], folder: Path, allow_outside: bool, listed: bool = True) -> None:
    """
    Refuse an image of a list that lies outside of a folder, by its path or by a link, is listed twice or is not there.

    Args:
        images: for each image the place in the list that an error names, and its path.
        folder: that the images must lie in.
        allow_outside: take images from outside of it too.
        listed: a list names the images; those found in a folder are there, and once.

    Raises:
        ValueError: When an image is refused; names its place.
    """
    seen: dict[Path, str] = {}
    for where, image in images:
        source, name = split_frame(image)[0], os.path.relpath(image, folder)
        # a link with a frame after its name is no link to resolve(); on a command line `false` is a word, which is true
        if allow_outside is not True and not lies_in(source, folder):
            rule = f"image '{name}' must lie in '{folder.name}'"
            raise ValueError(f"{where}: {rule}; --allow_outside True takes images from elsewhere.")
        if not listed:
            continue
        if (first := seen.setdefault(Path(image).resolve(), where)) != where:
            raise ValueError(f"{where}: image '{name}' is listed already in {first}.")
        if reason := pointer_reason(source) or ("" if source.is_file() else "it does not exist."):
            raise ValueError(f"{where}: image '{name}' cannot be read: {reason}")


def load_label_table(
    csv_path: str | Path,
    image_dir: str | Path,
    classes: Sequence[str],
    split: str | None = None,
    exclusive: bool = False,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """
    Return the data list of one split, after checking the table as a whole.

    Args:
        csv_path: see :py:func:`read_table`, with a column for each class.
        image_dir: folder that the images are named from.
        classes: class columns, in the order of the network's outputs.
        split: ``"training"``, ``"validation"`` or ``"test"``; ``None`` for all rows.
        exclusive: ``True`` where exactly one class holds for an image.
        allow_outside: take images from outside of ``image_dir`` too.

    Returns:
        items with ``image`` (path), ``label`` (a list of 0 and 1), ``patient`` (the image where the table has none),
        ``split`` (empty where the table has none) and ``key`` (the row number, so that results carry no identity).

    Raises:
        FileNotFoundError: When the table does not exist.
        ValueError: When ``exclusive`` is not a boolean, ``split`` is unknown, a column is missing, a label is not 0 or
            1, a class has no or one positive image (but in a table to test with, where a class may be unknown), or only
            one value in the split to train on, an image is refused by
            :py:func:`check_images`, a patient is in two splits, or a split is empty. The message is one line and names
            the row.
    """
    if not isinstance(exclusive, bool):  # a command line that says false hands over a word, which is true
        raise ValueError(f"exclusive must be True or False, got '{exclusive}'.")
    split = None if split is None else _OLD_WORDS.get(split, split)
    if split not in (None, *SPLITS):
        raise ValueError(f"split must be one of {list(SPLITS)}, got '{split}'.")
    path, root = Path(csv_path), Path(image_dir).resolve()
    columns, rows = read_table(path)
    for column in (*classes, *(["split"] if split else [])):
        if column not in columns:
            raise ValueError(f"{path.name} row 1: column '{column}' is missing, the columns are {columns}.")
    check_images(((f"{path.name} row {n}", str(root / row["image"])) for n, row in rows), root, allow_outside)
    home: dict[str, tuple[str, int]] = {}
    items: list[dict[str, Any]] = []
    for number, row in rows:
        where = f"{path.name} row {number}"
        label = [binary_cell(row, name, where) for name in classes]
        if exclusive and sum(label) != 1:
            raise ValueError(f"{where}: exactly one class must be 1, got {sum(label)}.")
        patient, part = row.get("patient") or row["image"], row.get("split", "")
        other, first = home.setdefault(patient, (part, number))
        if other != part:
            # the row names the patient well enough; a message may end up in a log
            raise ValueError(f"{where}: the patient is in split '{part}' here and in '{other}' in row {first}.")
        image = str((root / row["image"]).resolve())
        items.append({"image": image, "label": label, "patient": patient, "key": f"{number:06d}", "split": part})
    for k, name in enumerate(classes if split != "test" else ()):
        positive = [item["key"] for item in items if item["label"][k]]
        if len(positive) < 2:
            found = f"one, row {int(positive[0])}" if positive else "none in any row"
            raise ValueError(f"{path.name}: class '{name}' must have at least two positive images, it has {found}.")
    chosen = [item for item in items if split in (None, item["split"])]
    if not chosen:
        raise ValueError(f"{path.name}: split '{split}' must have rows, it has none.")
    for k, name in enumerate(classes if split == "training" else ()):
        values = {item["label"][k] for item in chosen}
        if len(values) < 2:
            rule = f"class '{name}' must have images with and without it to train on"
            raise ValueError(f"{path.name}: {rule}, it is {values.pop()} in every row of the split 'training'.")
    return chosen


def write_label_table(rows: Iterable[dict[str, Any]], csv_path: str | Path, classes: Sequence[str]) -> None:
    """
    Write a table that every family reads.

    Args:
        rows: dictionaries with ``image``, ``patient``, ``split`` and ``label``, a list of 0 and 1 in the order of
            ``classes``.
        csv_path: file to write.
        classes: names of the class columns, or ``label`` alone.
    """
    with atomic_path(csv_path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "split", *classes])
        for row in rows:
            writer.writerow([row["image"], row["patient"], row["split"], *row["label"]])


def binary_cell(row: dict[str, str], column: str, where: str) -> int:
    """
    Return the label of a row in a column, 0 or 1.

    Args:
        row: cells by column.
        column: its name.
        where: the place that an error names.

    Raises:
        ValueError: When it is neither.
    """
    label = binary_label(row[column])
    if label is None:
        raise ValueError(f"{where}: label '{column}' must be 0 or 1, got '{row[column]}'.")
    return label
