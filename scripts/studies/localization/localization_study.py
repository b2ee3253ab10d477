# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure localization from image labels alone: plain maps, multi-scale maps, and attention mining.

Two benchmarks (``localization_benchmarks.py``). By default on the taps of EfficientNet-Lite0 with its packaged ImageNet
weights, computed once: trained is everything above them, the aggregation and the class branches, and with
``--train_last`` the last stage too. With ``--trunk resnet18`` the whole network is trained, from ``--weights``, a
torchvision-format state dict, or without it from a random start.

- ``busi``: breast ultrasound (folders normal, benign, malignant, masks). Three branches, lesion, benign and malignant;
  the masks' boxes serve for evaluation only; a fixed split by image, 60 % for training.
- ``inserted``: real normal radiographs with *inserted* lesions (nodule, mass, effusion-like opacity) of known place.

Rows are appended to a JSON lines file as they finish; started again, the script goes on where it was.

    python scripts/studies/localization/localization_study.py busi DATA/busi_part --rows busi.jsonl
    python scripts/studies/localization/localization_study.py inserted DATA/covid19_xray --rows inserted.jsonl
    python scripts/studies/localization/localization_study.py busi DATA/busi_part --trunk resnet18 --size 128 \
        --epochs 30 10 2 --rate 3e-4 --rows r18.jsonl
    python scripts/studies/localization/localization_study.py report --rows busi.jsonl inserted.jsonl r18.jsonl
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Events
from localization_benchmarks import Benchmark, Sample, load_busi, load_inserted
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from sklearn.metrics import roc_auc_score
from torch import nn

from bundle.localization.boxes import boxes_from_heatmaps
from bundle.localization.erasure import erased_logits
from bundle.localization.heatmaps import mined_heatmaps
from bundle.localization.metrics import (
    compute_localization_accuracy,
    compute_mean_iou,
    compute_pointing_game,
)
from bundle.localization.mining import AttentionMiningHandler
from bundle.localization.msa import EfficientNetLiteMSA, ResNetMSA
from bundle.localization.preservation import KnowledgePreservationLoss

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
STEPS = 3
PENULTIMATE, LAST = 112, 320  # channels of the two taps
MODES = ("none", "vanilla", "full")  # of knowledge preservation


class Head(nn.Module):
    """
    The part of the network above the taps, on both taps packed into one tensor.

    Args:
        whole: the network whose aggregation and class branches it has.
        sides: rows and columns of the penultimate and of the last tap, which are square.
        start: whose last stage it takes over and trains; ``None`` leaves the last tap as packed.
    """

    def __init__(self, whole: EfficientNetLiteMSA, sides: tuple[int, int], start: nn.Module | None = None) -> None:
        super().__init__()
        self.aggregation, self.classifier, self.sides = whole.aggregation, whole.classifier, sides
        self.last = None if start is None else copy.deepcopy(start.last)
        self.fixed_statistics = False  # of the batches; while mining they stay those of the frozen copy

    def train(self, mode: bool = True) -> Head:
        """Switch the mode, but for fixed statistics."""
        super().train(mode)
        for module in self.modules() if self.fixed_statistics else ():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class activation maps of packed taps, shape ``(B, C, h, w)``."""
        large, small = self.sides
        penultimate, last = x.split([PENULTIMATE * large**2, LAST * small**2], dim=1)
        penultimate, last = (
            penultimate.unflatten(1, (PENULTIMATE, large, large)),
            last.unflatten(1, (LAST, small, small)),
        )
        return self.classifier(self.aggregation(penultimate, last if self.last is None else self.last(penultimate)))


def normalized(sample: Sample) -> torch.Tensor:
    """Return an image as pretrained networks expect it, shape ``(3, S, S)``."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (torch.from_numpy(sample.image)[None].repeat(3, 1, 1) - mean[:, None, None]) / deviation[:, None, None]


