# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The two benchmarks of ``localization_study.py``: images, labels for training, boxes for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from bundle.lists.boxes import box_of_mask
from bundle.lists.known_sets.image_folders import image_folder_table
from bundle.synthetic.inserted_lesions import INSERTED_KINDS, insert_lesion


class Sample(NamedTuple):
    """One image on the network's pixel grid, its labels, and boxes that only the evaluation sees."""

    key: str
    image: np.ndarray  # (S, S), 0..1
    labels: list[float]
    boxes: dict[int, torch.Tensor]  # class: (M, 4)


class Benchmark(NamedTuple):
    """Training and test samples of the named classes."""

    classes: tuple[str, ...]
    train: list[Sample]
    test: list[Sample]


def load_gray(path: Path, size: int) -> np.ndarray:
    """Read a picture as display values 0..1, resized to a square; boxes keep their overlaps under that stretch."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255


def load_busi(folder: Path, size: int) -> Benchmark:
    """Read the breast ultrasound images; the split is fixed, stratified by label, near copies on one side."""
    kinds = ("normal", "benign", "malignant")
    parts: dict[str, list[Sample]] = {"training": [], "test": []}
    for row in image_folder_table(folder, {kind: kind for kind in kinds}, parts=("training",) * 3 + ("test",) * 2):
        path = folder / row["image"]
        labels = [float(not row["label"][0]), *map(float, row["label"][1:])]
        with Image.open(path) as picture:
            scale = torch.tensor([size / picture.width, size / picture.height] * 2)
        masks = [box_of_mask(m) * scale for m in sorted((folder / "masks").glob(f"{path.stem}_*.png"))]
        boxes = {c: torch.stack(masks) for c in range(3) if labels[c]}
        parts[row["split"]].append(Sample(path.stem, load_gray(path, size), labels, boxes))
    return Benchmark(("lesion", "benign", "malignant"), parts["training"], parts["test"])


def load_inserted(folder: Path, size: int, repeats: int = 2) -> Benchmark:
    """Insert a lesion of each kind into every normal radiograph, once for training, ``repeats`` times for the test."""
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    for part, times in (("train", 1), ("test", repeats)):
        for i, path in enumerate(sorted((folder / part / "NORMAL").iterdir())):
            image = load_gray(path, size)
            parts[part].append(Sample(f"{part}{i}_normal", image, [0.0] * len(INSERTED_KINDS), {}))
            for c, kind in enumerate(INSERTED_KINDS):
                for repeat in range(times):
                    rng = np.random.default_rng([part == "test", i, c, repeat])
                    inserted, box = insert_lesion(image, kind, rng)
                    labels = [float(k == kind) for k in INSERTED_KINDS]
                    boxes = {c: torch.from_numpy(box)[None]}
                    parts[part].append(Sample(f"{part}{i}_{kind}_{repeat}", inserted, labels, boxes))
    return Benchmark(INSERTED_KINDS, parts["train"], parts["test"])
