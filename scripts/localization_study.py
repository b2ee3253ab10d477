# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure localization from image labels alone: plain maps, multi-scale maps, and attention mining.

Two benchmarks, each on EfficientNet-Lite0 with its packaged ImageNet weights; the stages to the first tap of stride 16
are frozen and their features computed once, the last stage and everything above it are trained:

- ``busi``: breast ultrasound (folders normal, benign, malignant, masks). Three branches, lesion, benign and malignant;
  the masks' boxes serve for evaluation only; a fixed split by image, 60 % for training.
- ``inserted``: real normal radiographs with *inserted* lesions (nodule, mass, effusion-like opacity) of known place.

Rows are appended to a JSON lines file as they finish; started again, the script goes on where it was.

    python scripts/localization_study.py busi DATA/busi_part --rows busi.jsonl
    python scripts/localization_study.py inserted DATA/covid19_xray --rows inserted.jsonl
    python scripts/localization_study.py report --rows busi.jsonl inserted.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from bundle.data.boxes import box_of_mask
from bundle.data.inserted_lesions import INSERTED_KINDS, insert_lesion
from bundle.handlers.attention_mining import AttentionMiningHandler
from bundle.inferers.attention_mining import AttentionMiningInferer
from bundle.losses.knowledge_preservation import KnowledgePreservationLoss
from bundle.metrics.localization import (
    compute_localization_accuracy,
    compute_max_box_accuracy,
    compute_mean_iou,
    compute_pointing_game,
)
from bundle.networks.nets.msa_resnet import EfficientNetLiteMSA

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
STEPS = 3
MODES = ("none", "vanilla", "full")  # of knowledge preservation


class Sample(NamedTuple):
    """One image on the network's pixel grid, its labels, and boxes that only the evaluation sees."""

    key: str
    image: np.ndarray  # (S, S), 0..1
    labels: list[float]
    boxes: dict[int, torch.Tensor]  # class: (M, 4)


class Benchmark(NamedTuple):
    """Training and test samples of the named classes."""

    classes: tuple[str, ...]
    train: list[Sample]
    test: list[Sample]


def load_gray(path: Path, size: int) -> np.ndarray:
    """Read a picture as display values 0..1, resized to a square; boxes keep their overlaps under that stretch."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255


def load_busi(folder: Path, size: int) -> Benchmark:
    """Read the breast ultrasound images; the split is fixed by image and stratified by label."""
    train, test = [], []
    for kind in ("normal", "benign", "malignant"):
        paths = sorted((folder / kind).glob("*.png"))
        random.Random(0).shuffle(paths)
        for i, path in enumerate(paths):
            labels = [float(kind != "normal"), float(kind == "benign"), float(kind == "malignant")]
            with Image.open(path) as picture:
                scale = torch.tensor([size / picture.width, size / picture.height] * 2)
            masks = [box_of_mask(m) * scale for m in sorted((folder / "masks").glob(f"{path.stem}_*.png"))]
            boxes = {c: torch.stack(masks) for c in range(3) if labels[c]}
            part = train if i < round(0.6 * len(paths)) else test
            part.append(Sample(path.stem, load_gray(path, size), labels, boxes))
    return Benchmark(("lesion", "benign", "malignant"), train, test)


def load_inserted(folder: Path, size: int, repeats: int = 2) -> Benchmark:
    """Insert a lesion of each kind into every normal radiograph, once for training, ``repeats`` times for the test."""
    parts: dict[str, list[Sample]] = {"train": [], "test": []}
    for part, times in (("train", 1), ("test", repeats)):
        for i, path in enumerate(sorted((folder / part / "NORMAL").iterdir())):
            image = load_gray(path, size)
            parts[part].append(Sample(f"{part}{i}_normal", image, [0.0] * len(INSERTED_KINDS), {}))
            for c, kind in enumerate(INSERTED_KINDS):
                for repeat in range(times):
                    rng = np.random.default_rng([part == "test", i, c, repeat])
                    inserted, box = insert_lesion(image, kind, rng)
                    labels = [float(k == kind) for k in INSERTED_KINDS]
                    boxes = {c: torch.from_numpy(box)[None]}
                    parts[part].append(Sample(f"{part}{i}_{kind}_{repeat}", inserted, labels, boxes))
    return Benchmark(INSERTED_KINDS, parts["train"], parts["test"])


@torch.no_grad()
def with_features(samples: list[Sample], trunk: nn.Module) -> list[dict]:
    """Return data list items whose image is the frozen feature map of the penultimate stage, computed once."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    items = []
    for sample in samples:
        image = (torch.from_numpy(sample.image)[None].repeat(3, 1, 1) - mean[:, None, None]) / deviation[:, None, None]
        items.append({"image": trunk(image[None])[0], "label": torch.tensor(sample.labels), "key": sample.key})
    return items


def make_network(num_classes: int, start: nn.Module | None = None, **kwargs: Any) -> nn.Module:
    """Return the network that starts where the cached features end, with what ``start`` has of it."""
    network = EfficientNetLiteMSA(num_classes, **kwargs)
    network.shallow, network.penultimate = nn.Identity(), nn.Identity()
    network.to(memory_format=torch.channels_last)  # a third faster on a CPU
    if start is not None:
        own = network.state_dict()
        network.load_state_dict(
            {k: v for k, v in start.state_dict().items() if k in own and v.shape == own[k].shape}, False
        )
    return network


