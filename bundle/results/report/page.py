# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One HTML file that shows a run: metrics, charts, and a gallery whose overlays can be faded in and out."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from bundle.files import atomic_path
from bundle.results.overlays import heat_layer, image_layer
from bundle.results.records import NOTICE, Algorithm, ImageResult, sentences
from bundle.results.report.charts import histogram_svg, roc_svg

__all__ = ["TEMPLATES", "ReportFacts", "heatmap_title", "pictures_of", "render_report", "select_cards"]

TEMPLATES = Path(__file__).parent / "templates"
_IMAGE_SIDE = 320  # pixels; some 15 kB as JPEG
_HEAT_SIDE = 160  # heat is smooth, and the browser scales it up
_HEAT_LEVELS = 64


@dataclass(frozen=True)
class ReportFacts:
    """
    What a report says besides the images.

    Args:
        title: heading of the page.
        algorithm: what made the results.
        threshold: score from which an image is called abnormal.
        metrics: of an evaluation, see :py:func:`bundle.results.tables.write_metrics`; their labels are made of their
            names.
        started: when the run began.
        notes: sentences that a reader must know, e.g. that the images are synthetic.
        failures: file and reason for what has no result, or lacks one of its files.
        charts: further pictures as title and SVG or PNG bytes.
        max_cards: number of images that the gallery draws at most.
    """

    title: str = "Results"
    algorithm: Algorithm = field(default_factory=Algorithm)
    threshold: float | None = None
    metrics: Mapping[str, Any] | None = None
    started: str = ""
    notes: Sequence[str] = ()
    failures: Sequence[tuple[str, str]] = ()
    charts: Sequence[tuple[str, bytes]] = ()
    max_cards: int = 300


def pictures_of(result: ImageResult, heat_range: tuple[float, float]) -> dict[str, Any]:
    """
    Return a result's thumbnails as data URIs: ``image``, and ``maps``, a list of name and picture.

    Args:
        result: with an image, a heatmap, both or neither.
        heat_range: values shown as no heat and as full heat.
    """
    maps = {"heat": result.heatmap} if result.heatmap is not None else {}
    return {
        "image": None if result.image is None else _jpeg(image_layer(result.image, _IMAGE_SIDE)),
        "maps": [
            (name, _indexed_png(heat_layer(heat, heat_range, _HEAT_SIDE)))
            for name, heat in (maps | result.extra_maps).items()
        ],
    }


def select_cards(scores: Sequence[float | None], threshold: float | None, max_cards: int) -> list[int]:
    """
    Return which images the gallery draws, by falling score: two thirds of the places go to the highest scores, the
    others to the scores nearest to the threshold (without a threshold: all places to the highest).

    Args:
        scores: one an image; ``None`` comes last.
        threshold: score from which an image is called abnormal.
        max_cards: number of places.

    Returns:
        indices into ``scores``.
    """
    values = [-math.inf if score is None else score for score in scores]
    order = sorted(range(len(values)), key=lambda index: -values[index])
    if len(order) <= max_cards or threshold is None:
        return order[:max_cards]
    highest = math.ceil(max_cards * 2 / 3)
    nearest = sorted(order[highest:], key=lambda index: abs(values[index] - threshold))
    return order[:highest] + sorted(nearest[: max_cards - highest], key=lambda index: -values[index])


