# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders of known data sets as lists of training and test items, never one patient in both."""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bundle.data.files import file_sha256
from bundle.data.inputs import find_images
from bundle.data.readers import split_frame

__all__ = ["LAYOUTS", "Item", "name_patients", "patients_of"]

Item = dict[str, Any]
logger = logging.getLogger(__name__)


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


def name_patients(items: Sequence[Item]) -> None:
    """
    Let the frames of one file, and files with the same content, count as one patient where none is known.

    Collections without patients hold such copies; BrainMRI has 22 groups of them.

    Args:
        items: with ``image`` and perhaps ``patient``, which is added.
    """
    files: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        if not item.get("patient"):
            files[split_frame(str(item["image"]))[0]].append(item)
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    common = {size for size, count in Counter(sizes.values()).items() if count > 1}
    alike: dict[str, list[Item]] = defaultdict(list)
    for number, (file, frames) in enumerate(files.items()):
        name = f"content {file_sha256(file)[:16]}" if sizes.get(file) in common else f"file {number}"
        alike[name] += frames
    for name, found in alike.items():
        for item in found if len(found) > 1 else ():
            item["patient"] = name


def patients_of(items: Sequence[Item]) -> list[str]:
    """
    Return the patient of each item; those without one stand alone.

    Args:
        items: perhaps with ``patient``.
    """
    return [item.get("patient") or f"item {i}" for i, item in enumerate(items)]


def _table2(normals: list[Item], abnormal: list[Item], train: int, test: int, seed: int) -> dict:
    """Split normals by patient as the paper's Table 2 counts them; a smaller set is split two to one."""
    name_patients(normals + abnormal)
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, patient in zip(normals, patients_of(normals), strict=True):
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
