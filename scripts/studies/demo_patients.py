# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Draw the patients whose films are shown and train nothing: ``models/demo_patients.csv``.

    python scripts/studies/demo_patients.py DATA > models/demo_patients.csv

Eight adults of folds 0 to 2 of ``nih_part`` with at most three films, all PA, by the seed 0: four whose films are all
normal, four whose films all have official boxes. Nobody has looked at a film or at a result before the draw.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

FOLDS, ADULT, FILMS = 3, 18, 3
Films = list[dict[str, str]]


def demo_films(folder: Path, seed: int = 0, each: int = 4) -> Films:
    """Return the manifest's rows of the drawn patients, sorted by patient."""
    with (folder / "boxes.csv").open(newline="") as stream:
        boxed = {row["image"] for row in csv.DictReader(stream)}
    patients: dict[str, Films] = defaultdict(list)
    with (folder / "manifest.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if int(row["fold"]) < FOLDS:
                patients[row["patient"]].append(row)

    def those(rule: Callable[[dict[str, str]], bool]) -> list[str]:
        adult = {p: f for p, f in patients.items() if all(r["view"] == "PA" and int(r["age"]) >= ADULT for r in f)}
        return sorted((p for p, f in adult.items() if len(f) <= FILMS and all(map(rule, f))), key=int)

    draw = random.Random(seed)
    chosen = draw.sample(those(lambda row: row["no_finding"] == "1"), each)
    chosen += draw.sample(those(lambda row: row["image"] in boxed), each)
    return [row for patient in sorted(chosen, key=int) for row in patients[patient]]


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with nih_part")
    films = demo_films(parser.parse_args().data / "nih_part")
    writer = csv.DictWriter(sys.stdout, list(films[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(films)


if __name__ == "__main__":
    main()
