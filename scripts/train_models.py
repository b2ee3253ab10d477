# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Train a shipped model anew: from the data folder to ``models/NAME``, by the commands that a user types.

    python scripts/train_models.py chest_xray_anomaly --data DATA
    python scripts/train_models.py chest_xray_anomaly --data DATA --output_dir OUT

``models/models.yaml`` says what each model is. The patients of ``models/demo_patients.csv`` take no part. The folder
has the compact weights, ``model.json``, the calibration where the family has one, and ``training_images.csv.gz``: name,
patient, fold, split and SHA-256 of every film that the training was given. Research use only.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts/studies")]

from run_study import commit_of, device_name, trained  # noqa: E402
from set_parts import SHIPPED, Chosen, demo_patients  # noqa: E402
from study_sets import dataset_flags  # noqa: E402

from bundle.files import atomic_path, file_sha256  # noqa: E402
from bundle.lists.csv_files import read_rows  # noqa: E402
from bundle.model.compact import THREE_DIGITS, compact_model  # noqa: E402

REGISTRY = ROOT / "models/models.yaml"
COLUMNS = ("image", "patient", "fold", "split", "sha256")
COMPARED = 80  # training films whose scores decide about half precision


def entry_of(name: str, registry: Path = REGISTRY) -> dict[str, Any]:
    """Return what the registry says of a model."""
    known = yaml.safe_load(registry.read_text(encoding="utf-8"))
    if name not in known:
        raise SystemExit(f"error: NAME must be one of {', '.join(known)}, got '{name}'")
    return known[name]


def training_films(chosen: Chosen, data: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield path and row of each film that a set gives to training, or to the validation of it."""
    table = Path(str(chosen.both.get("labels_csv", chosen.both["dataset_dir"])))
    folder = Path(str(chosen.both["dataset_dir"])) if "labels_csv" in chosen.both else table.parent
    manifest = data / "nih_part/manifest.csv"
    folds = {row["image"]: row["fold"] for _, row in read_rows(manifest)[1]} if manifest.is_file() else {}
    for _, row in read_rows(table)[1]:
        if row.get("split") != "test":
            path = folder / row["image"]
            fold = folds.get(path.name, "")
            kept = {"patient": row.get("patient", ""), "fold": fold, "split": row.get("split", "")}
            yield path, {"image": path.name, **kept, "sha256": file_sha256(path)}


def write_films(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a compressed table; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_path(path) as partial:
        partial.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def train(name: str, data: Path, output_dir: Path, work: Path, registry: Path = REGISTRY) -> str:
    """
    Train a model and write its folder.

    Args:
        name: of the registry.
        data: folder of all data sets.
        output_dir: of the model.
        work: folder for tables and the weights as they were trained.
        registry: what each model is.

    Returns:
        a line that says what was done.
    """
    started, entry = time.monotonic(), entry_of(name, registry)
    family, seed = entry["family"], entry.get("seed", 0)
    chosen = dataset_flags(family, entry["set"], data, work, SHIPPED)
    films = list(training_films(chosen, data))
    if shown := sorted({row["patient"] for _, row in films} & demo_patients()):
        raise SystemExit(f"error: '{name}': demo patients must take no part in training, patient {shown[0]} does")
    settings = {key: entry[key] for key in ("config", "phases") if key in entry}
    study = {"family": family, "phases": {}}
    flags = {"seed": seed, **chosen.both, **chosen.train, **entry.get("flags", {}), "tensorboard": False}
    folder, _ = trained(study, settings, flags, work, work / name, chosen.evaluate.get("boxes_path", ""))
    compared = [path for path, _ in films[:: -(-len(films) // COMPARED)]]
    half, difference = compact_model(folder, output_dir, compared, entry.get("tolerance", THREE_DIGITS))
    write_films(output_dir / "training_images.csv.gz", [row for _, row in films])
    size = (output_dir / "model.pt").stat().st_size
    kind = "half precision" if half else "float32"
    patients = {row["patient"] for _, row in films} - {""}
    of_patients = f" of {len(patients)} patients" if patients else ""
    return (
        f"{name}: {len(films)} images{of_patients}, {size / 1e6:.2f} MB in "
        f"{kind}, scores within {difference:.1g}; seed {seed}, commit {commit_of(ROOT)}, {device_name()}, "
        f"{(time.monotonic() - started) / 60:.1f} minutes"
    )


def main() -> None:
    """Parse the command line, train, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a model of models/models.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output_dir", type=Path, help="of the model; default: models/NAME")
    parser.add_argument("--work", type=Path, help="keeps tables and what was trained; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        print(train(args.name, args.data.resolve(), args.output_dir or ROOT / "models" / args.name, work))


if __name__ == "__main__":
    main()
