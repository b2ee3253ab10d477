# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
One CSV file of labels for every classification task: ``path``, ``patient``, ``split``, and a column of 0 and 1 for each
class.

Every preparation writes this format and every configuration reads it, so all checks stand in one place.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bundle.files import atomic_path, lies_in
from bundle.lists.csv_files import binary_label, read_rows
from bundle.lists.file_kinds import pointer_reason
from bundle.reading.reader import split_frame

__all__ = ["load_label_table", "write_label_table"]

_SPLITS = ("train", "val", "test")


def load_label_table(
    csv_path: str | Path,
    image_dir: str | Path,
    classes: Sequence[str],
    split: str | None = None,
    exclusive: bool = False,
    check_files: bool = True,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """
    Return the data list of one split, after checking the table as a whole.

    Args:
        csv_path: table with a header, see :py:func:`bundle.lists.csv_files.read_rows`; columns ``path``
            (``loop.dcm#frame=7`` for a frame of a loop), optionally ``patient`` and ``split``, and one for each class.
        image_dir: folder that the paths start from.
        classes: class columns, in the order of the network's outputs.
        split: ``"train"``, ``"val"`` or ``"test"``; ``None`` for all rows.
        exclusive: ``True`` where exactly one class holds for an image.
        check_files: whether every image must exist.
        allow_outside: take images from outside of ``image_dir`` too.

    Returns:
        items with ``image`` (path), ``label`` (a list of 0 and 1), ``patient`` (the path where the table has none) and
        ``key`` (the row number, so that results carry no identity).

    Raises:
        FileNotFoundError: When the table does not exist.
        ValueError: When ``exclusive`` is not a boolean, a column is missing, a label is not 0 or 1, a class has no or
            one positive image, or only one value in the split to train on, an image is listed twice, lies outside
            ``image_dir`` by its path or by a link, or does not exist, a patient is in two splits, or a split is empty.
            The message is one line and names the row, counted as a spreadsheet does: the header is row 1.
    """
    if not isinstance(exclusive, bool):  # a command line that says false hands over a word, which is true
        raise ValueError(f"exclusive must be True or False, got '{exclusive}'.")
    path = Path(csv_path)
    if not path.is_file():
        raise FileNotFoundError(f"labels must be an existing CSV file, got '{path}'.")
    columns, rows = read_rows(path)
    for column in ("path", *classes, *(["split"] if split is not None else [])):
        if column not in columns:
            raise ValueError(f"{path.name} row 1: column '{column}' is missing, the columns are {columns}.")
    root = Path(image_dir).resolve()
    seen: dict[str, int] = {}
    home: dict[str, tuple[str, int]] = {}
    items: list[dict[str, Any]] = []
    for number, row in rows:
        where = f"{path.name} row {number}"
        label = [_binary(row[name], name, where) for name in classes]
        if exclusive and sum(label) != 1:
            raise ValueError(f"{where}: exactly one class must be 1, got {sum(label)}.")
        image = (root / row["path"]).resolve()
        source = split_frame(str(root / row["path"]))[0]  # a link with a frame after its name is no link to resolve()
        if allow_outside is not True and not lies_in(source, root):
            rule = "path must stay inside the image folder"
            raise ValueError(f"{where}: {rule}, got '{row['path']}'; --allow_outside True takes it.")
        if str(image) in seen:
            raise ValueError(f"{where}: image '{row['path']}' is listed already in row {seen[str(image)]}.")
        if check_files and (reason := pointer_reason(source)):
            raise ValueError(f"{where}: image '{row['path']}' cannot be read: {reason}")
        if check_files and not source.is_file():
            raise ValueError(f"{where}: image '{row['path']}' does not exist in the image folder.")
        seen[str(image)] = number
        patient, part = row.get("patient") or row["path"], row.get("split") or ""
        if "split" in columns:
            if part not in _SPLITS:
                raise ValueError(f"{where}: split must be one of {list(_SPLITS)}, got '{part}'.")
            other, first = home.setdefault(patient, (part, number))
            if other != part:
                # the row names the patient well enough; a message may end up in a log
                raise ValueError(f"{where}: the patient is in split '{part}' here and in '{other}' in row {first}.")
        items.append({"image": str(image), "label": label, "patient": patient, "key": f"{number:06d}", "split": part})
    for k, name in enumerate(classes):
        positive = [item["key"] for item in items if item["label"][k]]
        if len(positive) < 2:
            found = f"one, row {int(positive[0])}" if positive else "none in any row"
            raise ValueError(f"{path.name}: class '{name}' must have at least two positive images, it has {found}.")
    chosen = [item for item in items if split is None or item["split"] == split]
    if not chosen:
        raise ValueError(f"{path.name}: split '{split}' must have rows, it has none.")
    for k, name in enumerate(classes if split == "train" else ()):
        values = {item["label"][k] for item in chosen}
        if len(values) < 2:
            rule = f"class '{name}' must have images with and without it to train on"
            raise ValueError(f"{path.name}: {rule}, it is {values.pop()} in every row of the split 'train'.")
    return chosen


def write_label_table(rows: Iterable[dict[str, Any]], csv_path: str | Path, classes: Sequence[str]) -> None:
    """
    Write a table that :py:func:`load_label_table` reads.

    Args:
        rows: dictionaries with ``path``, ``patient``, ``split`` and ``label``, a list of 0 and 1 in the order of
        ``classes``.
        csv_path: file to write.
        classes: names of the class columns.
    """
    with atomic_path(csv_path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient", "split", *classes])
        for row in rows:
            writer.writerow([row["path"], row["patient"], row["split"], *row["label"]])


def _binary(text: str, name: str, where: str) -> int:
    label = binary_label(text)
    if label is None:
        raise ValueError(f"{where}: label '{name}' must be 0 or 1, got '{text}'.")
    return label
