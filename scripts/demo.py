# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Answer real films with the shipped models, then train ADFA, evaluate it, and leave reports to open.

The films are of the patients of models/demo_patients.csv, who took no part in training. The training is on synthetic
ultrasound made here, or on your own images, which take the place of both. Its network sees small images for a few
epochs, so that it ends within minutes on two cores. For results worth having, run the workflows as README.md says.
Research use only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILMS = ROOT / "models/demo_films"
SOURCE = "Films of NIH ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017), patients' names invented."
SHIPPED = {"adfa": "chest_xray_anomaly", "sna": "chest_xray_findings", "msa": "chest_xray_localization"}
SYNTHETIC = "All images are synthetic phantoms made by software. They show no patient and prove nothing."


def run_workflow(task: str, family: str = "adfa", **settings: Any) -> None:
    """Run one of a family's workflows with some settings of its configuration replaced."""
    from monai.bundle import run

    run(args_file=str(ROOT / "configs" / f"args_{family}_{task}.yaml"), **settings)


def labels_of_films() -> str:
    """Return what NIH's labels say of the films, so that a report shows misses as well."""
    with (ROOT / "models/demo_patients.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    findings = list(rows[0])[list(rows[0]).index("no_finding") + 1 :]
    found = {Path(row["image"]).stem: [name for name in findings if row[name] == "1"] for row in rows}
    listed = "; ".join(f"{film} {', '.join(names)}" for film, names in found.items() if names)
    return f"NIH's labels: {listed}; no finding in the other {sum(not names for names in found.values())} films."


def answer_films(output_dir: Path) -> None:
    """Let each shipped model answer the films of the demo patients, and print where its report is."""
    for family, name in SHIPPED.items():
        out = output_dir / name
        card = f"Answered by the shipped model {name}, a baseline (models/{name}/README.md)."
        notes = [card, SOURCE, labels_of_films()]
        films = {"input": str(FILMS), "model_dir": name, "output_dir": str(out)}
        run_workflow("inference", family, **films, title=f"Real films, {name}", notes=notes)
        print(f"\nreport: {os.path.relpath(out / 'report.html')}, of real films\n", flush=True)


def check_has_test_images(data: Path) -> None:
    """End with one line, before minutes of training, where nothing could be evaluated."""
    from bundle.lists import AnomalyDataList

    try:
        test = AnomalyDataList(data).test
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if not test:
        sys.exit(
            f"error: '{data.name}' has no test images; use folders train/good, test/good and test/<anything else>."
        )


def demonstrate(output_dir: Path, dataset_dir: Path | None, epochs: int, side: int) -> None:
    """Answer films and make phantoms if there is no data set, train, evaluate, and print where the report is."""
    start = time.monotonic()
    notes = ["A short demonstration: small images, few epochs."]
    data = dataset_dir or output_dir / "phantoms"
    if dataset_dir is None:
        from bundle.synthetic.phantoms import write_phantoms

        answer_films(output_dir)
        print("making synthetic ultrasound images ...", flush=True)
        write_phantoms(data, kinds=("us",), training=30)
        notes.insert(0, SYNTHETIC)
    check_has_test_images(data)
    shared = {
        "dataset_dir": str(data),
        "output_dir": str(output_dir),
    }
    run_workflow("train", max_epochs=epochs, image_size=[side, side], **shared)
    title = "ADFA demonstration" + ("" if dataset_dir else " on synthetic ultrasound")
    run_workflow("evaluate", title=title, notes=notes, **shared)
    metrics = json.loads((output_dir / "metrics.json").read_text())
    print(f"\nreport: {os.path.relpath(output_dir / 'report.html')} ({time.monotonic() - start:.0f} s)")
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        print(f"AUROC: {metrics['auroc']:.3f} (95 % interval {low:.3f} to {high:.3f})")
    else:
        print(metrics["note"])
    print(SYNTHETIC if dataset_dir is None else "Research use only. Not for diagnosis.")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_output"), help="default: %(default)s")
    parser.add_argument("--dataset_dir", type=Path, help="folder, CSV or JSON list of images; default: phantoms")
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--side", type=int, default=160, help="of the square the network sees, default: %(default)s")
    args = parser.parse_args()
    if args.dataset_dir is not None and not args.dataset_dir.exists():
        sys.exit(f"error: dataset_dir must be an existing folder, CSV or JSON file, got '{args.dataset_dir}'.")
    data = args.dataset_dir and args.dataset_dir.resolve()
    demonstrate(args.output_dir.resolve(), data, args.epochs, args.side)


if __name__ == "__main__":
    main()
