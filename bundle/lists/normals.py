# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Data lists for anomaly detection, from a folder, a known data set, a CSV or a MONAI JSON file."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.files import lies_in
from bundle.lists.csv_files import binary_label, read_rows
from bundle.lists.file_kinds import pointer_reason
from bundle.lists.known_sets.layouts import LAYOUTS, Item, check_all_normal, find_layout
from bundle.lists.patients import group_copies, patients_of, tell_copies, write_copies
from bundle.lists.splits import patient_folds
from bundle.reading.reader import split_frame

__all__ = ["AnomalyDataList", "item_key", "read_table", "split_held_back", "with_made_abnormal"]

logger = logging.getLogger(__name__)


def item_key(index: int, path: str | Path) -> str:
    """
    Return a name for an item that is unique in its list and safe as a file name.

    Args:
        index: position in the list.
        path: the file; only its stem is used, other characters than letters, digits, ``-`` and ``_`` are replaced.

    Example:
        >>> item_key(7, "yes/Y 12.jpg")
        '000007_Y_12'
    """
    return f"{index:06d}_{re.sub(r'[^A-Za-z0-9_-]+', '_', Path(path).name.split('.')[0])[:40]}"


def read_table(path: Path) -> list[Item]:
    """
    Read a table with a header: ``image`` and, where known, ``label`` (0 or 1), ``split`` and ``patient``.

    Args:
        path: the CSV, see :py:func:`bundle.lists.csv_files.read_rows`; images are relative to its folder.

    Returns:
        items with what the row says, its ``label`` as a number (0 without such a column), and its number as ``row``.

    Raises:
        ValueError: When the ``image`` column is missing, a label is neither 0 nor 1, or an image is empty, listed twice
            or not there; names the row.
    """
    columns, rows = read_rows(path)
    if not rows or "image" not in columns:
        raise ValueError(f"'{path.name}' must have rows and a column 'image', got columns {columns}.")
    items = []
    for number, row in rows:
        where = f"'{path.name}' row {number}"
        item: Item = {**{name: cell for name, cell in row.items() if cell}, "row": number}
        label = binary_label(row.get("label", "0"))
        if label is None:
            raise ValueError(f"{where}: label must be 0 or 1, got '{row['label']}'.")
        if "image" not in item:
            raise ValueError(f"{where}: image must not be empty.")
        items.append({**item, "label": label})
    return items


def _from_table(path: Path) -> dict[str, list[Item]]:
    items = read_table(path)
    if any(item["label"] for item in items) and not any("split" in item for item in items):
        raise ValueError(f"'{path.name}' has abnormal images, so it needs a column 'split' with training and test.")
    lists: dict[str, list[Item]] = {"training": [], "test": []}
    for item in items:
        where = f"'{path.name}' row {item.pop('row')}"
        split = {"train": "training", "training": "training", "test": "test"}.get(item.pop("split", "training").lower())
        if split is None:
            raise ValueError(f"{where}: split must be training or test.")
        lists[split].append({**item, "where": where})
    return lists


def _from_json(path: Path) -> dict[str, list[Item]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path.name}' must be a MONAI data list, it is not JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise ValueError(f"'{path.name}' must be a MONAI data list with a list 'training'.")
    lists: dict[str, list[Item]] = {"training": [], "test": []}
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


def _from_folder(root: Path, layout: str) -> tuple[str, Path, dict[str, Any]]:
    """Return the layout, the folder that has it, and its items; ``counts`` where its split is ours to make."""
    found, folder = find_layout(root) if layout == "auto" else (layout, root)
    collection = LAYOUTS[found][1](folder)
    if layout == "auto" and found == "flat":
        check_all_normal(folder, collection.items)
    if collection.normal is None:
        raise ValueError(
            f"'{root.name}' ({found}) does not say which images are normal, its classes are "
            f"{', '.join(collection.classes)}: give a CSV with image, label (0 is normal) and split."
        )
    lists: dict[str, Any] = {"training": [], "test": [], "counts": collection.counts or (0, 0)}
    for item in collection.items:
        shown = set(item.pop("classes"))
        item["label"] = int(bool(shown - set(collection.normal)))
        if item["label"] and collection.abnormal is not None and not shown & set(collection.abnormal):
            continue
        if not shown and collection.normal:  # VinDr-CXR: no two readers agree
            continue
        split = item.pop("split")
        if split:
            lists.pop("counts", None)
            if split != "test" and item["label"]:
                continue
        lists["test" if split == "test" or item["label"] else "training"].append(item)
    return found, folder, lists


