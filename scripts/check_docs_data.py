# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Make the small synthetic data that scripts/check_docs.py puts in place of the pages' DIR, DATA and the like.

    python scripts/check_docs_data.py NAME FOLDER

Folders and tables have the layout and the names of the data sets that they stand for. No image shows a patient.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.data.boxes import BOX_CLASSES
from bundle.data.chestxray14 import CHESTXRAY14_CLASSES
from bundle.data.inserted_lesions import INSERTED_KINDS
from bundle.data.phantoms import write_phantoms
from bundle.data.radiograph_phantoms import make_radiograph
from bundle.data.ultrasound_phantoms import ULTRASOUND_LESIONS, make_ultrasound
from bundle.data.vindr import VINDR_CLASSES

SIDE = 4  # times smaller than the phantoms are


def films(folder: Path) -> None:
    """Write radiographs as DICOM: ``train/good``, ``test/good``, ``test/lesion``."""
    write_phantoms(folder, kinds=("cr",), training=12, normal=4, lesion=4)


def sets(folder: Path) -> None:
    """Write the three data sets of the ADFA paper, few images each: covid19_xray, brainmri and busi_part."""
    for part, count in (("train", 12), ("test", 4)):
        for kind, lesion in (("NORMAL", None), ("PNEUMONIA", INSERTED_KINDS[0])):
            names = [f"{kind}-{part}-{i:04d}.jpeg" for i in range(count)]
            write_radiographs(folder / "covid19_xray" / part / kind, names, lesion)
    for kind, lesion, count in (("no", None, 24), ("yes", INSERTED_KINDS[-1], 10)):
        letter = kind[0].upper()
        write_radiographs(folder / "brainmri" / kind, [f"{letter} {i}.jpg" for i in range(count)], lesion)
    for kind, count in (("normal", 15), ("benign", 8), ("malignant", 8)):
        write_ultrasound(folder / "busi_part", kind, count)


def classes(folder: Path) -> None:
    """Write one folder a class and a label table: NORMAL and PNEUMONIA, as ``labels.csv`` lists them."""
    rows = []
    for kind, lesion in (("NORMAL", None), ("PNEUMONIA", INSERTED_KINDS[0])):
        names = [f"{kind.lower()}_{i}.png" for i in range(12)]
        write_radiographs(folder / kind, names, lesion)
        for i, name in enumerate(names):
            split = ("train", "train", "val", "test")[i % 4]
            rows.append([f"{kind}/{name}", name, split, int(lesion is None), int(lesion is not None)])
    write_csv(folder / "labels.csv", ["path", "patient", "split", "normal", "pneumonia"], rows)


def one_class_a_folder(folder: Path) -> None:
    """Write images in one folder a class, and nothing else."""
    for kind, lesion in zip(("clear", *INSERTED_KINDS), (None, *INSERTED_KINDS), strict=True):
        write_radiographs(folder / kind, [f"{kind.replace(' ', '_')}_{i}.png" for i in range(10)], lesion)


def chestxray14(folder: Path) -> None:
    """Write images, ``Data_Entry_2017_v2020.csv``, ``test_list.txt`` and ``BBox_List_2017.csv`` as NIH has them."""
    findings = ["No Finding", *CHESTXRAY14_CLASSES]
    entries, tested, boxes = [], [], []
    for patient in range(4 * len(findings)):
        name, finding = f"{patient + 1:08d}_000.png", findings[patient % len(findings)]
        entries.append([name, finding, 0, patient + 1, 50, "M", "PA", 2500, 2048, 0.168, 0.168])
        if patient < len(findings):
            tested.append(name)
            if finding in BOX_CLASSES:
                boxes.append([name, finding, 300.0, 300.0, 200.0, 200.0])
    write_radiographs(folder, [entry[0] for entry in entries], INSERTED_KINDS[0])
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


def write_radiographs(folder: Path, names: Iterable[str], lesion: str | None) -> None:
    """Write synthetic radiographs, normal or with a lesion, each another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        image, _ = make_radiograph(np.random.default_rng(list(f"{folder.name}/{name}".encode())), lesion)
        as_picture(image).save(folder / name)


def write_ultrasound(folder: Path, kind: str, count: int) -> None:
    """Write synthetic ultrasound images, and ``masks/<name>_<i>.png`` of their masses."""
    for place in (kind, "masks"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        lesion = None if kind == "normal" else ULTRASOUND_LESIONS[0]
        image, box = make_ultrasound(np.random.default_rng([len(kind), i]), lesion)
        as_picture(image).save(folder / kind / f"{kind} ({i + 1}).png")
        if box is not None:
            left, upper, right, lower = box.astype(int)
            mask = np.zeros_like(image)
            mask[upper:lower, left:right] = 1
            as_picture(mask).convert("1").save(folder / "masks" / f"{kind} ({i + 1})_0.png")


def as_picture(image: np.ndarray) -> Image.Image:
    """Return display values 0..1, shape ``(H, W)``, as a smaller 8-bit picture."""
    return Image.fromarray(np.rint(255 * image).astype(np.uint8)).reduce(SIDE)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker for maker in (films, sets, classes, one_class_a_folder, chestxray14, vindr)
}

if __name__ == "__main__":
    MAKERS[sys.argv[1]](Path(sys.argv[2]))
