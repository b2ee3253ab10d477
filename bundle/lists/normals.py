# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Data lists for anomaly detection, from a folder, a known data set, a CSV or a MONAI JSON file."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from bundle.lists.known_sets.layouts import LAYOUTS, Item
from bundle.lists.normal_or_not import load_anomaly_folder, load_anomaly_json, load_anomaly_table
from bundle.lists.patients import group_copies, tell_copies, write_copies
from bundle.lists.splits import split_held_back, split_normals
from bundle.lists.table import SPLITS, check_images

__all__ = ["AnomalyDataList", "item_key"]

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


class AnomalyDataList:
    """
    Training, held-back and test items of one data set.

    Folders of known data sets are recognised (:py:mod:`bundle.lists.known_sets.layouts`); those of the ADFA paper are
    split as its Table 2 says. ``train/good``, ``test/good``, ``test/<anything else>`` is the layout of MVTec AD. Every
    other folder is taken for normal images, unless the names of its folders say otherwise. A split that the data set or
    the user made stays as it is; the log says how many images are on both sides of it.

    Args:
        path: a folder, a ``.csv`` or a MONAI ``.json`` list, see :py:mod:`bundle.lists.normal_or_not`.
        layout: one of ``LAYOUTS``, or ``auto``.
        held_back: share of the normal training images kept for validation and calibration, where a list has no normal
            image for validation of its own.
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
        left_out: items in none of these: more normals than Table 2 tests with, abnormal images for training or
            validation, and abnormal images of patients, or copies of images, to train with.

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
        counts: tuple[int, int] | None = None
        if root.is_file():
            kind = root.suffix.lower()
            if kind not in (".csv", ".json"):
                raise ValueError(f"dataset_dir must be a folder, a CSV or a JSON file, got '{root.name}'.")
            lists = load_anomaly_table(root) if kind == ".csv" else load_anomaly_json(root)
            for item in (i for items in lists.values() for i in items):
                item["image"] = str(root.parent / item["image"])  # an absolute path stays what it is
            found, folder = kind[1:], root.parent
        else:
            found, folder, lists, counts = load_anomaly_folder(root, layout)
        if not lists["training"]:
            raise ValueError(f"no normal training images found in '{root.name}' (layout {found}).")
        everything = [item for split in SPLITS for item in lists[split]]
        places = ((item.get("where", f"'{root.name}'"), item["image"]) for item in everything)
        check_images(places, folder, allow_outside, listed=root.is_file())
        copies = group_copies(everything, group_pictures is True)
        if counts is not None:
            lists["training"], lists["test"] = split_normals(lists["training"], lists["test"], counts, seed)
        used = [item for split in SPLITS for item in lists[split]]
        for index, item in enumerate(used):
            plain = {"image": item["image"], "label": int(item["label"]), "key": item_key(index, item["image"])}
            plain["patient"] = str(item.get("patient") or "")
            item.clear()  # items of one list must have the same keys, or they cannot be put into one batch
            item.update(plain)
        if abnormal := sum(i["label"] for i in lists["training"] + lists["validation"]):
            rule = "ADFA learns from normals"
            logger.warning("%d abnormal images for training or validation are left out: %s.", abnormal, rule)
        normals, held = ([i for i in lists[split] if not i["label"]] for split in SPLITS[:2])
        if len(normals) < 4:
            raise ValueError(f"training needs at least 4 normal images, found {len(normals)}.")
        if not held:
            normals, held = split_held_back(normals, held_back, min_held_back, seed)
        self.layout = found
        self.training: list[Item] = normals
        self.validation: list[Item] = held
        self.test: list[Item] = lists["test"]
        for part, items, others in (("validation", held, normals), ("test", self.test, normals + held)):
            known = {i["patient"] for i in others if i["patient"]}
            if shared := sum(i["patient"] in known for i in items):
                logger.warning(
                    "%d %s images are of patients, or copies of images, that training has too.", shared, part
                )
        taken = {id(item) for item in normals + held + self.test}
        self.left_out = [item for item in everything if id(item) not in taken]
        tell_copies(everything, copies, folder)
        if copies_file:
            parts = zip(SPLITS, (self.training, self.validation, self.test), strict=True)
            split = {id(item): name for name, items in parts for item in items}
            listed = [{**item, "split": split.get(id(item), "")} for item in everything]
            write_copies(copies_file, listed, copies, folder)
        logger.info(
            "data set '%s' (%s): %d normals to train with, %d held back, test %d normal and %d abnormal",
            root.name,
            found,
            len(self.training),
            len(self.validation),
            sum(not i["label"] for i in self.test),
            sum(bool(i["label"]) for i in self.test),
        )