class FrozenTaps:
    """EfficientNet-Lite0 up to its taps, computed once; networks are what stands above them."""

    def __init__(self, classes: int, args: argparse.Namespace) -> None:
        self.whole = EfficientNetLiteMSA(classes).eval()
        self.classes, self.train_last = classes, args.train_last
        self.side = -(-args.size // 16)
        self.last_side = (self.side + 1) // 2

    @torch.no_grad()
    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Return the packed pair of taps of ``(1, 3, S, S)``, as one vector."""
        penultimate = self.whole.penultimate(self.whole.shallow(images))
        return torch.cat([penultimate.flatten(), self.whole.last(penultimate).flatten()])

    def network(self, aggregate: bool, start: nn.Module | None = None) -> nn.Module:
        """Return a new network, with the last stage of ``start``."""
        whole = EfficientNetLiteMSA(self.classes, aggregate=aggregate)
        return Head(whole, (self.side, self.last_side), (start or self.whole) if self.train_last else None)


class TrainedTrunk:
    """The whole network is trained, ResNet-18 from the weights of ``args`` or from a random start."""

    def __init__(self, classes: int, args: argparse.Namespace) -> None:
        self.classes, self.weights = classes, args.weights

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Return the image of ``(1, 3, S, S)``."""
        return images[0]

    def network(self, aggregate: bool, start: nn.Module | None = None) -> nn.Module:
        """Return a new network, with the three stages of ``start``."""
        network = ResNetMSA(self.classes, "resnet18", weights=self.weights, aggregate=aggregate)
        for stage in ("shallow", "penultimate", "last") if start is not None else ():
            network.get_submodule(stage).load_state_dict(start.get_submodule(stage).state_dict())
        return network


def as_items(samples: list[Sample], trunk: FrozenTaps | TrainedTrunk) -> list[dict]:
    """Return data list items of what the trunk's networks take."""
    return [
        {"image": trunk.inputs(normalized(s)[None]), "label": torch.tensor(s.labels), "key": s.key} for s in samples
    ]


def train(
    network: nn.Module,
    items: list[dict],
    epochs: int,
    rate: float,
    mode: str | None = None,
    measure: Callable[[int], None] | None = None,
    attach: Callable[[SupervisedTrainer], None] | None = None,
) -> None:
    """Train in place with a stock trainer; with a mode of knowledge preservation, mine, ``epochs`` epochs a step."""
    layers = ("aggregation", "classifier") if network.last is None else ("last", "aggregation", "classifier")  # Eq. 5
    loss = KnowledgePreservationLoss(network, layers, mode or "none")
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs * (STEPS if mode else 1),
        train_data_loader=DataLoader(Dataset(items), batch_size=16, shuffle=True, drop_last=True),
        network=network,
        optimizer=torch.optim.Adam([p for p in network.parameters() if p.requires_grad], rate),
        loss_function=loss,
        decollate=False,
    )
    if mode:
        miner = AttentionMiningHandler(network, DataLoader(Dataset(items), batch_size=32), loss, STEPS, epochs)
        miner.attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=epochs), lambda: measure(len(miner.bank.masks)))
    if attach:
        attach(trainer)
    trainer.run()


@torch.no_grad()
def raw_maps(network: nn.Module, items: list[dict]) -> torch.Tensor:
    """Return the class activation maps of all items."""
    network.eval()
    return torch.cat([network(batch["image"]) for batch in DataLoader(Dataset(items), batch_size=32)])


