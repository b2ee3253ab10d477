# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a table, a MONAI list or a folder says to anomaly detection: the images of each split, normal or not."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from bundle.lists.csv_files import binary_label
from bundle.lists.known_sets.layouts import LAYOUTS, Item, check_all_normal, find_layout
from bundle.lists.table import SPLITS, Rows, binary_cell, read_table

__all__ = ["load_anomaly_folder", "load_anomaly_json", "load_anomaly_table"]

logger = logging.getLogger(__name__)

_NORMAL = ("normal", "no finding")  # class columns that say that an image is normal


def load_anomaly_table(csv_path: str | Path) -> dict[str, list[Item]]:
    """
    Return what a table says to anomaly detection: the images of each split, normal or not.

    ``label`` says it where there is such a column. Among class columns ``normal`` or ``No finding`` does: 1 is normal;
    0 is not, and is left out where every other class is 0 too. A table with neither, nor any other column of 0 and 1,
    lists normal images.

    Args:
        csv_path: see :py:func:`bundle.lists.table.read_table`; without ``split`` all images are to train with.

    Returns:
        for each split, items with ``image`` as it stands there, ``label`` (0 or 1), ``patient`` (empty where unknown)
        and ``where``, the row.

    Raises:
        FileNotFoundError: When the table does not exist.
        ValueError: When a label is neither 0 nor 1, there are classes and nothing says which images are normal, or
            there are abnormal images and no column ``split``.
    """
    path = Path(csv_path)
    columns, rows = read_table(path)
    labels = _anomaly_labels(path.name, columns, rows)
    if any(labels) and "split" not in columns:
        raise ValueError(f"{path.name} has abnormal images, so it needs a column 'split' with training and test.")
    lists: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for (number, row), label in zip(rows, labels, strict=True):
        if label is not None:
            item = {"image": row["image"], "label": label, "patient": row.get("patient", "")}
            lists[row.get("split", "training")].append({**item, "where": f"{path.name} row {number}"})
    if unknown := labels.count(None):
        logger.info("%s: %d images are neither normal nor of another class, they are left out", path.name, unknown)
    return lists


def load_anomaly_json(path: Path) -> dict[str, list[Item]]:
    """
    Return what a MONAI data list says to anomaly detection, as :py:func:`load_anomaly_table` does.

    Args:
        path: JSON with a list ``training`` and perhaps ``validation`` and ``test``; its entries have ``image``, and
            where known ``label`` (0 without it) and ``patient``.

    Raises:
        ValueError: When it is no such list; names the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path.name}' must be a MONAI data list, it is not JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise ValueError(f"'{path.name}' must be a MONAI data list with a list 'training'.")
    lists: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for name, items in lists.items():
        for number, item in enumerate(content.get(name) or []):
            where = f"'{path.name}' {name}[{number}]"
            if not isinstance(item, dict) or not isinstance(item.get("image"), str) or not item["image"]:
                raise ValueError(f"{where}: needs an 'image'.")
            label = binary_label(str(item.get("label", 0)))
            if label is None:
                raise ValueError(f"{where}: label must be 0 or 1, got {item['label']!r}.")
            items.append({**item, "label": label, "where": where})
    return lists


def load_anomaly_folder(root: Path, layout: str) -> tuple[str, Path, dict[str, list[Item]], tuple[int, int] | None]:
    """
    Return what a folder of images says to anomaly detection.

    Args:
        root: of a data set, or of normal images.
        layout: a name in ``LAYOUTS``, ``auto`` to find it.

    Returns:
        the layout; the folder that has it; for each split, items with ``image``, ``label`` and ``patient``; and how
        many normals to train and to test with where the split is still to make, else ``None``.

    Raises:
        ValueError: When the folder does not say which images are normal.
    """
    found, folder = find_layout(root) if layout == "auto" else (layout, root)
    collection = LAYOUTS[found][1](folder)
    if layout == "auto" and found == "flat":
        check_all_normal(folder, collection.items)
    if collection.normal is None:
        raise ValueError(
            f"'{root.name}' ({found}) does not say which images are normal, its classes are "
            f"{', '.join(collection.classes)}: give a CSV with image, label (0 is normal) and split."
        )
    lists: dict[str, list[Item]] = {split: [] for split in SPLITS}
    counts: tuple[int, int] | None = collection.counts or (0, 0)
    for item in collection.items:
        shown = set(item.pop("classes"))
        item["label"] = int(bool(shown - set(collection.normal)))
        if item["label"] and collection.abnormal is not None and not shown & set(collection.abnormal):
            continue
        if not shown and collection.normal:  # VinDr-CXR: no two readers agree
            continue
        split = item.pop("split")
        if split:
            counts = None
            if split != "test" and item["label"]:
                continue
        lists["test" if split == "test" or item["label"] else "training"].append(item)
    return found, folder, lists, counts


def _anomaly_labels(table: str, columns: Sequence[str], rows: Rows) -> list[int | None]:
    """Return 0 for each normal image, 1 for each abnormal one, ``None`` for one that no class is known of."""
    if "label" in columns:
        return [binary_cell(row, "label", f"{table} row {number}") for number, row in rows]
    normal = next((column for column in columns if column.lower() in _NORMAL), None)
    classes = [
        column
        for column in columns
        if column not in ("image", "patient", "split", normal)
        and all(binary_label(row[column]) is not None for _, row in rows)
    ]
    if normal is None:
        if classes:
            raise ValueError(
                f"{table} must say which images are normal, its columns of 0 and 1 are {classes}: add 'label' (0 is "
                "normal) or 'normal' (1 is normal)."
            )
        return [0] * len(rows)
    labels: list[int | None] = []
    for number, row in rows:
        shown = not classes or any(binary_label(row[column]) for column in classes)
        labels.append(0 if binary_cell(row, normal, f"{table} row {number}") else 1 if shown else None)
    return labels
