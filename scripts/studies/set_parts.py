# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the sets of all families are made of: flags, tables, and boxes as COCO detection files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from bundle.lists.boxes import BOX_CLASSES, box_of_mask

__all__ = [
    "BUSI_CLASSES",
    "FOLDS",
    "SHIPPED",
    "Chosen",
    "Flags",
    "Row",
    "demo_patients",
    "lesion_boxes",
    "nih_boxes",
    "write_table",
]

Flags = dict[str, object]
Row = dict[str, object]
FOLDS = 3
SHIPPED = -1  # in place of a fold: nothing is tested, and the patients of the demo take no part
DEMO_PATIENTS = Path(__file__).resolve().parents[2] / "models/demo_patients.csv"
BUSI_CLASSES = ("lesion", "benign", "malignant")
NIH_SIZE = (512, 512)


class Chosen(NamedTuple):
    """A set as flags: of both tasks, and further ones of training and of evaluation."""

    both: Flags
    train: Flags = {}
    evaluate: Flags = {}


def demo_patients() -> set[str]:
    """Return the patients whose films are shown, and train nothing."""
    with DEMO_PATIENTS.open(newline="") as stream:
        return {row["patient"] for row in csv.DictReader(stream)}


def write_table(path: Path, rows: Iterable[Row]) -> Path:
    """Write a table of images, and return its path."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def nih_boxes(root: Path) -> dict[str, list[dict]]:
    """Return the official boxes, which are in pixels of these films, as a COCO detection file."""
    coco: dict[str, list[dict]] = {"images": [], "annotations": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(BOX_CLASSES)]
    numbers: dict[str, int] = {}
    with (root / "boxes.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            file = f"images/{row['image']}"
            if file not in numbers:
                numbers[file] = len(numbers)
                width, height = NIH_SIZE
                coco["images"].append({"id": numbers[file], "file_name": file, "width": width, "height": height})
            label = "Infiltration" if row["label"] == "Infiltrate" else row["label"]  # as the manifest says
            box = [float(row[name]) for name in ("x", "y", "width", "height")]
            entry = {"image_id": numbers[file], "category_id": BOX_CLASSES.index(label), "bbox": box}
            coco["annotations"].append(entry)
    return coco


def lesion_boxes(root: Path, rows: Sequence[Row]) -> dict[str, list[dict]]:
    """Return the boxes of the masks of the images of rows, a COCO detection file; ``lesion`` is each of them."""
    coco: dict[str, list[dict]] = {"images": [], "annotations": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(BUSI_CLASSES)]
    for number, row in enumerate(rows):
        path = root / str(row["image"])
        with Image.open(path) as picture:
            width, height = picture.size
        coco["images"].append({"id": number, "file_name": row["image"], "width": width, "height": height})
        for mask in sorted((root / "masks").glob(f"{path.stem}_*.png")):
            left, upper, right, lower = box_of_mask(mask).tolist()
            for label in ("lesion", path.parent.name):
                box = [left, upper, right - left, lower - upper]
                entry = {"image_id": number, "category_id": BUSI_CLASSES.index(label), "bbox": box}
                coco["annotations"].append(entry)
    return coco
