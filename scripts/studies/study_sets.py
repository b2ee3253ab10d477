# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The data sets of the studies: what of a folder of data one run trains and tests on, as flags of the workflow.

A set that the workflow reads by itself is its folder. The others are a table (docs/tables.md) that is written here:
``nih_pa`` and ``nih_ap`` are the films of one view of ``nih_part``, where the seed is the fold of patients that is
tested and the normal films of the other two folds train; ``zhanglab`` is the official split, by patient where the
names say who.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["SETS", "Flags", "dataset_flags"]

Flags = dict[str, object]
Row = dict[str, object]
FOLDS = 3
PERSON = re.compile(r"(person\d+|IM-\d+|NORMAL2-IM-\d+)")


def write_table(path: Path, rows: Iterable[Row]) -> Path:
    """Write a table of images, and return its path."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def nih_films(data: Path, view: str, fold: int) -> Iterable[Row]:
    """Yield the films of one view of folds 0 to 2: normal ones to train with, all of a fold to test with."""
    folder = data / "nih_part"
    with (folder / "manifest.csv").open(newline="") as stream:
        films = [film for film in csv.DictReader(stream) if film["view"] == view and int(film["fold"]) < FOLDS]
    for film in films:
        tested, normal = int(film["fold"]) == fold % FOLDS, film["no_finding"] == "1"
        if tested or normal:
            split = "test" if tested else "training"
            image = folder / "images" / film["image"]
            yield {"image": image, "patient": film["patient"], "split": split, "label": int(not normal)}


def zhanglab_films(data: Path) -> Iterable[Row]:
    """Yield the official split of the ZhangLab set: normal films to train with, all of the test to test with."""
    for split, name in (("train", "NORMAL"), ("test", "NORMAL"), ("test", "PNEUMONIA")):
        for image in sorted((data / "zhanglab_xray" / split / name).iterdir()):
            person = PERSON.match(image.name)
            patient = f"{name} {split} {person[1] if person else image.stem}"
            part = "training" if split == "train" else split
            yield {"image": image, "patient": patient, "split": part, "label": int(name != "NORMAL")}


def in_table(rows: Callable[[Path, int], Iterable[Row]]) -> Callable[[Path, Path, int], Flags]:
    """Return the flags of a set whose table is written first; its images lie elsewhere than the table."""
    return lambda data, work, seed: {
        "dataset_dir": write_table(work / f"images_{seed}.csv", rows(data, seed)),
        "allow_outside": True,
    }


def in_folder(name: str) -> Callable[[Path, Path, int], Flags]:
    """Return the flags of a set that the workflow reads as it lies there; the seed splits it."""
    return lambda data, work, seed: {"dataset_dir": data / name}


SETS: dict[str, Callable[[Path, Path, int], Flags]] = {
    "covid19_xray": in_folder("covid19_xray"),
    "brainmri": in_folder("brainmri"),
    "busi_part": in_folder("busi_part"),
    "nih_pa": in_table(lambda data, seed: nih_films(data, "PA", seed)),
    "nih_ap": in_table(lambda data, seed: nih_films(data, "AP", seed)),
    "zhanglab": in_table(lambda data, seed: zhanglab_films(data)),
}


def dataset_flags(name: str, data: Path, work: Path, seed: int) -> Flags:
    """
    Return the flags of the workflow that choose a set.

    Args:
        name: of the set, one of ``SETS``.
        data: folder of all data sets.
        work: folder for the tables that are written.
        seed: of the split, or the fold that is tested.

    Raises:
        SystemExit: When there is no such set.

    Example:
        >>> dataset_flags("brainmri", Path("DATA"), Path("WORK"), 0)
        {'dataset_dir': PosixPath('DATA/brainmri')}
    """
    if name not in SETS:
        raise SystemExit(f"error: a set must be one of {', '.join(SETS)}, got '{name}'")
    return SETS[name](data, work / name, seed)
