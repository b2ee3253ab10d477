# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Train ADFA, evaluate it, and leave a report to open: on synthetic phantoms made here, or on your own images.

The network sees small images for a few epochs, so that it ends within minutes on two cores. For results worth having,
run the workflows as README.md says. Research use only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SYNTHETIC = "All images are synthetic phantoms made by software. They show no patient and prove nothing."


def run_workflow(task: str, **settings: Any) -> None:
    """Run one of the ADFA workflows with some settings of its configuration replaced."""
    from monai.bundle import run

    run(args_file=str(ROOT / "configs" / f"args_adfa_{task}.yaml"), **settings)


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
    """Make phantoms if there is no data set, train, evaluate, and print where the report is."""
    start = time.monotonic()
    notes = ["A short demonstration: small images, few epochs."]
    data = dataset_dir or output_dir / "phantoms"
    if dataset_dir is None:
        from bundle.synthetic.phantoms import write_phantoms

        print("making synthetic radiographs and ultrasound images ...", flush=True)
        write_phantoms(data)
        notes.insert(0, SYNTHETIC)
    check_has_test_images(data)
    shared = {
        "dataset_dir": str(data),
        "output_dir": str(output_dir),
    }
    # the phantoms are films and ultrasound images together
    run_workflow("train", max_epochs=epochs, image_size=[side, side], mixed_training=dataset_dir is None, **shared)
    title = "ADFA demonstration" + ("" if dataset_dir else " on synthetic phantoms")
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
