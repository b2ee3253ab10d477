# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Read annotated boxes: ChestX-ray14's list, COCO files, and the boxes around lesion masks."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bundle.data.chestxray14 import CHESTXRAY14_CLASSES
from bundle.functional.boxes import clipped_boxes

__all__ = [
    "BOX_CLASSES",
    "box_of_mask",
    "has_boxes",
    "items_with_boxes",
    "mining_table",
    "read_chestxray14_boxes",
    "read_coco_boxes",
]

BOX_CLASSES = CHESTXRAY14_CLASSES[:8]  # the findings with boxes among ChestX-ray14's fourteen
_ALIASES = {"Infiltrate": "Infiltration"}  # the box list's word for what the label list calls Infiltration

BoxesByLabel = dict[str, torch.Tensor]


def read_chestxray14_boxes(path: str | Path, size: tuple[int, int] = (1024, 1024)) -> dict[str, BoxesByLabel]:
    """
    Read ``BBox_List_2017.csv``, plain or gzipped.

    A box that reaches over the border is clipped to the image.

    Args:
        path: the official file; its boxes are left, upper, width, height in pixels of the 1024 x 1024 images.
        size: rows and columns of those images.

    Returns:
        for each image name, for each of its labels, boxes as left, upper, right, lower edge, shape ``(M, 4)``.

    Raises:
        ValueError: When the file is not that list, names an unknown finding, or a box lies outside the image.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    rows: list[tuple[str, str, list[float]]] = []
    with opener(path, "rt", newline="") as file:
        reader = csv.reader(file)
        head = next(reader, [])
        if head[:3] != ["Image Index", "Finding Label", "Bbox [x"]:
            raise ValueError(
                f"'{Path(path).name}' must begin with 'Image Index,Finding Label,Bbox [x,y,w,h]', got {head[:3]}."
            )
        for row in reader:
            label = _ALIASES.get(row[1], row[1])
            if label not in BOX_CLASSES:
                raise ValueError(f"findings must be among {list(BOX_CLASSES)}, got '{row[1]}' for '{row[0]}'.")
            rows.append((row[0], label, [float(v) for v in row[2:6]]))
    return _grouped((name, label, _clipped(name, box, size)) for name, label, box in rows)


def read_coco_boxes(path: str | Path) -> dict[str, BoxesByLabel]:
    """
    Read the boxes of a COCO detection file, such as TBX11K's.

    Args:
        path: JSON with ``images``, ``categories`` and ``annotations``.

    Returns:
        for each image's file name without folders, for each category name, boxes as left, upper, right, lower edge in
        pixels, shape ``(M, 4)``; images without boxes are left out.

    Raises:
        ValueError: When the file has not these parts, or a box lies outside its image.
    """
    content = json.loads(Path(path).read_text())
    missing = {"images", "categories", "annotations"} - set(content)
    if missing:
        raise ValueError(f"'{Path(path).name}' must be a COCO detection file, it has no {sorted(missing)}.")
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = []
    for item in content["annotations"]:
        image = images[item["image_id"]]
        name = Path(image["file_name"]).name
        box = _clipped(name, item["bbox"], (image["height"], image["width"]))
        found.append((name, names[item["category_id"]], box))
    return _grouped(found)


def box_of_mask(path: str | Path) -> torch.Tensor:
    """
    Return the box around everything that is not 0 in a mask image.

    Args:
        path: a picture with one channel, one lesion.

    Returns:
        left, upper, right, lower edge in pixels, shape ``(4,)``.

    Raises:
        ValueError: When the mask is empty.
    """
    with Image.open(path) as picture:
        mask = np.asarray(picture.convert("L")) > 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        raise ValueError(f"a mask must mark something, '{Path(path).name}' is empty.")
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)


def mining_table(rows: Sequence[dict[str, Any]], names: Collection[str]) -> list[dict[str, Any]]:
    """
    Return a label table whose training split also has the annotated images, with their image labels only.

    Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958), Sec. 3: the 880 images with boxes, all of them from the
    official test split, join the training images while mining and are evaluated with their boxes. So that no patient is
    in two splits, the other test and validation images of their patients are left out.

    Args:
        rows: rows with ``path``, ``patient``, ``label`` and ``split``, see :py:func:`bundle.data.chestxray14_table`.
        names: file names of the annotated images.

    Returns:
        new rows; the given ones stay as they are.

    Raises:
        ValueError: When the table has none of the annotated images.
    """
    chosen = [row for row in rows if Path(row["path"]).name in names]
    if not chosen:
        raise ValueError(f"the label table must have some of the {len(names)} annotated images, it has none.")
    patients = {row["patient"] for row in chosen}
    kept = [row for row in rows if row["split"] == "train" and Path(row["path"]).name not in names]
    others = [row for row in rows if row["split"] != "train" and row["patient"] not in patients]
    return [*kept, *({**row, "split": "train"} for row in chosen), *others]


def has_boxes(items: Sequence[dict[str, Any]], names: Collection[str]) -> list[bool]:
    """
    Return whether the image of each item is annotated with boxes.

    Args:
        items: data list items with an ``image``: a path, or the image read from it.
        names: file names of the annotated images.
    """
    paths = (getattr(item["image"], "meta", {}).get("filename_or_obj", item["image"]) for item in items)
    return [Path(str(path)).name in names for path in paths]


def items_with_boxes(items: Sequence[dict[str, Any]], names: Collection[str] | None) -> list[dict[str, Any]]:
    """
    Return the items whose image has boxes, which are the ones to mine; all of them without a list of names.

    Args:
        items: data list items with an ``image`` path.
        names: file names of the annotated images; ``None`` mines every item.

    Raises:
        ValueError: When no item is left.
    """
    if names is None:
        return list(items)
    chosen = [item for item, annotated in zip(items, has_boxes(items, names), strict=True) if annotated]
    if not chosen:
        raise ValueError(f"some of {len(items)} images must be among the {len(names)} annotated ones, none is.")
    return chosen


def _clipped(name: str, box: list[float], size: tuple[int, int]) -> torch.Tensor:
    """Turn left, upper, width, height into edges inside the image."""
    left, upper, width, height = box
    try:
        return clipped_boxes(torch.tensor([[left, upper, left + width, upper + height]]), size)[0]
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from error


def _grouped(found: Iterable[tuple[str, str, torch.Tensor]]) -> dict[str, BoxesByLabel]:
    lists: dict[str, dict[str, list[torch.Tensor]]] = {}
    for name, label, box in found:
        lists.setdefault(name, {}).setdefault(label, []).append(box)
    return {name: {label: torch.stack(boxes) for label, boxes in labels.items()} for name, labels in lists.items()}
