# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What readers say of results, kept with its images as tables that the training data lists read."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bundle.files import atomic_path
from bundle.lists.table import write_label_table
from bundle.reading.dicom.opened import open_dicom
from bundle.reading.limits import Limits
from bundle.reading.pseudonym import pseudonym

__all__ = ["ABNORMAL", "Feedback", "finding_names", "predicted_boxes", "predicted_findings"]

ABNORMAL = "abnormal"  # the finding of a model that has no classes
_MAX_BOXES = 100
_SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job INTEGER NOT NULL, model TEXT NOT NULL,
    weights TEXT NOT NULL, image TEXT NOT NULL, patient TEXT NOT NULL, rows INTEGER NOT NULL, columns INTEGER NOT NULL,
    verdict TEXT NOT NULL, findings TEXT NOT NULL, boxes TEXT NOT NULL)
"""


def finding_names(record: Mapping[str, Any]) -> list[str]:
    """
    Return what a model looks for.

    Args:
        record: what ``predictions.json`` says of an image.
    """
    return list(record["probabilities"]) or [ABNORMAL]


def says_something(record: Mapping[str, Any]) -> bool:
    """
    Return whether there is a statement to agree with: not where the image is not assessed, or no threshold is known.

    Args:
        record: what ``predictions.json`` says of an image.
    """
    return record.get("not_assessed") is None and bool(record["probabilities"] or record["abnormal"] is not None)


def predicted_findings(record: Mapping[str, Any]) -> dict[str, int]:
    """
    Return 1 for what the model says is there, 0 for the rest: its verdict, or probabilities from their operating point.

    Args:
        record: what ``predictions.json`` says of an image; the operating point is one half where it names none.
    """
    if not says_something(record):
        return dict.fromkeys(finding_names(record), 0)
    points = record.get("operating_points", {})
    if not record["probabilities"]:
        return {ABNORMAL: int(bool(record["abnormal"]))}
    half = {name: 0.5 for name in record["probabilities"] if points.get(name) is None}
    return {name: int((p or 0) >= (points | half)[name]) for name, p in record["probabilities"].items()}


def predicted_boxes(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the model's boxes of the findings that it says are there.

    Args:
        record: what ``predictions.json`` says of an image.
    """
    present = predicted_findings(record)
    sides = ("label", "x", "y", "width", "height")
    return [{side: box[side] for side in sides} for box in record["boxes"] if present.get(box["label"], 1)]


