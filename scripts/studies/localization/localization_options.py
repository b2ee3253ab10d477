# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure what goes beyond the paper in localization: flips, an anomaly prior, atrous convolution, some boxes.

On the benchmarks of ``localization_study.py``, with EfficientNet-Lite0, against multi-scale maps trained alike:

- test-time flip: maps averaged with those of the mirrored image;
- anomaly prior: maps weighted by those of ADFA, whitened and centered on the normal training images, not trained;
- atrous: the last stage at twice the resolution;
- boxes: those of a quarter of the abnormal training images guide the maps (all other methods see image labels only).

    python scripts/studies/localization/localization_options.py busi DATA/busi_part --rows busi_options.jsonl
    python scripts/studies/localization/localization_options.py inserted DATA/covid19_xray --train_last \
        --rows inserted_options.jsonl
    python scripts/studies/localization/localization_study.py report --rows busi_options.jsonl inserted_options.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from localization_benchmarks import Benchmark, Sample, load_busi, load_inserted
from localization_study import FrozenTaps, as_items, normalized, raw_maps, rows_of, train
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from bundle.anomaly.adfa import ADFA
from bundle.anomaly.normals import Normals
from bundle.localization.box_attention import BoxAttentionLoss
from bundle.localization.boxes import box_coverage
from bundle.localization.heatmaps import prior_on_grid
from bundle.localization.msa import EfficientNetLiteMSA


@torch.no_grad()
def anomaly_maps(benchmark: Benchmark, size: int) -> torch.Tensor:
    """Return ADFA's maps ``(N, 1, h, w)`` of the test images, from the normal training images alone."""
    network = ADFA((size, size), descriptor_channels=0, epsilon=0.0, map_stride=8).eval()
    normals = [{"image": normalized(s)} for s in benchmark.train if not any(s.labels)]
    loader = DataLoader(Dataset(normals), batch_size=8)
    network.fit(Normals(loader))
    return torch.cat([network(normalized(sample)[None]) for sample in benchmark.test])


def with_coverage(samples: list[Sample], items: list[dict], side: int) -> list[dict]:
    """Return the items with what the boxes cover of each cell, ``(C, h, w)``; zeros for all but every fourth."""
    abnormal = [i for i, sample in enumerate(samples) if sample.boxes]
    chosen = set(abnormal[::4])
    out = []
    for i, (sample, item) in enumerate(zip(samples, items, strict=True)):
        coverage = torch.zeros(len(sample.labels), side, side)
        for c, boxes in sample.boxes.items() if i in chosen else ():
            coverage[c] = box_coverage(boxes.float(), sample.image.shape, (side, side))
        out.append({**item, "coverage": coverage})
    return out


def guide(trainer: SupervisedTrainer, weight: float) -> None:
    """Add the box loss, as ``bundle.localization.BoxSupervision`` does for images that are read from files."""

    def add(engine: Any) -> None:
        coverage, maps = engine.state.batch["coverage"], engine.state.output[CommonKeys.PRED]
        chosen = coverage.flatten(2).any(dim=2)
        engine.state.output[CommonKeys.LOSS] += weight * BoxAttentionLoss()(maps[chosen], coverage[chosen])

    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, add)


class Atrous(FrozenTaps):
    """The same with the last stage at the resolution of the stage before."""

    def __init__(self, classes: int, args: argparse.Namespace) -> None:
        super().__init__(classes, args)
        self.whole = EfficientNetLiteMSA(classes, atrous=True).eval()
        self.last_side = self.side


def run(name: str, benchmark: Benchmark, path: Path, args: argparse.Namespace) -> None:
    """Train and measure for every seed that ``path`` does not hold yet."""
    done = {json.loads(line)["seed"] for line in path.read_text().splitlines()} if path.exists() else set()
    classes = len(benchmark.classes)
    plain, atrous = FrozenTaps(classes, args), Atrous(classes, args)
    items, test = as_items(benchmark.train, plain), as_items(benchmark.test, plain)
    mirrored = as_items([s._replace(image=s.image[:, ::-1].copy()) for s in benchmark.test], plain)
    wide_items, wide_test = as_items(benchmark.train, atrous), as_items(benchmark.test, atrous)
    boxed = with_coverage(benchmark.train, items, plain.side)
    prior = prior_on_grid(anomaly_maps(benchmark, args.size), (plain.side, plain.side))
    for seed in range(args.seeds):
        if seed in done:
            continue
        rows: dict[str, list[dict]] = {}
        for trunk, data, tested in ((plain, items, test), (atrous, wide_items, wide_test)):
            torch.manual_seed(seed)
            cam = trunk.network(aggregate=False)
            train(cam, data, args.epochs[0], args.rate)
            msa = trunk.network(aggregate=True, start=cam)
            state = torch.get_rng_state()
            train(msa, data, args.epochs[1], args.rate)
            raw = raw_maps(msa, tested)
            if trunk is atrous:
                rows["atrous"] = rows_of(raw, benchmark)
                continue
            rows["MSA"] = rows_of(raw, benchmark)
            rows["test-time flip"] = rows_of((raw + raw_maps(msa, mirrored).flip(-1)) / 2, benchmark)
            rows["anomaly prior"] = rows_of(raw, benchmark, prior=prior)
            for weight in args.box_weights:
                torch.set_rng_state(state)
                guided = trunk.network(aggregate=True, start=cam)
                train(guided, boxed, args.epochs[1], args.rate, attach=partial(guide, weight=weight))
                rows[f"boxes of a quarter, weight {weight}"] = rows_of(raw_maps(guided, test), benchmark)
        with path.open("a") as file:  # a seed is written whole
            for method, found in rows.items():
                for row in found:
                    file.write(json.dumps({"benchmark": name, "seed": seed, "method": method, **row}) + "\n")
        print(f"{name}, seed {seed}", flush=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=["busi", "inserted"])
    parser.add_argument("folder", type=Path, help="the benchmark's images")
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines file of the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="side of the square, a multiple of 16")
    parser.add_argument("--epochs", type=int, nargs=2, default=(12, 8), help="of CAM and MSA")
    parser.add_argument("--train_last", action="store_true", help="train the last stage too")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of Adam")
    parser.add_argument("--box_weights", type=float, nargs="+", default=[0.1], help="of the box loss")
    args = parser.parse_args()
    logging.getLogger("ignite").setLevel(logging.WARNING)
    load = {"busi": load_busi, "inserted": load_inserted}[args.benchmark]
    run(args.benchmark, load(args.folder, args.size), args.rows, args)


if __name__ == "__main__":
    main()
