# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Read annotated boxes: ChestX-ray14's and VinDr-CXR's lists, COCO files, and the boxes around lesion masks."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from bundle.lists.csv_files import read_rows
from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES
from bundle.lists.known_sets.vindr_boxes import is_vindr_boxes, vindr_boxes

__all__ = [
    "BOX_CLASSES",
    "ImageBoxes",
    "box_of_mask",
    "clipped_boxes",
    "has_boxes",
    "items_with_boxes",
    "mining_table",
    "read_boxes",
    "read_chestxray14_boxes",
    "read_coco_boxes",
]

BOX_CLASSES = CHESTXRAY14_CLASSES[:8]  # the findings with boxes among ChestX-ray14's fourteen
_ALIASES = {"Infiltrate": "Infiltration"}  # the box list's word for what the label list calls Infiltration

BoxesByLabel = dict[str, torch.Tensor]


class ImageBoxes(Mapping[str, BoxesByLabel]):
    """
    Boxes by image, found by any path to it: the file name must agree, and the folders as far as they are needed.

    Args:
        boxes: for each file, with or without folders, for each label, boxes of shape ``(M, 4)``.

    Example:
        >>> boxes = ImageBoxes({"a/1.png": {}, "b/1.png": {}, "c/2.png": {}})
        >>> "/data/set/b/1.png" in boxes, "2.png" in boxes, "3.png" in boxes
        (True, True, False)
    """

    def __init__(self, boxes: Mapping[str, BoxesByLabel]) -> None:
        self._boxes = dict(boxes)
        self._given: dict[str, str] = {}  # file to the path that was given its boxes
        self._files: dict[str, list[str]] = {}
        for file in self._boxes:
            self._files.setdefault(PurePosixPath(file).name, []).append(file)

    def __getitem__(self, path: str) -> BoxesByLabel:
        """
        Return the boxes of an image.

        Raises:
            KeyError: When it has none.
            ValueError: When two images of that name have boxes, and the folders do not tell which is meant; or when
                another image was given these boxes before.
        """
        parts = PurePosixPath(str(path).replace("\\", "/")).parts
        if not parts or parts[-1] not in self._files:
            raise KeyError(path)
        files = self._files[parts[-1]]
        common = [self._common(parts, PurePosixPath(file).parts) for file in files]
        best = [file for file, count in zip(files, common, strict=True) if count == max(common)]
        if len(best) > 1:
            raise ValueError(f"boxes must name images apart by their folders, '{parts[-1]}' may be one of {best[:3]}.")
        if len(parts) > 1 and path != best[0]:  # the list's own name is no other image
            first, own = self._given.setdefault(best[0], os.path.realpath(path)), os.path.realpath(path)
            if first != own:
                folders = f"'{Path(first).parent.name}' and '{Path(own).parent.name}'"
                rule = "boxes must name images apart by their folders"
                raise ValueError(f"{rule}, those of '{best[0]}' fit two images, in {folders}.")
        return self._boxes[best[0]]

    def __iter__(self) -> Iterator[str]:
        """Return the files in their order."""
        return iter(self._boxes)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._boxes)

    @staticmethod
    def _common(one: Sequence[str], other: Sequence[str]) -> int:
        """Return how many parts agree, from the last."""
        pairs = zip(reversed(one), reversed(other), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def read_boxes(path: str | Path) -> ImageBoxes:
    """
    Read a list of boxes: a COCO detection file ends with ``.json``, the others are known by their columns.

    Args:
        path: see :py:func:`read_coco_boxes`, :py:func:`read_chestxray14_boxes`, and
            :py:func:`bundle.lists.known_sets.vindr_boxes.vindr_boxes`.

    Returns:
        for each image's file name, for each label, boxes as left, upper, right, lower edge in pixels, shape ``(M, 4)``.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is not such a list.

    Example:
        >>> read_boxes("boxes.json")
        Traceback (most recent call last):
        FileNotFoundError: boxes must be an existing file, got 'boxes.json'.
    """
    if str(path).lower().endswith(".json"):
        return read_coco_boxes(path)
    if is_vindr_boxes(_existing(path)):
        return _grouped((name, label, torch.tensor(edges)) for name, label, edges in vindr_boxes(path))
    return read_chestxray14_boxes(path)


def read_chestxray14_boxes(path: str | Path) -> ImageBoxes:
    """
    Read ``BBox_List_2017.csv``, plain or gzipped.

    A box that reaches over the border is clipped to the image.

    Args:
        path: the official file; its boxes are left, upper, width, height in pixels of the 1024 x 1024 images.

    Returns:
        for each image name, for each of its labels, boxes as left, upper, right, lower edge, shape ``(M, 4)``.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is not that list, names an unknown finding, or a box lies outside the image.
    """
    path = _existing(path)
    columns, rows = read_rows(path)
    if columns[:6] != (head := ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]):
        raise ValueError(f"'{path.name}' must begin with '{','.join(head)}', got {columns[:6]}.")
    found: list[tuple[str, str, list[float]]] = []
    for number, row in rows:
        name, finding, *box = row.values()
        label = _ALIASES.get(finding, finding)
        if label not in BOX_CLASSES:
            raise ValueError(f"findings must be among {list(BOX_CLASSES)}, got '{finding}' for '{name}'.")
        found.append((name, label, _numbers(box[:4], f"'{path.name}' row {number}")))
    return _grouped((name, label, _clipped(name, box, (1024, 1024))) for name, label, box in found)


