# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The data sets of the studies: what of a folder of data one run trains and tests on, as flags of the workflow.

Those of anomaly detection are in anomaly_sets.py, where the seed of an NIH set is the fold of patients that is tested.
Classification and localization have tables with a column for each class, and what is not normal trains too; the seed
splits those that have no split of their own, near copies on one side. ``nih_findings`` and ``nih_part`` are the films
of both views with their findings, where the seed is the fold as above. ``zhanglab_as_finding`` has the labels of
zhanglab's test as a model of NIH's findings names them, and ``zhanglab_on_nih_pa`` trains on zhanglab and tests on
NIH's pneumonia and normal PA films. The boxes of ``busi_part`` are those of its masks, those of ``nih_part`` the
official ones, and no network but the detector is trained with them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from anomaly_sets import ANOMALY_SETS
from set_parts import BUSI_CLASSES, FOLDS, SHIPPED, Chosen, Flags, Row, demo_patients, lesion_boxes, nih_boxes

from bundle.lists import patient_splits, write_label_table
from bundle.lists.boxes import BOX_CLASSES
from bundle.lists.known_sets.image_folders import collection_rows
from bundle.lists.known_sets.layouts import LAYOUTS, find_layout

__all__ = ["SETS", "Chosen", "Flags", "dataset_flags"]

VIEWS = ("PA", "AP")
NIH_FINDINGS = (  # with at least 50 films in folds 0 to 2
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion",
    "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
)  # fmt: skip


def split_rows(data: Path, name: str, seed: int) -> tuple[tuple[str, ...], list[Row]]:
    """Return the classes and the rows of a known set: its own test where it has one, near copies in one split."""
    root = data / name
    layout, folder = find_layout(root)
    collection = LAYOUTS[layout][1](folder)
    own = any(item["split"] == "test" for item in collection.items)
    parts = ("training",) * (4 if own else 3) + (("validation",) if own else ("validation", "test"))
    return collection.classes, collection_rows(collection, root, parts, seed)


def nih_split(films: Sequence[Row], labels: Sequence[Sequence[int]], fold: int) -> list[Row]:
    """Return rows of films with these labels: one fold of patients tests, a fifth of the others validates."""
    rows: list[Row] = [
        {"image": f"images/{film['image']}", "patient": film["patient"], "label": list(label), "split": "test"}
        for film, label in zip(films, labels, strict=True)
    ]
    tested = FOLDS if fold == SHIPPED else fold % FOLDS
    others = [row for row, film in zip(rows, films, strict=True) if int(str(film["fold"])) != tested]
    parts = ("training",) * 4 + ("validation",)
    splits = patient_splits([row["label"] for row in others], [row["patient"] for row in others], parts, abs(fold))
    for row, split in zip(others, splits, strict=True):
        row["split"] = split
    return rows


def nih_manifest(data: Path, views: Sequence[str]) -> list[Row]:
    """Return what the manifest says of the films of folds 0 to 2 and of these views."""
    with (data / "nih_part/manifest.csv").open(newline="") as stream:
        return [film for film in csv.DictReader(stream) if film["view"] in views and int(film["fold"]) < FOLDS]


def nih_rows(data: Path, view: str, fold: int) -> tuple[tuple[str, ...], list[Row]]:
    """Return the films of one view, normal or not."""
    films = nih_manifest(data, (view,))
    normal = [int(str(film["no_finding"])) for film in films]
    return ("normal", "abnormal"), nih_split(films, [(n, 1 - n) for n in normal], fold)


def nih_findings(data: Path, classes: Sequence[str], fold: int) -> tuple[tuple[str, ...], list[Row]]:
    """Return the films of both views with their findings, which occur together; for ``SHIPPED`` all that may train."""
    films = nih_manifest(data, VIEWS)
    if fold == SHIPPED:
        shown = demo_patients()
        films = [film for film in films if film["patient"] not in shown]
    labels = [[int(str(film[name])) for name in classes] for film in films]
    return tuple(classes), nih_split(films, labels, fold)


def with_classes(
    folder: str, rows: Callable[[Path, int], tuple[tuple[str, ...], list[Row]]], exclusive: bool = True
) -> Callable[[Path, Path, int], Chosen]:
    """Return the flags of a set whose table has a column for each class; the model keeps their names."""

    def chosen(data: Path, work: Path, seed: int) -> Chosen:
        classes, found = rows(data, seed)
        table = work / f"classes_{seed}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        write_label_table(found, table, classes)
        both: Flags = {"dataset_dir": data / folder, "labels_csv": table}
        named: Flags = {"classes": ",".join(classes), "normal_class": "normal" if "normal" in classes else ""}
        return Chosen(both, named if exclusive else {**named, "exclusive": False})

    return chosen


