# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The sets of anomaly detection, each read as it lies there or from a table (docs/tables.md) that is written here.

``nih_pa`` and ``nih_ap`` are the films of one view of ``nih_part``, where the seed is the fold of patients that is
tested and the normal films of the other two folds train; ``zhanglab`` is the official split, by patient where the names
say who. ``nih_pa_on_zhanglab`` trains as nih_pa does and is tested on the normal films that zhanglab trains with, and
``zhanglab_on_nih_pa`` the other way round: false alarms in another hospital. Boxes are for evaluation alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from set_parts import FOLDS, SHIPPED, Chosen, Row, demo_patients, lesion_boxes, nih_boxes, write_table

__all__ = ["ANOMALY_SETS"]

ADULT = 18  # years
PERSON = re.compile(r"(person\d+|IM-\d+|NORMAL2-IM-\d+)")


def nih_films(data: Path, view: str, fold: int) -> Iterable[Row]:
    """Yield the films of one view of folds 0 to 2: normal ones to train with, all of a fold to test with.

    A shipped model has no fold to test with, and trains on adults.
    """
    folder = data / "nih_part"
    with (folder / "manifest.csv").open(newline="") as stream:
        films = [film for film in csv.DictReader(stream) if film["view"] == view and int(film["fold"]) < FOLDS]
    if fold == SHIPPED:
        shown = demo_patients()
        films = [film for film in films if film["patient"] not in shown and int(film["age"]) >= ADULT]
    for film in films:
        tested, normal = fold != SHIPPED and int(film["fold"]) == fold % FOLDS, film["no_finding"] == "1"
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


def in_table(
    rows: Callable[[Path, int], Iterable[Row]], boxes: Callable[[Path], dict] | None = None
) -> Callable[[Path, Path, int], Chosen]:
    """Return the flags of a set whose table is written first; its images lie elsewhere than the table."""

    def chosen(data: Path, work: Path, seed: int) -> Chosen:
        table = write_table(work / f"images_{seed}.csv", rows(data, seed))
        evaluate = {} if boxes is None else {"boxes_path": write_boxes(work, boxes(data))}
        return Chosen({"dataset_dir": table, "allow_outside": True}, evaluate=evaluate)

    return chosen


def in_folder(name: str) -> Callable[[Path, Path, int], Chosen]:
    """Return the flags of a set that the workflow reads as it lies there; the seed splits it."""
    return lambda data, work, seed: Chosen({"dataset_dir": data / name})


def lesions(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of busi_part, with the boxes of its masks; a shipped model has its normal images alone."""
    root = data / "busi_part"
    if seed == SHIPPED:
        normal: list[Row] = [{"image": path, "split": "training"} for path in sorted((root / "normal").iterdir())]
        return Chosen({"dataset_dir": write_table(work / "images.csv", normal), "allow_outside": True})
    rows: list[Row] = [
        {"image": f"{kind}/{path.name}"} for kind in ("benign", "malignant") for path in sorted((root / kind).iterdir())
    ]
    return Chosen({"dataset_dir": root}, evaluate={"boxes_path": write_boxes(work, lesion_boxes(root, rows))})


def elsewhere(own: str, other: str, trained_with: bool) -> Callable[[Path, Path, int], Chosen]:
    """
    Return the flags of a set that trains as ``own`` does, and is tested on the normal films of ``other``.

    Args:
        own: name of a set with a table.
        other: the same.
        trained_with: on those that the other set trains with, which leaves its test closed; else on those it tests.
    """

    def chosen(data: Path, work: Path, seed: int) -> Chosen:
        tables = [ANOMALY_SETS[name](data, work.parent / name, seed).both["dataset_dir"] for name in (own, other)]
        films = [list(csv.DictReader(Path(str(table)).open(newline=""))) for table in tables]
        part = "training" if trained_with else "test"
        rows: list[Row] = [{**film} for film in films[0] if film["split"] == "training"]
        rows += [{**film, "split": "test"} for film in films[1] if film["split"] == part and film["label"] == "0"]
        there = write_table(work / f"images_{seed}.csv", rows)
        return Chosen({"dataset_dir": tables[0], "allow_outside": True}, evaluate={"dataset_dir": there})

    return chosen


def write_boxes(work: Path, boxes: dict) -> Path:
    """Write a COCO detection file, and return its path."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / "boxes.json"
    path.write_text(json.dumps(boxes))
    return path


def nih_view(view: str) -> Callable[[Path, Path, int], Chosen]:
    """Return the flags of the films of one view of nih_part, with the official boxes."""
    return in_table(lambda data, seed: nih_films(data, view, seed), lambda data: nih_boxes(data / "nih_part"))


ANOMALY_SETS: dict[str, Callable[[Path, Path, int], Chosen]] = {
    "covid19_xray": in_folder("covid19_xray"),
    "brainmri": in_folder("brainmri"),
    "busi_part": lesions,
    "nih_pa": nih_view("PA"),
    "nih_ap": nih_view("AP"),
    "zhanglab": in_table(lambda data, seed: zhanglab_films(data)),
    "nih_pa_on_zhanglab": elsewhere("nih_pa", "zhanglab", trained_with=True),
    "zhanglab_on_nih_pa": elsewhere("zhanglab", "nih_pa", trained_with=False),
}
