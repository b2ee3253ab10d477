# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
What it costs or gains to look at the whole image: ADFA's workflow with and without the crop that was its default.

    python scripts/studies/anomaly/whole_image_study.py DATA --rows docs/results/whole_image.csv --page docs/results.md

DATA holds ``covid19_xray``, ``brainmri`` and ``busi_part``. Each row is one training and one evaluation by the
commands of the README: the same split and seed, resized to 224 x 224 (the whole image) or to 256 x 256 of which the
center of 224 x 224 is cut out. Rows that are there are not run again. ``--page`` writes the table into a page.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SETS = ("covid19_xray", "brainmri", "busi_part")
INPUTS = {"whole": 224, "crop": 256}
COLUMNS = ("set", "input", "seed", "auroc", "low", "high", "sensitivity", "specificity", "normal", "abnormal")
COLUMNS += ("not_assessed", "items", "data_digest", "commit", "command")
BEGIN, END = "<!-- table of scripts/studies/anomaly/whole_image_study.py -->", "<!-- end of the table -->"


def run(task: str, **settings: Any) -> str:
    """Run one task of ADFA as a user does, and return its command."""
    command = ["-m", "monai.bundle", "run", "--args_file", f"configs/args_adfa_{task}.yaml"]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    return f"python {' '.join(command)}"


def row_of(data: Path, name: str, kind: str, seed: int, flags: Sequence[str]) -> dict[str, Any]:
    """Train and evaluate once, and return the row."""
    resize = f"[{INPUTS[kind]},{INPUTS[kind]}]"
    extra = dict(zip(flags[::2], flags[1::2], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        common = {"dataset_dir": data / name, "seed": seed}
        command = run("train", **common, output_dir=out, resize=resize, tensorboard=False, **extra)
        run("evaluate", **common, model_dir=out, output_dir=out / "test", formats="[csv]")
        metrics = json.loads((out / "test" / "metrics.json").read_text())
        training = json.loads((out / "model.json").read_text())["training_set"]
    low, high = metrics["auroc_interval"]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        **{"set": name, "input": kind, "seed": seed, "auroc": metrics["auroc"], "low": low, "high": high},
        **{key: metrics.get(key, "") for key in ("sensitivity", "specificity")},
        **{"normal": metrics["negatives"], "abnormal": metrics["positives"]},
        "not_assessed": metrics.get("images_not_assessed", 0),
        "items": training["items"],
        "data_digest": training["digest"][:16],
        "commit": commit.stdout.strip(),
        "command": command.replace(str(data), "DATA").replace(str(out), "OUT"),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows that are there."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table: AUROC of each seed, its mean, and the difference of the two inputs."""
    lines = ["| set | seeds | crop of 224 from 256 | whole image | difference of the means |", "|---|---|---|---|---|"]
    for name in SETS:
        found = {
            kind: {r["seed"]: float(r["auroc"]) for r in rows if (r["set"], r["input"]) == (name, kind)}
            for kind in INPUTS
        }
        seeds = sorted({*map(str, found["whole"])} & {*map(str, found["crop"])})
        if not seeds:
            continue
        each = {kind: [value for seed, value in found[kind].items() if str(seed) in seeds] for kind in INPUTS}
        words = {kind: f"{statistics.mean(v):.3f} ({', '.join(f'{x:.3f}' for x in v)})" for kind, v in each.items()}
        difference = statistics.mean(each["whole"]) - statistics.mean(each["crop"])
        lines.append(f"| {name} | {', '.join(seeds)} | {words['crop']} | {words['whole']} | {difference:+.3f} |")
    return "\n".join(lines)


def write_page(page: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put the table between its marks on a page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table_of(rows)}\n{END}{after}")


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data sets; none only prints the table")
    parser.add_argument("--rows", type=Path, required=True, help="CSV of the rows, added to")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="default: %(default)s")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: %(default)s")
    parser.add_argument("--page", type=Path, help="page that holds the marks of the table")
    parser.add_argument("--flags", nargs="*", default=[], help="further KEY VALUE pairs of training, for a quick look")
    args = parser.parse_args()
    rows = read_rows(args.rows)
    done = {(row["set"], row["input"], int(row["seed"])) for row in rows}
    for seed in args.seeds if args.data else []:
        for name in args.sets:
            for kind in INPUTS:
                if (name, kind, seed) not in done:
                    rows.append(row_of(args.data.resolve(), name, kind, seed, args.flags))
                    write_rows(args.rows, rows)
                    print(f"{name} {kind} seed {seed}: AUROC {rows[-1]['auroc']:.3f}", flush=True)
    print(table_of(rows))
    if args.page:
        write_page(args.page, rows)


if __name__ == "__main__":
    main()