def read_coco_boxes(path: str | Path) -> ImageBoxes:
    """
    Read the boxes of a COCO detection file, such as TBX11K's.

    Args:
        path: JSON with ``images``, ``categories`` and ``annotations``.

    Returns:
        for each image's file name as it stands there, for each category name, boxes as left, upper, right, lower edge
        in pixels, shape ``(M, 4)``; images without boxes are left out.

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file has not these parts, an entry lacks what is needed or points at nothing, or a box lies
            outside its image; names the entry.
    """
    path = _existing(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path.name}' must be a COCO detection file, it is not JSON: {error}.") from None
    parts = ("images", "categories", "annotations")
    missing = [part for part in parts if not isinstance(content, dict) or not isinstance(content.get(part), list)]
    if missing:
        raise ValueError(f"'{path.name}' must be a COCO detection file, it has no {missing}.")
    images = _by_id(path, content, "images", ("file_name", "height", "width"))
    names = _by_id(path, content, "categories", ("name",))
    found = []
    for number, item in enumerate(content["annotations"]):
        where = f"'{path.name}' annotations[{number}]"
        image, category = _needed(item, ("image_id", "category_id", "bbox"), where)[:2]
        for key, value, known in (("image_id", image, images), ("category_id", category, names)):
            if not isinstance(value, int | str) or value not in known:
                raise ValueError(f"{where}: {key} must be that of an entry of the file, got {value!r}.")
        file, height, width = images[image]
        size = _numbers([height, width], f"'{path.name}' image {image!r}, height and width")
        if not isinstance(item["bbox"], list) or len(item["bbox"]) != 4:
            raise ValueError(f"{where}: bbox must be left, upper, width and height, got {item['bbox']!r}.")
        name = str(file).replace("\\", "/")
        box = _clipped(name, _numbers(item["bbox"], where), (int(size[0]), int(size[1])))
        found.append((name, str(names[category][0]), box))
    return _grouped(found)


def _existing(path: str | Path) -> Path:
    if not str(path) or not Path(path).is_file():
        raise FileNotFoundError(f"boxes must be an existing file, got '{path}'.")
    return Path(path)


def _by_id(path: Path, content: dict[str, Any], part: str, keys: Sequence[str]) -> dict[Any, list[Any]]:
    """Return what is needed of each entry of a part, by its id."""
    entries: dict[Any, list[Any]] = {}
    for number, entry in enumerate(content[part]):
        where = f"'{path.name}' {part}[{number}]"
        name, *values = _needed(entry, ("id", *keys), where)
        if not isinstance(name, int | str) or name in entries:
            raise ValueError(f"{where}: id must be a number or a word of its own, got {name!r}.")
        entries[name] = values
    return entries


def _needed(entry: Any, keys: Sequence[str], where: str) -> list[Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be an object, got {entry!r}.")
    for key in keys:
        if entry.get(key) is None:
            raise ValueError(f"{where}: '{key}' is missing.")
    return [entry[key] for key in keys]


def _numbers(values: Sequence[Any], where: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{where}: must be finite numbers, got {list(values)}.")
    return numbers


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
        rows: rows with ``image``, ``patient``, ``label`` and ``split``, see
            :py:func:`bundle.lists.known_sets.chestxray14.chestxray14_table`.
        names: file names of the annotated images.

    Returns:
        new rows; the given ones stay as they are.

    Raises:
        ValueError: When the table has none of the annotated images.
    """
    annotated = has_boxes(rows, names)
    chosen = [row for row, there in zip(rows, annotated, strict=True) if there]
    if not chosen:
        raise ValueError(f"the label table must have some of the {len(names)} annotated images, it has none.")
    patients = {row["patient"] for row in chosen}
    kept = [row for row, there in zip(rows, annotated, strict=True) if row["split"] == "training" and not there]
    others = [row for row in rows if row["split"] != "training" and row["patient"] not in patients]
    return [*kept, *({**row, "split": "training"} for row in chosen), *others]


def has_boxes(items: Sequence[dict[str, Any]], names: Collection[str]) -> list[bool]:
    """
    Return whether the image of each item is annotated with boxes.

    Args:
        items: data list items with an ``image``: a path, or the image read from it.
        names: file names of the annotated images.
    """
    paths = [str(getattr(item["image"], "meta", {}).get("filename_or_obj", item["image"])) for item in items]
    if isinstance(names, ImageBoxes):
        return [path in names for path in paths]
    return [Path(path).name in names for path in paths]


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


def _grouped(found: Iterable[tuple[str, str, torch.Tensor]]) -> ImageBoxes:
    lists: dict[str, dict[str, list[torch.Tensor]]] = {}
    for name, label, box in found:
        lists.setdefault(name, {}).setdefault(label, []).append(box)
    boxes = {name: {label: torch.stack(rows) for label, rows in labels.items()} for name, labels in lists.items()}
    return ImageBoxes(boxes)


def clipped_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Return the parts of the boxes that lie inside the image.

    Args:
        boxes: left, upper, right, lower edge in pixels, shape ``(K, 4)``.
        size: rows and columns of the image.

    Returns:
        clipped boxes, shape ``(K, 4)``.

    Raises:
        ValueError: When a box has no pixel inside the image, or no area.
    """
    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp_min(0), limit)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(dim=1)
    if empty.any():
        box = [round(v, 1) for v in boxes[empty][0].tolist()]
        raise ValueError(f"boxes must overlap the image of {height} rows and {width} columns, got {box}.")
    return clipped
