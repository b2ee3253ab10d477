# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Read annotated boxes: ChestX-ray14's list, COCO files, and the boxes around lesion masks."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bundle.functional.boxes import clipped_boxes

__all__ = ["BOX_CLASSES", "box_of_mask", "read_chestxray14_boxes", "read_coco_boxes"]

BOX_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)  # the eight findings with boxes among ChestX-ray14's fourteen
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
