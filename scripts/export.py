# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Export trained networks as TorchScript (.ts), torch.export (.pt2) and ONNX, beside their model.pt, and compare.

    python scripts/export.py --images DIR --model OUT [--model OUT ...]

Prints, for each family and format, the largest difference from the network itself on the images, read as inference
reads them, in batches of several sizes; the size of the file; and images a second on one CPU thread. Ends with 1 where
a difference is above --tolerance and twice that of the network itself between sizes of batches together: a distance
in whitened features of few images magnifies float32's rounding. An exported file runs with `--exported OUT/model.onnx`
after the inference command.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bundle.lists import find_images  # noqa: E402
from bundle.model import Model, load_model  # noqa: E402
from bundle.networks.exported import EXPORT_FORMATS, ExportedNetwork, can_export, export_network  # noqa: E402

OWN = "model.pt"  # the network itself, whose difference is that between sizes of batches
HEAD = ["family", "format", "largest difference", "of the largest output", "file, MB", "images/s"]


def read_images(model: Model, path: Path, number: int) -> torch.Tensor:
    """Return up to ``number`` images, evenly spaced in the list of all, as inference reads them, ``(B, C, H, W)``."""
    items, _ = find_images(str(path))
    chosen = items[:: max(1, len(items) // number)][:number]
    return torch.stack([model.preprocessed(item["image"]) for item in chosen])


def outputs(network: nn.Module, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Return the outputs of a network for images in batches."""
    with torch.no_grad():
        return torch.cat([network(batch) for batch in images.split(batch_size)])


def images_per_second(network: nn.Module, images: torch.Tensor, repeats: int) -> float:
    """Return the speed in batches of 8 by CPU time, which a busy machine disturbs least: the best of some rounds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        outputs(network, images, 8)
        times.append(time.process_time() - start)
    return len(images) / min(times)


def rows_of(model_dir: Path, args: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """Export one network in all formats and yield the table's rows."""
    model = load_model(model_dir, device="cpu")
    family, network, checkpoint = model.file.family, model.network.eval(), Path(model.file.weights)
    images = read_images(model, args.images, args.number)
    expected = outputs(network, images, 8)
    largest = expected.abs().max().item()
    for suffix in (OWN, *args.formats):
        path, runs = (checkpoint, network) if suffix == OWN else (model_dir / f"model{suffix}", None)
        if runs is None:
            export_network(network, path, images.shape[1:], checkpoint)
            runs = ExportedNetwork(path)
        difference = max((outputs(runs, images, size) - expected).abs().max().item() for size in (8, 3, 1))
        speed = images_per_second(runs, images, args.repeats)
        yield family, suffix, difference, difference / largest, path.stat().st_size / 1e6, speed


def main() -> None:
    """Parse the command line, export, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder of a trained model, of any family; repeatable",
    )
    parser.add_argument("--images", type=Path, required=True, help="file, folder or pattern")
    parser.add_argument("--number", type=int, default=24, help="images to compare on, evenly spaced, default 24")
    parser.add_argument("--formats", nargs="+", choices=EXPORT_FORMATS, default=list(EXPORT_FORMATS))
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="largest difference allowed, of the largest output, default 1e-5"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds of timing, default 5")
    args = parser.parse_args()
    if lacking := [suffix for suffix in args.formats if not can_export(suffix)]:
        remedy = "pip install 'attention-imaging-bundle[onnx]'"
        print(f"{', '.join(lacking)} left out, a package is missing: {remedy}", file=sys.stderr)
        args.formats = [suffix for suffix in args.formats if suffix not in lacking]
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    refused = ""
    for folder in args.model:
        allowed = args.tolerance
        for name, suffix, difference, share, size, speed in rows_of(folder, args):
            if suffix == OWN:
                allowed = args.tolerance + 2 * share
            elif share > allowed:
                refused = f"{name}{suffix} differs by {share:.1e} of the largest output, above {allowed:.1e}"
            print(f"| {name} | {suffix} | {difference:.1e} | {share:.1e} | {size:.1f} | {speed:.1f} |", flush=True)
    if refused:
        sys.exit(f"error: {refused}")


if __name__ == "__main__":
    main()
