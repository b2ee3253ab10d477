# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Tables of docs/adfa.md from the runs that scripts/studies/anomaly/adfa_study.py left.

    python scripts/studies/anomaly/adfa_study_tables.py DIR > tables.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from bundle.anomaly.conformal import conformal_threshold
from bundle.anomaly.metrics import bootstrap_interval
from bundle.anomaly.synthetic_anomalies import SYNTHETIC_ANOMALY_KINDS

SETS = ("covid19", "brainmri", "busi_part")
SCORES = ("max", "smoothed", "top 2 %", "top 5 %", "top 10 %", "top 25 %")
Row = dict[str, Any]


def cell(rows: list[Row], score: str, state: str = "final") -> str:
    """Return the mean AUROC over seeds, the mean ends of its bootstrap intervals and the number of seeds."""
    if not rows:
        return "not run"
    values, ends = [], []
    for row in rows:
        labels, scores = np.array(row["labels"]), np.array(row[state][score])
        values.append(roc_auc_score(labels, scores))
        ends.append(bootstrap_interval(labels, scores, roc_auc_score, 200))
    low, high = np.mean(ends, axis=0)
    return f"{np.mean(values):.3f} ({low:.2f} to {high:.2f})" + (f", {len(rows)} seeds" if len(rows) > 1 else "")


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    header = list(header)
    rows = [header, ["---"] * len(header), *map(list, lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def select(rows: list[Row], name: str, method: str, normals: int | None = None, seed: int | None = None) -> list[Row]:
    """Return the runs of one set and method."""
    return [
        row
        for row in rows
        if (row["set"], row["method"], row["normals"]) == (name, method, normals) and seed in (None, row["seed"])
    ]


def main_table(rows: list[Row], score: str) -> str:
    """Return methods against sets, over all seeds."""
    lines = []
    for title, method, kind, state in (
        ("PaDiM, smoothed maximum", "PaDiM", "smoothed", "final"),
        (f"PaDiM, {score}", "PaDiM", score, "final"),
        ("patch memory, smoothed maximum", "patch memory", "smoothed", "final"),
        (f"patch memory, {score}", "patch memory", score, "final"),
        (f"default, untrained, without refit, {score}", "default", score, "start"),
        (f"default, untrained, {score}", "default", score, "start, refit"),
        (f"default, without refit, {score}", "default", score, "chosen"),
        (f"**default**, {score}", "default", score, "final"),
        ("default, smoothed maximum", "default", "smoothed", "final"),
    ):
        lines.append([title, *(cell(select(rows, name, method), kind, state) for name in SETS)])
    return table(["method", *SETS], lines)


def score_table(rows: list[Row]) -> str:
    """Return, for each image score of the default, the validation and the test AUROC, means over seeds."""
    lines = []
    for score in SCORES:
        line = [score]
        for name in SETS:
            runs = select(rows, name, "default")
            picked = [next(c for c in row["curve"] if c["step"] == row["chosen_step"]) for row in runs]
            test = [roc_auc_score(row["labels"], row["final"][score]) for row in runs]
            line.append(f"{np.mean([c[score] for c in picked]):.3f} / {np.mean(test):.3f}" if runs else "not run")
        lines.append(line)
    return table(["score (validation / test)", *SETS], lines)


def settings_table(rows: list[Row], score: str) -> str:
    """Return every setting at its end under two scores, with the AUROC of every seed in the second."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if "curve" in row):
        line = [method]
        for name in SETS:
            runs = select(rows, name, method)
            found = {
                kind: [roc_auc_score(r["labels"], r["final"][kind]) for r in sorted(runs, key=lambda r: r["seed"])]
                for kind in ("smoothed", score)
            }
            each = " ".join(f"{value:.3f}" for value in found[score])
            means = [np.mean(values) for values in found.values()]
            line.append(f"{means[0]:.3f}; {means[1]:.3f} ({each})" if runs else "not run")
        lines.append(line)
    return table([f"setting (smoothed maximum; {score}; each seed)", *SETS], lines)


def unseen_table(rows: list[Row]) -> str:
    """Return the validation AUROC of each kind of change at the start and where training ended, all seeds."""
    lines = []
    for method in ("default", "two kinds of change unseen"):
        for name in SETS:
            runs = select(rows, name, method)
            if runs:
                first, last = (np.mean([r["curve"][i]["kinds"] for r in runs], axis=0) for i in (0, -1))
                lines.append([f"{method}, {name}", *(f"{a:.2f} → {b:.2f}" for a, b in zip(first, last, strict=True))])
    return table(["validation AUROC, start → last step", *SYNTHETIC_ANOMALY_KINDS], lines)


def normals_table(rows: list[Row], score: str) -> str:
    """Return the AUROC of the default and of PaDiM against the number of normals, held-back ones included."""
    counts = [*sorted({row["normals"] for row in rows if row["normals"]}), None]
    lines = []
    for n in counts:
        cells = [cell(select(rows, name, m, n, 0), score) for name in SETS for m in ("default", "PaDiM")]
        lines.append([str(n or "all"), *cells])
    return table(["normals", *(f"{name}, {m}" for name in SETS for m in ("default", "PaDiM"))], lines)


def alarm_table(rows: list[Row], score: str) -> str:
    """Return the observed share of false alarms among test normals against the wanted one, all seeds pooled."""
    lines = []
    for rate in (0.1, 0.2, 0.3):
        line = [f"{rate:.0%}"]
        for name in SETS:
            alarms: list[bool] = []
            hits: list[bool] = []
            for row in select(rows, name, "default"):
                threshold = conformal_threshold(torch.tensor(row["held_back"][score]), rate)
                for label, value in zip(row["labels"], row["final"][score], strict=True):
                    (hits if label else alarms).append(value > threshold)
            line.append(f"{np.mean(alarms):.0%} of {len(alarms)}; finds {np.mean(hits):.0%}" if alarms else "not run")
        lines.append(line)
    return table(["wanted", *SETS], lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--score", default="top 2 %", choices=SCORES)
    arguments = parser.parse_args()
    rows = [json.loads(p.read_text()) for p in sorted(arguments.folder.glob("*.json")) if "seed" in p.stem]
    score = arguments.score
    print("### Methods\n\n" + main_table(rows, score))
    print("### Image scores of the default\n\n" + score_table(rows))
    print("### Settings\n\n" + settings_table(rows, score))
    print("### Kinds of change that training has not seen\n\n" + unseen_table(rows))
    print("### Few normals, seed 0\n\n" + normals_table(rows, score))
    print("### False alarms\n\n" + alarm_table(rows, score))
    extra = arguments.folder / "localization.json"
    if extra.exists():
        found = json.loads(extra.read_text())
        lines = [
            [name, f"{v['pixel_auroc']:.3f}", f"{v['pro']:.3f}", f"{v['heat_inside']:.2f}"] for name, v in found.items()
        ]
        print(
            "### Lesions of busi_part\n\n"
            + table(["map", "pixel AUROC", "PRO to 30 %", "heat inside / outside"], lines)
        )


if __name__ == "__main__":
    main()
