# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Make the small synthetic data that scripts/checks/check_docs.py puts in place of the pages' DIR, DATA and the like.

Folders and tables have the layout and the names of the data sets that they stand for. The films are the phantoms of
``bundle.synthetic.phantoms``; all other pictures are smooth noise, with a bright disk for what is abnormal, since only
the commands are checked.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.lists.boxes import BOX_CLASSES
from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES
from bundle.lists.known_sets.vindr import VINDR_CLASSES
from bundle.synthetic.phantoms import write_phantoms


def films(folder: Path) -> None:
    """Write radiographs as DICOM: ``train/good``, ``test/good``, ``test/lesion``."""
    write_phantoms(folder, kinds=("cr",), training=12, normal=4, lesion=4)


def scans(folder: Path) -> None:
    """Write ultrasound as DICOM: ``train/good``, ``test/good``, ``test/lesion``."""
    write_phantoms(folder, kinds=("us",), training=12, normal=4, lesion=4)


def sets(folder: Path) -> None:
    """Write the data sets of the studies, few images each: covid19_xray, zhanglab_xray, brainmri and busi_part."""
    for part, count in (("train", 12), ("test", 4)):
        for kind, abnormal in (("NORMAL", False), ("PNEUMONIA", True)):
            names = [f"{kind}-{part}-{i:04d}.jpeg" for i in range(count)]
            write_pictures(folder / "covid19_xray" / part / kind, names, abnormal)
            word = "person{0}_virus_{1}.jpeg" if abnormal else "IM-{0:04d}-{1:04d}.jpeg"
            names = [word.format(i + (100 if part == "test" else 0), i) for i in range(count)]
            write_pictures(folder / "zhanglab_xray" / part / kind, names, abnormal)
    for kind, abnormal, count in (("no", False, 24), ("yes", True, 10)):
        names = [f"{kind[0].upper()} {i}.jpg" for i in range(count)]
        write_pictures(folder / "brainmri" / kind, names, abnormal)
    nih_part(folder / "nih_part")
    masks = folder / "busi_part" / "masks"
    masks.mkdir(parents=True)
    for kind, count in (("normal", 15), ("benign", 8), ("malignant", 8)):
        stems = [f"{kind} ({i + 1})" for i in range(count)]
        write_pictures(folder / "busi_part" / kind, [f"{stem}.png" for stem in stems], kind != "normal")
        for stem in stems if kind != "normal" else []:
            Image.fromarray(disk()).save(masks / f"{stem}_0.png")


def nih_part(folder: Path) -> None:
    """Write 90 films of 45 patients in three folds, two thirds with five findings, each in a box."""
    rng = random.Random(0)
    films: list[list[object]] = []
    for i in range(90):
        found = rng.sample(list(CHESTXRAY14_CLASSES), 5) if i % 3 else []
        kind = ["PA" if i % 4 else "AP", 50, "M"]
        films.append([f"{i // 2:08d}_{i % 2:03d}.jpg", i // 2, i // 2 % 3, *kind, int(not found)])
        films[-1] += [int(name in found) for name in CHESTXRAY14_CLASSES]
    write_pictures(folder / "images", [str(film[0]) for film in films], True)
    head = ["image", "patient", "fold", "view", "age", "sex", "no_finding", *CHESTXRAY14_CLASSES]
    write_csv(folder / "manifest.csv", head, films)
    pairs = [(film[0], name) for film in films for name, has in zip(head[7:], film[7:], strict=True) if has]
    boxes = [[image, name, 40, 50, 30, 30] for image, name in pairs if name in BOX_CLASSES]
    write_csv(folder / "boxes.csv", ["image", "label", "x", "y", "width", "height"], boxes)


def classes(folder: Path) -> None:
    """Write one folder a class and a label table: NORMAL and PNEUMONIA, as ``labels.csv`` lists them."""
    rows = []
    for kind, abnormal in (("NORMAL", False), ("PNEUMONIA", True)):
        names = [f"{kind.lower()}_{i}.png" for i in range(12)]
        write_pictures(folder / kind, names, abnormal)
        for i, name in enumerate(names):
            split = ("training", "training", "validation", "test")[i % 4]
            rows.append([f"{kind}/{name}", name, split, int(not abnormal), int(abnormal)])
    write_csv(folder / "labels.csv", ["image", "patient", "split", "normal", "pneumonia"], rows)


def one_class_a_folder(folder: Path) -> None:
    """Write images in one folder a class, and nothing else."""
    for kind in ("clear", "effusion", "mass"):
        write_pictures(folder / kind, [f"{kind}_{i}.png" for i in range(10)], kind != "clear")


def chestxray14(folder: Path) -> None:
    """Write images, ``Data_Entry_2017_v2020.csv``, ``test_list.txt`` and ``BBox_List_2017.csv`` as NIH has them."""
    findings = ["No Finding", *CHESTXRAY14_CLASSES]
    entries, tested, boxes = [], [], []
    for patient in range(10 * len(findings)):
        name, finding = f"{patient + 1:08d}_000.png", findings[patient % len(findings)]
        entries.append([name, finding, 0, patient + 1, 50, "M", "PA", 2500, 2048, 0.168, 0.168])
        if patient < len(findings):
            tested.append(name)
        if finding in BOX_CLASSES and patient < 5 * len(findings):
            boxes.append([name, finding, 40.0, 40.0, 60.0, 60.0])
    write_pictures(folder, [entry[0] for entry in entries], abnormal=True)
    head = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,OriginalImage[Width,"
    )
    head += "Height],OriginalImagePixelSpacing[x,y]"
    write_csv(folder / "Data_Entry_2017_v2020.csv", head.split(","), entries)
    write_csv(folder / "BBox_List_2017.csv", ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"], boxes)
    (folder / "test_list.txt").write_text("\n".join(tested))


def vindr(folder: Path) -> None:
    """Write ``train.csv`` of VinDr-CXR: three readers who agree on one finding an image."""
    folder.mkdir(parents=True)
    rows = [
        [f"image{i:03d}", finding, class_id, f"R{reader}", *(("",) * 4 if finding == "No finding" else (9, 9, 99, 99))]
        for class_id, finding in enumerate(VINDR_CLASSES)
        for i in range(20 * class_id, 20 * class_id + 20)
        for reader in range(3)
    ]
    write_csv(
        folder / "train.csv", ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"], rows
    )


def write_pictures(folder: Path, names: Iterable[str], abnormal: bool) -> None:
    """Write pictures of 144 x 176 pixels, each another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture(f"{folder.name}/{name}", abnormal).save(folder / name)


def picture(name: str, abnormal: bool) -> Image.Image:
    """Return smooth noise that depends on the name alone, with the disk of :py:func:`disk` if abnormal."""
    rng = np.random.default_rng(list(name.encode()))
    coarse = Image.fromarray(rng.integers(20, 160, (11, 9), np.uint8)).resize((144, 176), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse) + rng.integers(0, 20, (176, 144), np.uint8)
    return Image.fromarray(np.where(disk() & abnormal, 250, pixels).astype(np.uint8))


def disk() -> np.ndarray:
    """Return where abnormal pictures are bright, bool, shape ``(176, 144)``."""
    rows, columns = np.mgrid[:176, :144]
    return (rows - 70) ** 2 + (columns - 90) ** 2 < 20**2


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker for maker in (films, scans, sets, classes, one_class_a_folder, chestxray14, vindr)
}