class Feedback:
    """
    A folder with every statement (``feedback.sqlite``), the images they are about, and the tables for training.

    The last statement on an image and a model counts. For each model there is the table ``<model>.csv``, with ``label``
    where the model has no classes; for each with classes ``<model>_boxes.json`` too, which
    :py:func:`bundle.lists.boxes.read_coco_boxes` reads. All rows are for training: images that readers chose to speak
    of are no sample to judge a model on.

    Args:
        folder: made if missing, readable by its owner alone.
        secret: key of the hash that stands for the patient.
    """

    def __init__(self, folder: Path, secret: str) -> None:
        self.folder, self._secret, self._lock = folder, secret, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "images").mkdir(exist_ok=True)
        with closing(self._open()) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(_SCHEMA)
            if "reader" not in {row["name"] for row in db.execute("PRAGMA table_info(feedback)")}:
                db.execute("ALTER TABLE feedback ADD COLUMN reader TEXT NOT NULL DEFAULT ''")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "feedback.sqlite", timeout=60, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def add(
        self,
        job: int,
        model: str,
        weights: str,
        record: Mapping[str, Any],
        source: Path,
        verdict: str,
        findings: Sequence[str] = (),
        boxes: Sequence[Any] = (),
        reader: str = "",
    ) -> None:
        """
        Keep a statement and its image, and write the tables anew.

        Args:
            job: number of the job.
            model: name of the model.
            weights: SHA-256 of its weights.
            record: what ``predictions.json`` says of the image.
            source: file of the image.
            verdict: ``agree`` makes the model's findings and boxes the reader's; ``disagree`` takes those that follow.
            findings: names of what is there.
            boxes: dictionaries with ``label``, ``x``, ``y``, ``width``, ``height`` in pixels of the frame; a box says
                that its finding is there.
            reader: name of who says it, as far as it is known.

        Raises:
            ValueError: When the verdict or a finding is unknown, there is nothing to agree with, or a box is malformed
                or outside of the image.
        """
        names = finding_names(record)
        if verdict == "agree" and not says_something(record):
            raise ValueError("the model gave no verdict on this image, so nobody can agree; say what is there.")
        if verdict == "agree":
            there, places = predicted_findings(record), predicted_boxes(record)
        elif verdict == "disagree":
            if unknown := sorted(set(findings) - set(names)):
                raise ValueError(f"findings must be some of {', '.join(names)}, got '{unknown[0]}'.")
            if len(boxes) > _MAX_BOXES:
                raise ValueError(f"there may be {_MAX_BOXES} boxes, got {len(boxes)}.")
            places = [_box(box, names, record["rows"], record["columns"]) for box in boxes]
            present = {*findings, *(place["label"] for place in places)}
            there = {name: int(name in present) for name in names}
        else:
            raise ValueError(f"verdict must be agree or disagree, got '{verdict}'.")
        header = open_dicom(source, Limits(), header_only=True)
        patient = pseudonym(str(header.get("PatientID") or ""), self._secret)
        frame = f"#frame={record['frame']}" if int(header.get("NumberOfFrames") or 1) > 1 else ""
        kept = self.folder / "images" / source.name
        with self._lock, closing(self._open()) as db:
            if not kept.exists():
                os.link(source, kept)  # stays when the job's own file is removed
            values = (time.time(), job, model, weights, f"images/{source.name}{frame}", patient)
            sizes = (record["rows"], record["columns"])
            words = (verdict, json.dumps(there), json.dumps(places))
            db.execute(f"INSERT INTO feedback VALUES (NULL{', ?' * 12})", (*values, *sizes, *words, reader))
            self._write_tables(db)

    def of_job(self, job: int) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the last statement on each model and image (file name, with the frame of a loop) of a job."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT * FROM feedback WHERE job = ? ORDER BY id", (job,)).fetchall()
        return {(row["model"], row["image"].removeprefix("images/")): _plain(row) for row in rows}

    def _write_tables(self, db: sqlite3.Connection) -> None:
        last = {(row["model"], row["image"]): _plain(row) for row in db.execute("SELECT * FROM feedback ORDER BY id")}
        for model in {model for model, _ in last}:
            rows = [row for (name, _), row in last.items() if name == model]
            classes = list(rows[-1]["findings"])  # a model's classes may change with its weights
            rows = [row for row in rows if set(row["findings"]) == set(classes)]
            table = [{**row, "split": "training", "label": [row["findings"][name] for name in classes]} for row in rows]
            write_label_table(table, self.folder / f"{model}.csv", ["label"] if classes == [ABNORMAL] else classes)
            if classes != [ABNORMAL]:
                self._write_boxes(model, classes, rows)

    def _write_boxes(self, model: str, classes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        images = [
            {"id": i, "file_name": row["image"], "height": row["rows"], "width": row["columns"]}
            for i, row in enumerate(rows)
        ]
        found = [(i, box) for i, row in enumerate(rows) for box in row["boxes"]]
        annotations = [
            {"id": n, "image_id": i, "category_id": classes.index(box["label"]), "bbox": _sides(box)}
            for n, (i, box) in enumerate(found)
        ]
        categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
        with atomic_path(self.folder / f"{model}_boxes.json") as partial:
            content = {"images": images, "categories": categories, "annotations": annotations}
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "findings": json.loads(row["findings"]), "boxes": json.loads(row["boxes"])}


def _sides(box: Mapping[str, Any]) -> list[float]:
    return [box[side] for side in ("x", "y", "width", "height")]


def _box(given: Any, names: Sequence[str], rows: int, columns: int) -> dict[str, Any]:
    """Return a reader's box, cut at the border of the image."""
    if not isinstance(given, Mapping) or given.get("label") not in names:
        raise ValueError(f"a box must have a label among {', '.join(names)}.")
    sides = {side: given.get(side) for side in ("x", "y", "width", "height")}
    # a comparison with not-a-number is False
    numbers = [float(side) for side in sides.values() if isinstance(side, (int, float)) and abs(side) < 1e6]
    if len(numbers) < len(sides):
        raise ValueError("a box must have x, y, width and height in pixels.")
    x, y, width, height = numbers
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(float(columns), x + width), min(float(rows), y + height)
    if right - left < 1 or bottom - top < 1:
        raise ValueError("a box must cover a pixel of the image.")
    return {"label": given["label"], "x": left, "y": top, "width": right - left, "height": bottom - top}