def _split_normals(lists: dict[str, Any], seed: int) -> dict[str, list[Item]]:
    """Split normals by patient as the paper's Table 2 counts them; a smaller set is split two to one."""
    normals, abnormal = lists["training"], lists["test"]
    train, test = lists["counts"]
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, patient in zip(normals, patients_of(normals), strict=True):
        groups[patient].append(item)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    if not train or len(normals) < train + test:
        train, test = round(len(normals) * 2 / 3), len(normals)
    training: list[Item] = []
    rest: list[list[Item]] = []
    for group in shuffled:
        if len(training) + len(group) <= train:
            training += group
        else:
            rest.append(group)
    while len(training) < train and len(rest) > bool(training):  # patients with so many images that none fits
        training += rest.pop(0)
    trained = {item["patient"] for item in training if item.get("patient")}
    tested = [item for group in rest for item in group][:test]
    tested += [item for item in abnormal if item.get("patient", "") not in trained]
    left_out = len(abnormal) - sum(item["label"] for item in tested)
    if left_out:
        logger.warning("%d abnormal images are of patients, or copies of images, to train with: left out", left_out)
    return {"training": training, "test": tested}


def _check_listed(items: Sequence[Item]) -> None:
    """Refuse an image of a table that is listed twice or not there."""
    seen: dict[str, str] = {}
    for item in items:
        where, image = item.pop("where"), os.path.normpath(item["image"])
        path = split_frame(image)[0]
        if image in seen:
            raise ValueError(f"{where}: image '{path.name}' is listed already, {seen[image]}.")
        seen[image] = where
        reason = pointer_reason(path) or ("" if path.is_file() else "it does not exist.")
        if reason:
            raise ValueError(f"{where}: image '{path.name}' cannot be read: {reason}")


def _check_places(items: Sequence[Item], folder: Path) -> None:
    for item in items:
        if not lies_in(split_frame(str(item["image"]))[0], folder):
            name = os.path.relpath(item["image"], folder)
            raise ValueError(
                f"images must lie in '{folder.name}', where the list is, got '{name}'; --allow_outside True takes them."
            )