def render_report(
    records: Iterable[Mapping[str, Any]],
    pictures: Callable[[int], Mapping[str, Any]],
    path: str | os.PathLike,
    facts: ReportFacts,
) -> None:
    """
    Write the report from table records, asking for the pictures of the images that the gallery draws and no others.

    Args:
        records: one an image, from :py:func:`bundle.results.tables.record_of`; gone through three times.
        pictures: gives the thumbnails of the image with this index, see :py:func:`pictures_of`.
        path: HTML file to write.
        facts: what the report says besides the images.
    """
    summary = [(_score(record), record["label"], record["abnormal"]) for record in records]
    not_assessed = [index for index, record in enumerate(records) if record["not_assessed"] is not None]
    # they have no verdict to be sorted by, so some places are theirs
    shown = not_assessed[: facts.max_cards // 6]
    chosen = select_cards([score for score, _, _ in summary], facts.threshold, facts.max_cards - len(shown))
    chosen += [index for index in shown if index not in chosen]
    wanted = set(chosen)
    kept = {index: record for index, record in enumerate(records) if index in wanted}
    finite = [score for score, _, _ in summary if score is not None]
    if facts.threshold is not None:
        finite.append(facts.threshold)
    cards = (
        {
            **kept[index],
            **pictures(index),
            "score": _score(kept[index]),
            "remarks": sentences(kept[index]),
            "heatmap_title": heatmap_title(kept[index]),
        }
        for index in chosen
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # whatever a file or a label says stays text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["words"] = _words
    stream = environment.get_template("report.html.j2").stream(
        facts=facts,
        notice=NOTICE,
        counts={**_counts(summary), "not_assessed": len(not_assessed)},
        metrics=_metric_rows(facts.metrics or {}),
        tables=_metric_tables(facts.metrics or {}),
        charts=_charts(summary, facts.threshold),
        pictures=[(title, _picture_uri(content)) for title, content in facts.charts],
        cards=cards,
        drawn=len(chosen),
        low=min(finite, default=0.0),
        high=max(finite, default=1.0),
    )
    with atomic_path(path) as partial:
        stream.dump(str(partial), encoding="utf-8")


def _score(record: Mapping[str, Any]) -> float | None:
    """Return what the gallery sorts by: the anomaly score, else the probability of the most probable finding."""
    score = record["anomaly_score"]
    return record["finding_probability"] if score is None else score


def heatmap_title(record: Mapping[str, Any]) -> str:
    """
    Return the class that a heatmap shows, and that the class is not called present where it is not.

    Args:
        record: of an image, see :py:func:`bundle.results.tables.record_of`.

    Example:
        >>> record = {"heatmap_class": "Mass", "not_assessed": None, "probabilities": {"Mass": 0.1}}
        >>> heatmap_title({**record, "operating_points": {"Mass": 0.4}})
        'Mass, below its operating point'
    """
    name = record["heatmap_class"]
    if name is None or record["not_assessed"] is not None:
        return name or ""
    point = record["operating_points"].get(name)
    if point is None:
        return f"{name}, without an operating point"
    return name if record["probabilities"][name] >= point else f"{name}, below its operating point"


def _counts(summary: Sequence[tuple[float | None, int | None, bool | None]]) -> dict[str, int]:
    return {
        "images": len(summary),
        "abnormal": sum(verdict is True for _, _, verdict in summary),
        "normal": sum(verdict is False for _, _, verdict in summary),
        "labeled": sum(label is not None for _, label, _ in summary),
    }


def _charts(
    summary: Sequence[tuple[float | None, int | None, bool | None]], threshold: float | None
) -> list[tuple[str, str, str]]:
    """Return title, SVG and caption of what can be drawn."""
    scored = [(score, label, verdict) for score, label, verdict in summary if score is not None]
    charts: list[tuple[str, str, str]] = []
    if len(scored) > 1:
        svg = histogram_svg([score for score, _, _ in scored], [label for _, label, _ in scored], threshold)
        charts.append(("Scores", svg, f"{len(scored)} images; hover over a bar for its count."))
    known = [(score, label, verdict) for score, label, verdict in scored if label is not None]
    if {label for _, label, _ in known} == {0, 1}:
        rates = None
        if all(verdict is not None for _, _, verdict in known):
            by_class = [[verdict is True for _, label, verdict in known if label == wanted] for wanted in (0, 1)]
            rates = (sum(by_class[0]) / len(by_class[0]), sum(by_class[1]) / len(by_class[1]))
        svg = roc_svg([label for _, label, _ in known], [score for score, _, _ in known], rates)
        counts = (
            f"{sum(label == 0 for _, label, _ in known)} normal, {sum(label == 1 for _, label, _ in known)} abnormal"
        )
        charts.append(("ROC curve", svg, f"{counts}; dashed: chance."))
    return charts


def _metric_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each metric; one that is given by threshold, such as ``accuracy``, has a row for each."""
    rows = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            rows += [_metric(f"{name} at {key}", item) for key, item in value.items() if not isinstance(item, Mapping)]
        elif not name.endswith("_interval"):
            rows.append(_metric(name, value, metrics.get(f"{name}_interval")))
    return rows


def _metric_tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = []
    for title, lines in metrics.items():
        if isinstance(lines, Mapping) and all(isinstance(line, Mapping) for line in lines.values()):
            rows = {name: {cell["name"]: cell for cell in _metric_rows(line)} for name, line in lines.items()}
            columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
            cells = [(name, [row.get(column) for column in columns]) for name, row in rows.items()]
            tables.append({"title": title, "columns": columns, "rows": cells})
    return tables


def _metric(name: str, value: Any, interval: Sequence[float] | None = None) -> dict[str, Any]:
    """Return what a row shows; ``bar`` holds percentages where value and interval lie within 0..1."""
    low = high = bar = None
    if interval is not None:
        low, high = (float(end) for end in interval)
        if 0 <= low <= high <= 1:
            bar = {"left": 100 * low, "width": 100 * (high - low), "dot": 100 * value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(map(_number, value)) or "none"
    return {"name": name, "value": value, "low": low, "high": high, "bar": bar}


def _number(value: Any) -> str:
    if value is None or value != value:
        return "n/a"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 100 else f"{value:.3g}"


def _words(name: str) -> str:
    """Return a name of the tables as a person would write it."""
    for word, written in (("_", " "), ("auroc", "AUROC"), ("iou", "IoU"), ("sha256", "SHA-256")):
        name = name.replace(word, written)
    return name


def _jpeg(picture: Image.Image) -> str:
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=82)
    return _uri(stream.getvalue(), "image/jpeg")


def _indexed_png(heat: Image.Image) -> str:
    """Return RGBA heat as a PNG of few colors, a quarter of the size."""
    stream = BytesIO()
    heat.quantize(_HEAT_LEVELS, method=Image.Quantize.FASTOCTREE).save(stream, format="PNG", optimize=True)
    return _uri(stream.getvalue(), "image/png")


def _picture_uri(content: bytes) -> str:
    # as the source of an <img>, so that no script within an SVG runs and no two drawings share ids
    return _uri(content, "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
