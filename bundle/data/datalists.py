# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Data lists for anomaly detection, from a folder, a known data set, a CSV or a MONAI JSON file."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bundle.data.files import lies_in
from bundle.data.layouts import LAYOUTS, Item, name_patients, patients_of
from bundle.data.readers import split_frame
from bundle.data.splits import patient_folds

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
    Read a CSV with a header: ``image`` and, where known, ``label`` (0 or 1), ``split`` and ``patient``.

    Args:
        path: the CSV; images are relative to its folder.

    Raises:
        ValueError: When the ``image`` column is missing, or a label is neither 0, 1 nor empty; names the row.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "image" not in rows[0]:
        raise ValueError(
            f"'{path.name}' must have rows and a column 'image', got columns {list(rows[0] if rows else [])}."
        )
    items = []
    for number, row in enumerate(rows, start=2):
        item: Item = {k: v for k, v in row.items() if k is not None and v not in (None, "")}
        if item.get("label", "0") not in ("0", "1"):
            raise ValueError(f"'{path.name}' row {number}: label must be 0 or 1, got '{item['label']}'.")
        if "image" not in item:
            raise ValueError(f"'{path.name}' row {number}: image must not be empty.")
        item["label"] = int(item.get("label", 0))
        items.append(item)
    return items


def _from_table(path: Path) -> dict:
    items = read_table(path)
    if any(item["label"] for item in items) and not any("split" in item for item in items):
        raise ValueError(f"'{path.name}' has abnormal images, so it needs a column 'split' with training and test.")
    lists: dict[str, list[Item]] = {"training": [], "test": []}
    for number, item in enumerate(items, start=2):
        split = {"train": "training", "training": "training", "test": "test"}.get(item.pop("split", "training"))
        if split is None:
            raise ValueError(f"'{path.name}' row {number}: split must be training or test.")
        lists[split].append(item)
    return lists


def _from_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path.name}' must be a MONAI data list, it is not JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise ValueError(f"'{path.name}' must be a MONAI data list with a list 'training'.")
    lists: dict[str, list[Item]] = {"training": [], "test": []}
    for name, items in lists.items():
        for number, item in enumerate(content.get(name, [])):
            if not isinstance(item, dict) or "image" not in item:
                raise ValueError(f"'{path.name}' {name}[{number}]: needs an 'image'.")
            items.append({"label": 0, **item})
    return lists


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

    Folders of the data sets of the ADFA paper are recognised and split as its Table 2 says; ``train/good``,
    ``test/good``, ``test/<anything else>`` is the layout of MVTec AD; every other folder is taken for normal images.

    Args:
        path: a folder, a ``.csv`` (see :py:func:`read_table`) or a MONAI ``.json`` list with ``training`` and ``test``.
        layout: one of ``LAYOUTS``, or ``auto``.
        held_back: share of the normal training images kept for validation and calibration.
        min_held_back: at least as many, as long as half of the images are left to train with.
        seed: of all shuffles.
        allow_outside: take images from outside of the folder (that of the list) too.

    Attributes:
        training: normal items to train with.
        validation: normal items held back from training.
        test: labelled items, empty where the data set has none.

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
            lists = _from_table(root) if kind == ".csv" else _from_json(root)
            for item in (i for items in lists.values() for i in items):
                item["image"] = str(root.parent / item["image"])  # an absolute path stays what it is
            found = kind[1:]
        else:
            found = layout
            if layout == "auto":
                found = next(name for name, (marks, _) in LAYOUTS.items() if all((root / m).is_dir() for m in marks))
            lists = LAYOUTS[found][1](root, seed)
        if not lists["training"]:
            raise ValueError(f"no normal training images found in '{root.name}' (layout {found}).")
        everything = [i for items in lists.values() for i in items]
        if allow_outside is not True:  # the command line takes `false` for a word, which would count as true
            _check_places(everything, root.parent if root.is_file() else root)
        name_patients(everything)
        for index, item in enumerate(everything):
            plain = {"image": item["image"], "label": int(item["label"]), "key": item_key(index, item["image"])}
            plain["patient"] = str(item.get("patient", ""))
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
    Return normal items and, beside each, some to be made abnormal by :py:class:`bundle.transforms.MakeAbnormald`.

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