def train(
    network: nn.Module,
    items: list[dict],
    epochs: int,
    rate: float,
    mode: str | None = None,
    measure: Callable[[int], None] | None = None,
) -> None:
    """Train in place with a stock trainer; with a mode of knowledge preservation, mine, ``epochs`` epochs a step."""
    loss = KnowledgePreservationLoss(network, ("last", "aggregation", "classifier"), mode or "none")
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
    trainer.run()


@torch.no_grad()
def evaluate(network: nn.Module, benchmark: Benchmark, items: list[dict], steps: int) -> list[dict]:
    """Return one row of figures for each class of the test images, from maps mined in ``steps`` steps at inference."""
    network.eval()
    size = benchmark.test[0].image.shape
    inferer = AttentionMiningInferer(steps)
    batches = [torch.stack([x["image"] for x in items[i : i + 32]]) for i in range(0, len(items), 32)]
    results = [inferer(batch, network) for batch in batches]
    out = {k: torch.cat([r[k] for r in results]) for k in ("probability", "heatmap", "boxes", "scores")}
    boxes, scores = out["boxes"] * (size[0] / items[0]["image"].shape[-1]), out["scores"]
    enlarged = F.interpolate(out["heatmap"], scale_factor=4.0, mode="bilinear")
    cell = size[0] / enlarged.shape[-1]
    flat = enlarged.flatten(2).argmax(dim=-1)  # (N, C)
    points = torch.stack([flat % enlarged.shape[-1], flat // enlarged.shape[-1]], dim=-1) * cell + cell / 2
    rows = []
    for c, name in enumerate(benchmark.classes):
        chosen = [i for i, sample in enumerate(benchmark.test) if c in sample.boxes]
        truths = [benchmark.test[i].boxes[c] for i in chosen]
        found = [boxes[i, c][scores[i, c] > 0] for i in chosen]
        accuracy = compute_localization_accuracy(found, truths, THRESHOLDS)
        fits = compute_max_box_accuracy([enlarged[i, c].numpy() for i in chosen], [t / cell for t in truths])
        rows.append(
            {
                "class": name,
                "images": len(chosen),
                **{f"acc@{t}": accuracy[t].accuracy for t in THRESHOLDS},
                **{f"afp@{t}": accuracy[t].average_false_positives for t in THRESHOLDS},
                "mean_iou": compute_mean_iou(found, truths),
                "pointing": compute_pointing_game(points[chosen, c], truths),
                "max_box_acc": float(np.mean(list(fits.values()))),
                "auroc": roc_auc_score([s.labels[c] for s in benchmark.test], out["probability"][:, c]),
            }
        )
    return rows


def run(
    name: str, benchmark: Benchmark, path: Path, seeds: int, epochs: tuple[int, int, int, int], rate: float
) -> None:
    """Train and measure every method for every seed that ``path`` does not hold yet."""
    done = (
        {(r["seed"], r["method"]) for r in map(json.loads, path.read_text().splitlines())} if path.exists() else set()
    )
    classes = len(benchmark.classes)
    whole = EfficientNetLiteMSA(classes).eval()
    trunk = nn.Sequential(whole.shallow, whole.penultimate)
    items, test = with_features(benchmark.train, trunk), with_features(benchmark.test, trunk)

    def record(seed: int, method: str, network: nn.Module, steps: int) -> None:
        if (seed, method) in done:
            return
        with path.open("a") as file:
            for row in evaluate(network, benchmark, test, steps):
                file.write(json.dumps({"benchmark": name, "seed": seed, "method": method, **row}) + "\n")
        print(f"{name}, seed {seed}: {method}", flush=True)

    def record_step(seed: int, mode: str, network: nn.Module, steps: int) -> None:
        record(seed, f"{mode} t={steps}", network, steps)

    methods = ["CAM", "MSA", *(f"{mode} t={STEPS}" for mode in MODES)]
    for seed in range(seeds):
        if all((seed, method) in done for method in methods):
            continue
        torch.manual_seed(seed)
        cam = make_network(classes, aggregate=False)
        train(cam, items, epochs[0], rate)
        record(seed, "CAM", cam, 1)
        head = make_network(classes, start=cam, frozen=("last",))
        train(head, items, epochs[1], 3 * rate)
        msa = make_network(classes, start=head)
        train(msa, items, epochs[2], rate)
        for steps in range(1, STEPS + 1):
            record(seed, "MSA" if steps == 1 else f"MSA, T={steps} at inference", msa, steps)
        for mode in MODES:
            if (seed, f"{mode} t={STEPS}") not in done:
                torch.manual_seed(100 + seed)
                mined = make_network(classes, start=msa, fixed_statistics=True)
                train(mined, items, epochs[3], 0.3 * rate, mode, partial(record_step, seed, mode, mined))


def report(paths: list[Path]) -> None:
    """Print one Markdown table for each benchmark: mean and standard deviation over the seeds, all classes together."""
    columns = [f"acc@{t}" for t in THRESHOLDS] + ["afp@0.3", "mean_iou", "pointing", "max_box_acc", "auroc"]
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
    parser.add_argument("--size", type=int, default=192, help="side of the square the images are resized to")
    parser.add_argument(
        "--epochs", type=int, nargs=4, default=(6, 1, 3, 1), help="CAM, MSA head, MSA, each mining step"
    )
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of Adam")
    args = parser.parse_args()
    logging.getLogger("ignite").setLevel(logging.WARNING)
    if args.benchmark == "report":
        report(args.rows)
    else:
        load = {"busi": load_busi, "inserted": load_inserted}[args.benchmark]
        benchmark = load(args.folder, args.size)
        run(args.benchmark, benchmark, args.rows[0], args.seeds, tuple(args.epochs), args.rate)


if __name__ == "__main__":
    main()