def rows_of(raw: torch.Tensor, benchmark: Benchmark, steps: int = 1, prior: torch.Tensor | None = None) -> list[dict]:
    """Return one row of metrics for each class of the test images, from maps mined in ``steps`` steps at inference."""
    size = benchmark.test[0].image.shape
    # as the inferer does
    probability, (_, _, heatmap) = erased_logits(raw).sigmoid(), mined_heatmaps(raw, steps, prior=prior)
    boxes, scores = boxes_from_heatmaps(heatmap, size)
    enlarged = F.interpolate(heatmap, scale_factor=4.0, mode="bilinear")
    cell = size[0] / enlarged.shape[-1]
    flat = enlarged.flatten(2).argmax(dim=-1)  # (N, C)
    points = torch.stack([flat % enlarged.shape[-1], flat // enlarged.shape[-1]], dim=-1) * cell + cell / 2
    rows = []
    for c, name in enumerate(benchmark.classes):
        chosen = [i for i, sample in enumerate(benchmark.test) if c in sample.boxes]
        truths = [benchmark.test[i].boxes[c] for i in chosen]
        found = [boxes[i, c][scores[i, c] > 0] for i in chosen]
        accuracy = compute_localization_accuracy(found, truths, THRESHOLDS)
        rows.append(
            {
                "class": name,
                "images": len(chosen),
                **{f"acc@{t}": accuracy[t].accuracy for t in THRESHOLDS},
                **{f"afp@{t}": accuracy[t].average_false_positives for t in THRESHOLDS},
                "mean_iou": compute_mean_iou(found, truths),
                "pointing": compute_pointing_game(points[chosen, c], truths),
                "auroc": roc_auc_score([s.labels[c] for s in benchmark.test], probability[:, c]),
            }
        )
    return rows


def run(name: str, benchmark: Benchmark, path: Path, args: argparse.Namespace) -> None:
    """Train and measure every method for every seed that ``path`` does not hold yet."""
    done = (
        {(r["seed"], r["method"]) for r in map(json.loads, path.read_text().splitlines())} if path.exists() else set()
    )
    trunk = (TrainedTrunk if args.trunk == "resnet18" else FrozenTaps)(len(benchmark.classes), args)
    items, test = as_items(benchmark.train, trunk), as_items(benchmark.test, trunk)

    def record(seed: int, method: str, network: nn.Module, steps: int) -> None:
        if (seed, method) in done:
            return
        with path.open("a") as file:
            for row in rows_of(raw_maps(network, test), benchmark, steps):
                file.write(json.dumps({"benchmark": name, "seed": seed, "method": method, **row}) + "\n")
        print(f"{name}, seed {seed}: {method}", flush=True)

    def record_step(seed: int, mode: str, network: nn.Module, steps: int) -> None:
        record(seed, f"{mode} t={steps}", network, steps)

    methods = ["CAM", "MSA", *(f"{mode} t={STEPS}" for mode in MODES)]
    for seed in range(args.seeds):
        if all((seed, method) in done for method in methods):
            continue
        torch.manual_seed(seed)
        cam = trunk.network(aggregate=False)
        train(cam, items, args.epochs[0], args.rate)
        record(seed, "CAM", cam, 1)
        msa = trunk.network(aggregate=True, start=cam)
        train(msa, items, args.epochs[1], args.rate)
        for steps in range(1, STEPS + 1):
            record(seed, "MSA" if steps == 1 else f"MSA, T={steps} at inference", msa, steps)
        for mode in MODES:
            if (seed, f"{mode} t={STEPS}") not in done:
                torch.manual_seed(100 + seed)
                mined = copy.deepcopy(msa)
                mined.fixed_statistics = True
                train(mined, items, args.epochs[2], 0.3 * args.rate, mode, partial(record_step, seed, mode, mined))


def report(paths: list[Path]) -> None:
    """Print one Markdown table for each benchmark: mean and standard deviation over the seeds, all classes together."""
    columns = [f"acc@{t}" for t in THRESHOLDS] + ["afp@0.3", "mean_iou", "pointing", "auroc"]
    for path in paths:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for kind in [None, *dict.fromkeys(row["class"] for row in rows)]:
            groups: dict[str, dict[int, list[dict]]] = defaultdict(lambda: defaultdict(list))
            for row in rows:
                if kind in (None, row["class"]):
                    groups[row["method"]][row["seed"]].append(row)
            print(f"\n{rows[0]['benchmark']}, {kind or 'mean over the classes'}\n")
            print("| method | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
            for method, seeds in groups.items():
                values = np.array([[np.mean([r[c] for r in seed]) for c in columns] for seed in seeds.values()])
                cells = [f"{m:.2f} ± {d:.2f}" for m, d in zip(values.mean(axis=0), values.std(axis=0), strict=True)]
                print(f"| {method} | " + " | ".join(cells) + " |")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "benchmark", choices=["busi", "inserted", "report"], help="report prints the tables of all rows"
    )
    parser.add_argument("folder", nargs="?", type=Path, help="the benchmark's images")
    parser.add_argument("--rows", nargs="+", type=Path, required=True, help="JSON lines file of the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="side of the square the images are resized to")
    parser.add_argument("--epochs", type=int, nargs=3, default=(12, 8, 2), help="of CAM, MSA and each mining step")
    parser.add_argument("--trunk", choices=["efficientnet_lite0", "resnet18"], default="efficientnet_lite0")
    parser.add_argument("--train_last", action="store_true", help="train the last stage of EfficientNet-Lite0 too")
    parser.add_argument("--weights", help="of ResNet-18, a torchvision-format state dict; none for a random start")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of Adam")
    args = parser.parse_args()
    logging.getLogger("ignite").setLevel(logging.WARNING)
    if args.benchmark == "report":
        report(args.rows)
    else:
        load = {"busi": load_busi, "inserted": load_inserted}[args.benchmark]
        benchmark = load(args.folder, args.size)
        run(args.benchmark, benchmark, args.rows[0], args)


if __name__ == "__main__":
    main()
