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
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bundle.data.files import file_sha256, lies_in
from bundle.data.inputs import find_images
from bundle.data.readers import split_frame
from bundle.data.splits import patient_folds

__all__ = ["LAYOUTS", "AnomalyDataList", "item_key", "read_table", "split_held_back", "with_made_abnormal"]

Item = dict[str, Any]
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


def _items(folder: Path, label: int) -> list[Item]:
    """Return the readable images below a folder; BUSI keeps its masks, ``*_mask*``, beside its images."""
    if not folder.is_dir():
        return []
    # the secret only groups the images of one patient within this list, it is never written
    items, refusals = find_images(folder, secret="grouping") if any(folder.iterdir()) else ([], [])
    for refusal in refusals:
        logger.info("left out '%s': %s", refusal.source.name, refusal.reason)
    kept = [item for item in items if "_mask" not in Path(item["image"]).stem]
    return [{"image": item["image"], "label": label, "patient": item["patient"]} for item in kept]


def _name_patients(items: Sequence[Item], by_content: bool) -> None:
    """
    Let the frames of one file count as one patient where none is known, and files with the same content, of which
    BrainMRI has 22 groups.
    """
    files: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        if not item.get("patient"):
            files[split_frame(str(item["image"]))[0]].append(item)
    sizes = {file: file.stat().st_size for file in files} if by_content else {}
    common = {size for size, count in Counter(sizes.values()).items() if count > 1}
    alike: dict[str, list[Item]] = defaultdict(list)
    for number, (file, frames) in enumerate(files.items()):
        name = f"content {file_sha256(file)[:16]}" if sizes.get(file) in common else f"file {number}"
        alike[name] += frames
    for name, found in alike.items():
        for item in found if len(found) > 1 else ():
            item["patient"] = name


def _patients(items: Sequence[Item]) -> list[str]:
    """Return the patient of each item; those without one stand alone."""
    return [item.get("patient") or f"item {i}" for i, item in enumerate(items)]


def _table2(normals: list[Item], abnormal: list[Item], train: int, test: int, seed: int) -> dict:
    """Split normals by patient as the paper's Table 2 counts them; a smaller set is split two to one."""
    _name_patients(normals + abnormal, by_content=True)
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, patient in zip(normals, _patients(normals), strict=True):
        groups[patient].append(item)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    if len(normals) < train + test:
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
    return {"training": training, "test": [item for group in rest for item in group][:test] + abnormal}


def _brainmri(root: Path, seed: int) -> dict:
    return _table2(_items(root / "no", 0), _items(root / "yes", 1), 58, 40, seed)


def _covid19(root: Path, seed: int) -> dict:
    test = _items(root / "test" / "NORMAL", 0) + _items(root / "test" / "PNEUMONIA", 1)
    return {"training": _items(root / "train" / "NORMAL", 0), "test": test}


def _busi(root: Path, seed: int) -> dict:
    abnormal = _items(root / "benign", 1) + _items(root / "malignant", 1)
    return _table2(_items(root / "normal", 0), abnormal, 96, 32, seed)


def _sipakmed(root: Path, seed: int) -> dict:
    # whole slides only: the data set keeps its cropped cells in folders named CROPPED
    def slides(name: str, label: int) -> list[Item]:
        return [item for item in _items(root / name, label) if "CROPPED" not in Path(item["image"]).parts]

    normals = slides("im_Superficial-Intermediate", 0) + slides("im_Parabasal", 0)
    return _table2(normals, slides("im_Dyskeratotic", 1) + slides("im_Koilocytotic", 1), 180, 54, seed)


def _good_tree(root: Path, seed: int) -> dict:
    folders = sorted(path for path in (root / "test").glob("*") if path.is_dir())
    test = [item for folder in folders for item in _items(folder, int(folder.name != "good"))]
    return {"training": _items(root / "train" / "good", 0), "test": test}


def _flat(root: Path, seed: int) -> dict:
    return {"training": _items(root, 0), "test": []}


# name: (folders that tell it, reader); the first that fits is taken
LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path, int], dict]]] = {
    "good_tree": (("train/good",), _good_tree),
    "covid19": (("train/NORMAL", "test/NORMAL", "test/PNEUMONIA"), _covid19),
    "brainmri": (("no", "yes"), _brainmri),
    "busi": (("normal", "benign", "malignant"), _busi),
    "sipakmed": (("im_Parabasal", "im_Koilocytotic"), _sipakmed),
    "flat": ((), _flat),
}


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
    for i, patient in enumerate(_patients(items)):
        groups[patient].append(i)
    if len(groups) < 2:
        raise ValueError(f"training needs normal images of at least 2 patients, found {len(groups)}.")
    wanted = max(math.ceil(fraction * len(items)), min(minimum, len(items) // 2))
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    for name in names[:-1]:  # one patient always stays in training
        if len(held) >= wanted:
            break
        held.update(groups[name])
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
        _name_patients(everything, by_content=root.is_dir())
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
    patients = _patients(items)
    number = patient_folds([[0]] * len(items), patients, min(folds, len(set(patients))), seed)
    return [{**item, "fold": fold} for item, fold in zip(items, number, strict=True)]


def with_made_abnormal(items: Sequence[Item], copies: int = 1, seed: int = 0) -> list[Item]:
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
