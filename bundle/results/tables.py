# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Results as tables that a person, a spreadsheet and a program can read; docs/results-format.md describes them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.files import atomic_path
from bundle.results.names import plain_text, relative_source
from bundle.results.records import NOTICE, Algorithm, ImageResult

__all__ = [
    "SCHEMA_VERSION",
    "read_predictions",
    "record_of",
    "safe_cell",
    "write_failures",
    "write_metrics",
    "write_predictions_csv",
    "write_predictions_json",
    "write_scores",
]

SCHEMA_VERSION = "3.2"

_VERDICT = ("label", "anomaly_score", "finding_probability", "p_value", "abnormal", "verdict", "not_assessed")
_FINDINGS = ("true_findings", "present_findings", "heatmap_class")
_COLUMNS = ("key", "source", "frame", "subject", *_VERDICT, "anomaly_score_raw", *_FINDINGS, "display_note", "seen")
_SCORE_COLUMNS = ("key", "subject", *_VERDICT)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def record_of(
    result: ImageResult, input_root: str | os.PathLike | None = None, files: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    Return what the tables say of one image: plain numbers, words and lists, no arrays and no absolute path.

    Args:
        result: what was found.
        input_root: folder that the source's name is given relative to; outside of it the bare file name is given.
        files: what was written for this image, by kind, as paths relative to the output folder.

    Returns:
        dictionary as in the list ``images`` of ``predictions.json``.
    """
    pixels = result.heatmap if result.heatmap is not None else result.image
    return _plain(
        {
            "key": result.key,
            "source": relative_source(result.source, input_root),
            "frame": result.frame,
            "subject": result.subject,
            "rows": None if pixels is None else pixels.shape[0],
            "columns": None if pixels is None else pixels.shape[1],
            "label": result.label,
            "true_findings": result.true_findings,
            "probabilities": dict(result.probabilities),
            "finding_probability": result.finding_probability,
            "anomaly_score": result.anomaly_score,
            "anomaly_score_raw": result.anomaly_score_raw,
            "p_value": result.p_value,
            "abnormal": result.abnormal,
            "verdict": result.verdict,
            "not_assessed": result.not_assessed,
            "operating_points": dict(result.operating_points),
            "present_findings": result.present_findings,
            "heatmap_class": result.heatmap_class,
            "display_note": result.display_note,
            "seen": result.seen,
            "boxes": [vars(box) for box in result.boxes],
            "extra": dict(result.extra),
            "files": dict(files or {}),
        }
    )


def write_predictions_json(
    path: str | os.PathLike,
    records: Iterable[Mapping[str, Any]],
    algorithm: Algorithm | None = None,
    threshold: float | None = None,
    metrics: Mapping[str, Any] | None = None,
    failures: Iterable[tuple[str, str]] = (),
) -> None:
    """
    Write everything that is known, one image a line, so that the file can be made and read at constant memory.

    Args:
        path: file to write.
        records: images, from :py:func:`record_of`.
        algorithm: what made the results.
        threshold: score from which an image is called abnormal.
        metrics: of an evaluation, see :py:func:`write_metrics`.
        failures: file and reason for what has no result, or lacks one of its files.
    """
    head = {
        "schema_version": SCHEMA_VERSION,
        "notice": NOTICE,
        "algorithm": vars(algorithm or Algorithm()),
        "threshold": threshold,
        "metrics": metrics,
        "failures": [{"file": file, "reason": reason} for file, reason in failures],
    }
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write(_json(head)[:-1] + ', "images": [')
        for count, record in enumerate(records):
            stream.write((",\n" if count else "\n") + _json(record))
        stream.write("\n]}\n")


def read_predictions(path: str | os.PathLike) -> dict[str, Any]:
    """
    Return the content of a ``predictions.json``, that of an older version with the names of this one.

    Args:
        path: file that :py:func:`write_predictions_json` wrote.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    content["images"] = [_renamed(image) if "label_scores" in image else image for image in content["images"]]
    return content


def write_predictions_csv(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """
    Write one row an image: the columns of every run, then ``probability_CLASS``, ``operating_point_FINDING`` and
    ``extra_NAME``.

    Args:
        path: file to write.
        records: images, from :py:func:`record_of`; gone through twice, so not an iterator.

    Raises:
        ValueError: When ``records`` is an iterator.
    """
    if iter(records) is records:
        raise ValueError("records must be a collection that can be gone through twice, got an iterator.")
    columns = dict.fromkeys((*_COLUMNS, "box_count"))
    for record in records:
        columns |= dict.fromkeys(_wide(record))
    _write_csv(path, tuple(columns), (_wide(record) for record in records))


def write_scores(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """
    Write what an evaluation needs and no more: key, subject, label, score, p-value, verdict, or why there is none.

    Args:
        path: file to write.
        records: images, from :py:func:`record_of`.
    """
    _write_csv(path, _SCORE_COLUMNS, ({name: record[name] for name in _SCORE_COLUMNS} for record in records))


def write_failures(path: str | os.PathLike, failures: Iterable[tuple[str, str]]) -> None:
    """
    Write file and reason, one row a failure; with no failure only the header, so that the file always tells.

    Args:
        path: file to write.
        failures: pairs of file name and reason.
    """
    _write_csv(path, ("file", "reason"), ({"file": file, "reason": reason} for file, reason in failures))


def write_metrics(path: str | os.PathLike, metrics: Mapping[str, Any]) -> None:
    """
    Write the metrics of an evaluation as JSON.

    Args:
        path: file to write.
        metrics: numbers, words or lists by name in ``lower_case_with_underscores``; the ends of a number's interval
            are ``NAME_interval``. ``classes`` holds such a dictionary for each class, e.g.
            ``{"classes": {"effusion": {"auroc": 0.8, "auroc_interval": (0.7, 0.9)}}}``.
    """
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(_plain(metrics), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def safe_cell(value: Any) -> Any:
    """
    Return a table cell that no spreadsheet takes for a formula: text that begins like one gets a ``'`` in front.

    Numbers stay numbers, so ``-0.5`` is not touched.

    Args:
        value: a number, a boolean, text or ``None``.

    Example:
        >>> safe_cell("=HYPERLINK(A1)"), safe_cell(-0.5), safe_cell("normal"), safe_cell(None)
        ("'=HYPERLINK(A1)", -0.5, 'normal', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    # a program that trims its cells would find the formula behind the spaces
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def _wide(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: record[name] for name in _COLUMNS} | {"box_count": len(record["boxes"])}
    row["seen"] = None if record["seen"] is None else " ".join(f"{edge:.6g}" for edge in record["seen"])
    row |= {name: ", ".join(record[name] or ()) for name in ("true_findings", "present_findings")}
    row |= {f"probability_{name}": value for name, value in record["probabilities"].items()}
    row |= {f"operating_point_{name}": value for name, value in record["operating_points"].items()}
    return row | {f"extra_{name}": value for name, value in record["extra"].items()}


def _renamed(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image of a version before 3.0, where a class probability could be called an anomaly score."""
    kept = {name: value for name, value in image.items() if name not in ("label_scores", "anomaly_score")}
    probabilities, score = image["label_scores"], image["anomaly_score"]
    new = dict.fromkeys((*_FINDINGS, "anomaly_score", "anomaly_score_raw", "finding_probability"))
    new |= {"probabilities": probabilities, "finding_probability" if probabilities else "anomaly_score": score}
    return {"operating_points": {}, "not_assessed": None, "seen": None, **kept, **new}


def _write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(Path(path)) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([safe_cell(name) for name in columns])
        writer.writerows([safe_cell(row.get(name)) for name in columns] for row in rows)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return Python numbers for NumPy's and torch's, text of UTF-8, ``None`` for what JSON cannot say (NaN)."""
    if isinstance(value, Mapping):
        return {plain_text(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # also a zero-dimensional tensor
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
