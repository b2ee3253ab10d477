# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Compare the variants of a classification study in pairs: differences of mean AUROC with intervals over patients.

    python scripts/studies/paired.py classification/findings.yaml DATA --work WORK

Reads the predictions that ``run_study.py`` kept in WORK. The two networks of a pair have the same split, and a
bootstrap sample draws the same patients for both, within each seed; the difference is the mean over the seeds that both
have. The interval is over patients, not over trainings: the seeds of the other table show those. The study says what
the others are compared with, and where the rows are (``paired: {against: none, rows: FILE}``).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from run_study import append_row, commit_of, kept_folder
from study_sets import dataset_flags
from tables import ROOT, Row, read_rows, read_study, table_of

from bundle.training.auroc import class_aurocs

COLUMNS = ["set", "variant", "seed", "difference", "difference_low", "difference_high", "commit", "command"]


class Predictions(NamedTuple):
    """Of one network: patients ``(N,)``, probabilities and targets ``(N, K)``, in the order of the table of images."""

    patients: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray


def read_predictions(folder: Path, table: Path, classes: list[str]) -> Predictions:
    """Return what a kept run says of the test images of its table; each must be there."""
    said = {row["source"]: row for row in read_rows(folder / "predictions.csv")}
    rows = [row for row in read_rows(table) if row["split"] == "test"]
    if missing := [row["image"] for row in rows if row["image"] not in said]:
        raise SystemExit(f"error: '{folder}' has no prediction of {len(missing)} test images, first '{missing[0]}'")
    p = [[float(said[row["image"]][f"probability_{name}"]) for name in classes] for row in rows]
    y = [[int(row[name]) for name in classes] for row in rows]
    return Predictions(np.array([row["patient"] for row in rows]), np.array(p), np.array(y))


def mean_auroc(found: Predictions, index: np.ndarray) -> float:
    """Return the mean over the classes that have both kinds among these images, NaN where none has."""
    areas = class_aurocs(found.probabilities[index], found.targets[index])
    return float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")


def paired_difference(pairs: list[tuple[Predictions, Predictions]], samples: int = 1000) -> tuple[float, float, float]:
    """
    Return the mean difference of mean AUROC over pairs of networks, and its 95 % percentile interval over patients.

    Args:
        pairs: of predictions, the second minus the first.
        samples: bootstrap samples, the same each time.

    Example:
        >>> sure = Predictions(np.arange(4), np.array([[0.1], [0.2], [0.8], [0.9]]), np.array([[0], [0], [1], [1]]))
        >>> paired_difference([(sure, sure)], 10)
        (0.0, 0.0, 0.0)
    """
    generator = np.random.default_rng(0)
    everything = [np.arange(len(first.patients)) for first, _ in pairs]
    groups = []
    for first, _ in pairs:
        images: dict[Any, list[int]] = defaultdict(list)
        for i, patient in enumerate(first.patients.tolist()):
            images[patient].append(i)
        groups.append([np.array(found) for found in images.values()])

    def difference(indices: list[np.ndarray]) -> float:
        return float(np.mean([mean_auroc(b, i) - mean_auroc(a, i) for (a, b), i in zip(pairs, indices, strict=True)]))

    drawn = []
    for _ in range(samples):
        picks = [generator.integers(0, len(g), len(g)) for g in groups]
        drawn.append(difference([np.concatenate([g[k] for k in pick]) for g, pick in zip(groups, picks, strict=True)]))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return difference(everything), float(low), float(high)


def main() -> None:
    """Parse the command line, write the rows anew, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a YAML file of scripts/studies with ``paired``")
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=Path("study"), help="of run_study.py (%(default)s)")
    parser.add_argument("--rows", type=Path, help="rows file, written anew; that of the study by default")
    args = parser.parse_args()
    study = read_study(args.study)
    if "paired" not in study:
        raise SystemExit(f"error: '{args.study}' does not say what is compared, 'paired' is missing")
    against, path = study["paired"]["against"], args.rows or ROOT / study["paired"]["rows"]
    rows: list[Row] = []
    for name in study["sets"]:
        kept: dict[str, dict[int, Predictions]] = defaultdict(dict)
        for seed in study["seeds"]:
            for variant in study["variants"]:
                folder = kept_folder(args.work.resolve(), name, variant, seed)
                if (folder / "predictions.csv").is_file():
                    chosen = dataset_flags(study["family"], name, args.data.resolve(), args.work.resolve(), seed)
                    classes = str(chosen.train["classes"]).split(",")
                    kept[variant][seed] = read_predictions(folder, Path(str(chosen.both["labels_csv"])), classes)
        for variant in study["variants"]:
            both = sorted(kept[variant].keys() & kept[against].keys())
            if variant != against and both:
                pairs = [(kept[against][seed], kept[variant][seed]) for seed in both]
                values = zip(COLUMNS[3:6], paired_difference(pairs), strict=True)
                command = f"python scripts/studies/paired.py {study['name']} DATA --work WORK"
                seeds = " ".join(map(str, both))
                row = {"set": name, "variant": variant, "seed": seeds, **dict(values)}
                rows.append({**row, "commit": commit_of(ROOT), "command": command})
    path.unlink(missing_ok=True)
    for row in rows:
        append_row(path, COLUMNS, row)
    print(table_of({**study, "metrics": ["difference"]}, read_rows(path)))


if __name__ == "__main__":
    main()