def pneumonia_as_finding(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of zhanglab's test for a model of NIH's findings: its pneumonia is one, others are unknown."""
    _, rows = split_rows(data, "zhanglab_xray", seed)
    place = NIH_FINDINGS.index("Pneumonia")
    for row in rows:
        row["label"] = [row["label"][1] * (number == place) for number in range(len(NIH_FINDINGS))]
    table = work / f"classes_{seed}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    write_label_table(rows, table, NIH_FINDINGS)
    return Chosen({"dataset_dir": data / "zhanglab_xray", "labels_csv": table})


def pneumonia_elsewhere(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of a set that trains as zhanglab does, and is tested on NIH's pneumonia and normal PA films."""
    own = SETS["sna"]["zhanglab"](data, work.parent / "zhanglab", seed)
    films = [film for film in nih_manifest(data, ("PA",)) if "1" in (film["no_finding"], film["Pneumonia"])]
    rows = nih_split(films, [(int(film["no_finding"]), int(film["Pneumonia"])) for film in films], SHIPPED)
    table = work / f"classes_{seed}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    write_label_table([{**row, "split": "test"} for row in rows], table, str(own.train["classes"]).split(","))
    return Chosen(own.both, own.train, {"dataset_dir": data / "nih_part", "labels_csv": table})


def lesions(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of busi_part for localization: lesion, benign and malignant as classes, the masks as boxes."""
    root, rows = data / "busi_part", split_rows(data, "busi_part", seed)[1]
    for row in rows:
        normal, benign, malignant = row["label"]  # type: ignore[misc]
        row["label"] = [1 - normal, benign, malignant]
    table, boxes = work / f"lesions_{seed}.csv", work / "boxes.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    write_label_table(rows, table, BUSI_CLASSES)
    boxes.write_text(json.dumps(lesion_boxes(root, rows)))
    both: Flags = {"dataset_dir": root, "labels_csv": table}
    return Chosen(both, {"classes": ",".join(BUSI_CLASSES)}, {"boxes_path": boxes})


def boxed_films(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of nih_part for localization: the findings with boxes, which evaluation has."""
    classes, rows = nih_findings(data, BOX_CLASSES, seed)
    table, boxes = work / f"findings_{seed}.csv", work / "boxes.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    write_label_table(rows, table, classes)
    boxes.write_text(json.dumps(nih_boxes(data / "nih_part")))
    both: Flags = {"dataset_dir": data / "nih_part", "labels_csv": table}
    return Chosen(both, {"classes": ",".join(classes)}, {"boxes_path": boxes})


def films_with_boxes(data: Path, work: Path, seed: int) -> Chosen:
    """Return the flags of nih_part for detection, whose training has the boxes too."""
    chosen = boxed_films(data, work, seed)
    return Chosen(chosen.both, {**chosen.train, **chosen.evaluate}, chosen.evaluate)


SETS: dict[str, dict[str, Callable[[Path, Path, int], Chosen]]] = {
    "adfa": ANOMALY_SETS,
    "sna": {
        "brainmri": with_classes("brainmri", lambda data, seed: split_rows(data, "brainmri", seed)),
        "covid19_xray": with_classes("covid19_xray", lambda data, seed: split_rows(data, "covid19_xray", seed)),
        "nih_pa": with_classes("nih_part", lambda data, seed: nih_rows(data, "PA", seed)),
        "nih_findings": with_classes(
            "nih_part", lambda data, seed: nih_findings(data, NIH_FINDINGS, seed), exclusive=False
        ),
        "zhanglab": with_classes("zhanglab_xray", lambda data, seed: split_rows(data, "zhanglab_xray", seed)),
        "zhanglab_as_finding": pneumonia_as_finding,
        "zhanglab_on_nih_pa": pneumonia_elsewhere,
    },
    "msa": {"busi_part": lesions, "nih_part": boxed_films},
    "detector": {"nih_part": films_with_boxes},
}


@cache  # one table serves every variant
def dataset_flags(family: str, name: str, data: Path, work: Path, seed: int) -> Chosen:
    """
    Return the flags of the workflow that choose a set.

    Args:
        family: a key of ``SETS``.
        name: of the set, one of the family's.
        data: folder of all data sets.
        work: folder for the tables that are written.
        seed: of the split, or the fold that is tested.

    Raises:
        SystemExit: When there is no such set.

    Example:
        >>> dataset_flags("adfa", "brainmri", Path("DATA"), Path("WORK"), 0).both
        {'dataset_dir': PosixPath('DATA/brainmri')}
    """
    if name not in SETS[family]:
        raise SystemExit(f"error: a set must be one of {', '.join(SETS[family])}, got '{name}'")
    return SETS[family][name](data, work / name, seed)
