# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Rows files and the tables of ``docs/`` and of the models' cards that are made from them.

    python scripts/studies/tables.py             # write every table anew from its rows
    python scripts/studies/tables.py --check     # exit code 1 where a page and its rows differ

A table stands between ``<!-- table of STUDY -->`` and ``<!-- end of the table -->``, where STUDY is a file of
``scripts/studies``, with ``: NAME`` behind it where a study has several tables. The table of README.md has values of
several studies, which ``docs/results/headline.yaml`` names.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["headline_of", "read_rows", "read_study", "table_of", "with_tables"]

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "scripts/studies"
HEADLINE = "docs/results/headline.yaml"
MARKED = re.compile(r"<!-- table of ([\w/.]+)(?:: ([\w ]+))? -->\n.*?<!-- end of the table -->", re.DOTALL)
Row = dict[str, Any]


def read_study(path: str | Path) -> dict[str, Any]:
    """Return a study, a YAML file, whose name is the path from ``scripts/studies`` or a path."""
    found = next((p for p in (Path(path), STUDIES / path) if p.is_file()), None)
    if found is None:
        known = ", ".join(sorted(p.relative_to(STUDIES).as_posix() for p in STUDIES.rglob("*.yaml")))
        raise SystemExit(f"error: '{path}' is no study; there are {known}")
    study: dict[str, Any] = yaml.safe_load(found.read_text())
    return {"name": found.resolve().relative_to(STUDIES).as_posix(), **study}


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def cell_of(rows: Sequence[Row], metric: str, digits: int = 3, short: bool = False) -> str:
    """Return the mean of a metric over the seeds; if not ``short``, the mean of its interval's ends and each value."""
    values = {row["seed"]: row[metric] for row in rows if row.get(metric) not in (None, "")}
    if not values:
        return "not run"
    numbers = [float(v) for _, v in sorted(values.items())]
    digits = 0 if all(v.isdigit() for v in values.values()) else digits  # counts
    text = f"{statistics.mean(numbers):.{digits}f}"
    if short:
        return text
    ends = [[float(row[f"{metric}_{end}"]) for row in rows if row.get(f"{metric}_{end}")] for end in ("low", "high")]
    if all(ends):
        text += f" ({' to '.join(f'{statistics.mean(end):.{digits - 1}f}' for end in ends)})"
    if len(numbers) > 1:
        text += f" [{' '.join(f'{n:.{digits}f}' for n in numbers)}]"
    return text


def table_of(study: dict[str, Any], rows: Sequence[Row], name: str = "") -> str:
    """
    Return a table of a study: one row a variant, one column a set, or a set and a metric where there are several.

    Args:
        study: has ``sets`` and ``variants``; its ``tables`` may name tables with ``metrics``, ``sets``,
            ``variants`` and ``rows`` of their own, ``short: true`` for means alone, and ``lines: sets`` for one row a
            set (and variant, where there are several), one column a metric.
        rows: of the rows file.
        name: of one of ``tables``; none is the whole study with its first metric.

    Returns:
        Markdown.

    Raises:
        SystemExit: When the study has no such table.

    Example:
        >>> rows = [{"set": "a", "variant": "default", "seed": "0", "auroc": "0.5"}]
        >>> print(table_of({"sets": ["a"], "variants": {"default": {}}, "metrics": {"auroc": "auroc"}}, rows))
        | auroc | a |
        |---|---|
        | default | 0.500 |
    """
    if name and name not in study.get("tables", {}):
        raise SystemExit(f"error: '{study['name']}' has no table '{name}'")
    chosen = {**study, **(study["tables"][name] if name else {})}
    metrics = list(chosen["metrics"])[:1] if not name else list(chosen["metrics"])
    if chosen.get("lines") == "sets":
        return _table_by_set(chosen, metrics, rows)
    columns = [(data, metric) for data in chosen["sets"] for metric in metrics]
    heads = [data if len(metrics) == 1 else f"{data}, {metric.replace('_', ' ')}" for data, metric in columns]
    if len(metrics) > 1 and len(chosen["sets"]) == 1 and chosen.get("short"):
        heads = [metric.replace("_", " ") for metric in metrics]
    lines = [f"| {metrics[0].replace('_', ' ') if len(metrics) == 1 else ''} | {' | '.join(heads)} |"]
    lines.append("|" + "---|" * (len(heads) + 1))
    for variant in chosen["variants"]:
        found = [[r for r in rows if (r["set"], r["variant"]) == (data, variant)] for data, _ in columns]
        short = bool(chosen.get("short"))
        cells = [cell_of(own, metric, short=short) for own, (_, metric) in zip(found, columns, strict=True)]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table_by_set(study: dict[str, Any], metrics: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [f"|  | {' | '.join(metric.replace('_', ' ') for metric in metrics)} |", "|" + "---|" * (len(metrics) + 1)]
    for data in study["sets"]:
        for variant in study["variants"]:
            found = [row for row in rows if (row["set"], row["variant"]) == (data, variant)]
            head = data if len(study["variants"]) == 1 else f"{data}, {variant}"
            lines.append(f"| {head} | {' | '.join(cell_of(found, metric) for metric in metrics)} |")
    return "\n".join(lines)


def headline_of(path: Path) -> str:
    """
    Return a table whose cells are texts and values of several rows files.

    Args:
        path: YAML with ``heads`` and ``lines``; a cell is a text, or ``rows`` (a file beside it), ``set``, ``variant``
            and ``metric``, with the ``name`` in front and ``seeds``, which says where there are fewer than elsewhere.

    Raises:
        SystemExit: When the rows have no such value.
    """
    page = yaml.safe_load(path.read_text())

    def shown(cell: Any) -> str:
        if isinstance(cell, str):
            return cell
        rows = [
            row
            for row in read_rows(path.parent / cell["rows"])
            if (row["set"], row["variant"]) == (cell["set"], cell["variant"])
        ]
        value = cell_of(rows, cell["metric"]).split(" [")[0]
        if value == "not run":
            raise SystemExit(f"error: {cell['rows']} has no {cell['metric']} of {cell['set']}, {cell['variant']}")
        return f"{cell['name']} {value}" + (f", {cell['seeds']}" if "seeds" in cell else "")

    lines = [page["heads"], ["---"] * len(page["heads"]), *([shown(cell) for cell in line] for line in page["lines"])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str) -> str:
    """Return a page with every marked table of a YAML study made anew from the rows in the repository."""

    def made(match: re.Match[str]) -> str:
        if not match[1].endswith(".yaml"):
            return match[0]
        if match[1] == HEADLINE:
            return f"<!-- table of {HEADLINE} -->\n{headline_of(ROOT / HEADLINE)}\n<!-- end of the table -->"
        study = read_study(match[1])
        head = match[0].split("\n", 1)[0]
        own = study.get("tables", {}).get(match[2], {})
        rows = read_rows(ROOT / own.get("rows", study["rows"]))
        return f"{head}\n{table_of(study, rows, match[2] or '')}\n<!-- end of the table -->"

    return MARKED.sub(made, text)


def pages() -> list[Path]:
    """Return the pages that may have tables: README.md, those of ``docs/``, and the cards of the models."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").glob("*/README.md")])


def main() -> None:
    """Write or check the tables of all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    differ = []
    for page in pages():
        text = page.read_text()
        if (new := with_tables(text)) != text:
            differ.append(page.relative_to(ROOT).as_posix())
            if not args.check:
                page.write_text(new)
    if differ:
        print(f"{'differ from their rows' if args.check else 'written anew'}: {', '.join(differ)}")
    raise SystemExit(int(args.check and bool(differ)))


if __name__ == "__main__":
    main()