def split_held_back(items: Sequence[Item], fraction: float, minimum: int, seed: int) -> tuple[list[Item], list[Item]]:
    """
    Hold back a part of the normals, never one patient on both sides.

    Args:
        items: normal items; those with the same ``patient`` stay together, those without one stand alone.
        fraction: wanted share of held-back items, in (0, 1).
        minimum: at least as many are held back, as long as that is at most half of the items.
        seed: of the shuffle.

    Returns:
        items to train with and items held back, in their order in the list.

    Raises:
        ValueError: When there are fewer than 4 items or only one patient.
    """
    if len(items) < 4:
        raise ValueError(f"training needs at least 4 normal images, found {len(items)}.")
    groups: dict[str, list[int]] = defaultdict(list)
    for i, patient in enumerate(patients_of(items)):
        groups[patient].append(i)
    if len(groups) < 2:
        raise ValueError(
            f"training needs normal images of at least 2 patients, found {len(groups)}; where no patient is known, "
            "frames of one file and files with the same content count as one."
        )
    wanted = max(math.ceil(fraction * len(items)), min(minimum, len(items) // 2))
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    most = max(wanted, len(items) // 2)
    for name in names:
        if len(held) < wanted and len(held) + len(groups[name]) <= most:
            held.update(groups[name])
    if not held:  # one that is too large is better than none
        held.update(groups[min(groups, key=lambda name: len(groups[name]))])
    return [x for i, x in enumerate(items) if i not in held], [x for i, x in enumerate(items) if i in held]


class AnomalyDataList:
    """
    Training, held-back and test items of one data set.

    Folders of known data sets are recognised (:py:mod:`bundle.lists.known_sets.layouts`); those of the ADFA paper are
    split as its Table 2 says. ``train/good``, ``test/good``, ``test/<anything else>`` is the layout of MVTec AD. Every
    other folder is taken for normal images, unless the names of its folders say otherwise. A split that the data set or
    the user made stays as it is; images on both sides of it are told.

    Args:
        path: a folder, a ``.csv`` (see :py:func:`read_table`) or a MONAI ``.json`` list with ``training`` and ``test``.
        layout: one of ``LAYOUTS``, or ``auto``.
        held_back: share of the normal training images kept for validation and calibration.
        min_held_back: at least as many, as long as half of the images are left to train with.
        seed: of all shuffles.
        allow_outside: take images from outside of the folder (that of the list) too.
        group_pictures: read every image once, small, so that near copies of a picture stay on one side of the splits
            made here; without it only identical files do.
        copies_file: CSV to write with the near copies that were found; none for an empty word.

    Attributes:
        training: normal items to train with.
        validation: normal items held back from training.
        test: labelled items, empty where the data set has none.
        left_out: items in none of these: more normals than Table 2 tests with, abnormal training images, and abnormal
            images of patients, or copies of images, to train with.

    Raises:
        FileNotFoundError: When ``path`` does not exist.
        ValueError: When it holds no image, the layout is unknown, a table is malformed, or an image lies outside, by
            its path or by a link.
    """

    def __init__(
        self,
        path: str | Path,
        layout: str = "auto",
        held_back: float = 0.2,
        min_held_back: int = 10,
        seed: int = 0,
        allow_outside: bool = False,
        group_pictures: bool = True,
        copies_file: str | Path = "",
    ) -> None:
        root = Path(path)
        if not str(path) or not root.exists():
            raise FileNotFoundError(f"dataset_dir must be an existing folder, CSV or JSON file, got '{path}'.")
        if layout != "auto" and layout not in LAYOUTS:
            raise ValueError(f"layout must be auto or one of {sorted(LAYOUTS)}, got '{layout}'.")
        if root.is_file():
            kind = root.suffix.lower()
            if kind not in (".csv", ".json"):
                raise ValueError(f"dataset_dir must be a folder, a CSV or a JSON file, got '{root.name}'.")
            lists: dict[str, Any] = _from_table(root) if kind == ".csv" else _from_json(root)
            for item in (i for items in lists.values() for i in items):
                item["image"] = str(root.parent / item["image"])  # an absolute path stays what it is
            found, folder = kind[1:], root.parent
        else:
            found, folder, lists = _from_folder(root, layout)
        if not lists["training"]:
            raise ValueError(f"no normal training images found in '{root.name}' (layout {found}).")
        everything: list[Item] = lists["training"] + lists["test"]
        if allow_outside is not True:  # the command line takes `false` for a word, which would count as true
            _check_places(everything, folder)
        if root.is_file():
            _check_listed(everything)
        copies = group_copies(everything, group_pictures is True)
        used = everything
        if "counts" in lists:
            lists = _split_normals(lists, seed)
            used = lists["training"] + lists["test"]
        for index, item in enumerate(used):
            plain = {"image": item["image"], "label": int(item["label"]), "key": item_key(index, item["image"])}
            plain["patient"] = str(item.get("patient") or "")
            item.clear()  # items of one list must have the same keys, or they cannot be put into one batch
            item.update(plain)
        abnormal = [i for i in lists["training"] if i["label"]]
        if abnormal:
            logger.warning(
                "%d abnormal images in the training list are left out: ADFA trains on normals.", len(abnormal)
            )
        normals = [i for i in lists["training"] if not i["label"]]
        known = {i["patient"] for i in normals if i["patient"]}
        shared = sum(i["patient"] in known for i in lists["test"])
        if shared:
            logger.warning("%d test images are of patients, or copies of images, that training has too.", shared)
        self.layout = found
        self.training, self.validation = split_held_back(normals, held_back, min_held_back, seed)
        self.test: list[Item] = lists["test"]
        taken = {id(item) for item in normals + self.test}
        self.left_out = [item for item in everything if id(item) not in taken]
        tell_copies(everything, copies, folder)
        if copies_file:
            parts = (("training", self.training), ("held back", self.validation), ("test", self.test))
            split = {id(item): name for name, items in parts for item in items}
            told = [{**item, "split": split.get(id(item), "")} for item in everything]
            write_copies(copies_file, told, copies, folder)
        logger.info(
            "data set '%s' (%s): %d normals to train with, %d held back, test %d normal and %d abnormal",
            root.name,
            found,
            len(self.training),
            len(self.validation),
            sum(not i["label"] for i in self.test),
            sum(bool(i["label"]) for i in self.test),
        )


def with_folds(items: Sequence[Item], folds: int = 5, seed: int = 0) -> list[Item]:
    """
    Return items with the number of their ``fold``, never one patient in two.

    Args:
        items: those with the same ``patient`` stay together, those without one stand alone.
        folds: how many; fewer where there are fewer patients.
        seed: of the shuffle.
    """
    patients = patients_of(items)
    number = patient_folds([[0]] * len(items), patients, min(folds, len(set(patients))), seed)
    return [{**item, "fold": fold} for item, fold in zip(items, number, strict=True)]


def with_made_abnormal(items: Sequence[Item], copies: int = 5, seed: int = 0) -> list[Item]:
    """
    Return normal items and, beside each, some to be made abnormal by :py:class:`bundle.anomaly.MakeAbnormald`.

    Args:
        items: normal items.
        copies: changed items per normal one; 5 gives each one of every kind.
        seed: of the changes; each item has its own.

    Returns:
        ``1 + copies`` times as many items; ``made_abnormal_seed`` is -1 for the normal ones, and ``label`` is 1 for the
        others.
    """
    normal = [{**item, "made_abnormal_seed": -1} for item in items]
    made = [
        {
            **item,
            "label": 1,
            "key": f"{item['key']}_made_abnormal_{copy}",
            "made_abnormal_seed": seed * 1_000_003 + copies * i + copy,
        }
        for i, item in enumerate(items)
        for copy in range(copies)
    ]
    return normal + made
