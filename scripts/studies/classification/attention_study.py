# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Compare the attention blocks on real images: same data, seeds and training for all, only the block differs.

Two settings: ResNet-18 from scratch, and EfficientNet-Lite0 with ImageNet weights, its first five stages frozen. Every
finished run is one line of a JSON-lines file, and a run that is there is not repeated. Training takes a fixed number
of epochs, so nothing is chosen on any image; the validation images only fit the temperature.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import LoadImage, Resize
from monai.utils import set_determinism
from torch import nn

from bundle.classification import ClassificationLoss
from bundle.classification.attention_lite import AttentionLite0
from bundle.classification.sna_resnet import SNAResNet
from bundle.classification.temperature import expected_calibration_error, fit_temperature
from bundle.lists.known_sets.image_folders import collection_rows
from bundle.lists.known_sets.layouts import LAYOUTS
from bundle.lists.table import SPLITS
from bundle.reading.reader import RadiologyReader
from bundle.training.auroc import class_aurocs, patient_bootstrap

BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "se": ("se", {}),
    "eca": ("eca", {}),
    "cbam": ("cbam", {}),
    "ppcr": ("ppcr", {}),
    "sna": ("sna", {}),
    "sna, no scale": ("sna", {"preserve_mean": False}),
    "sna, add": ("sna", {"combine": "add"}),
    "sna, add, no scale": ("sna", {"combine": "add", "preserve_mean": False}),
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def read_dataset(name: str, root: Path, size: int) -> dict[str, Any]:
    """Return images (N, 3, size, size), labels (N, 2), split names and content hashes of one collection."""
    if name == "covid19_xray":
        rows = collection_rows(LAYOUTS["covid19"][1](root), root, ("training",) * 4 + ("validation",))
    else:
        rows = collection_rows(LAYOUTS["brainmri"][1](root), root)
    load = LoadImage(reader=RadiologyReader(channels=3), image_only=True)
    resize = Resize((size, size), mode="area")
    images = torch.stack([resize(load(str(root / row["image"]))).as_tensor() for row in rows])
    return {
        "images": (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1),
        "labels": torch.tensor([row["label"] for row in rows]),
        "split": np.array([row["split"] for row in rows]),
        "patients": [row["patient"] for row in rows],
    }


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the batch with random left-right flips and shifts of up to 4 pixels."""
    images = torch.where(torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5, images.flip(-1), images)
    down, right = torch.randint(-4, 5, (2,), generator=generator).tolist()
    return images.roll((down, right), dims=(-2, -1))


def flipped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return one of the two versions, (N, 2, ...) as they are and mirrored, of every image."""
    return images[torch.arange(len(images)), torch.randint(2, (len(images),), generator=generator)]


def train(
    network: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train for a fixed number of epochs: AdamW, batches of 16, warm-up over a tenth of the steps, then a cosine."""
    loss_function = ClassificationLoss("cross_entropy", 2, [{"label": y} for y in labels.tolist()], label_smoothing=0.1)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    steps = epochs * (len(images) // 16)
    schedule = WarmupCosineSchedule(optimizer, steps // 10, steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator)[: len(images) // 16 * 16].view(-1, 16):
            loss = loss_function(forward(augment(images[index], generator)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.inference_mode()
def logits_of(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Return the logits of all images, in batches."""
    return torch.cat([forward(batch) for batch in images.split(32)])


def run(setting: str, data: dict[str, Any], block: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train and test one network, and return the row to save."""
    set_determinism(seed)
    start = time.perf_counter()
    name, options = BLOCKS[block]
    size = tuple(data["images"].shape[-2:])
    part = {s: torch.from_numpy(np.flatnonzero(data["split"] == s)) for s in SPLITS}
    labels = data["labels"]
    if setting == "scratch":
        network = SNAResNet(2, 18, image_size=size, attention=name, attention_options=options)
        train(network, network, shifted, data["images"][part["training"]], labels[part["training"]], epochs, 1e-3, seed)
        logits = {s: logits_of(network, data["images"][part[s]]) for s in SPLITS[1:]}
    else:
        network = AttentionLite0(2, size, attention=name, frozen_stages=5, attention_options=options)
        if "features" not in data:  # the frozen part is the same for every block and seed
            data["features"] = torch.stack(
                [logits_of(network.frozen_features, v) for v in (data["images"], data["images"].flip(-1))], dim=1
            )
        features = data["features"].clone()  # out of inference mode
        train(
            network, network.classify, flipped, features[part["training"]], labels[part["training"]], epochs, 5e-4, seed
        )
        logits = {s: logits_of(network.classify, features[part[s], 0]) for s in SPLITS[1:]}
    temperature = fit_temperature(logits["validation"], labels[part["validation"]], exclusive=True)
    raw, scaled = (torch.softmax(logits["test"].double() / t, dim=1)[:, 1].numpy() for t in (1.0, temperature))
    truth = labels[part["test"], 1].numpy()
    return {
        "probabilities": raw.round(6).tolist(),
        "truth": truth.tolist(),
        "patients": [data["patients"][i] for i in part["test"].tolist()],
        "auroc": float(class_aurocs(raw[:, None], truth[:, None])[0]),
        "accuracy": float(((raw > 0.5) == truth).mean()),
        "ece_raw": expected_calibration_error(raw, truth),
        "ece_scaled": expected_calibration_error(scaled, truth),
        "temperature": temperature,
        "seconds": round(time.perf_counter() - start, 1),
    }


def table(rows: list[dict[str, Any]], dataset: str, setting: str) -> str:
    """Return the comparison of one collection and setting: means over seeds, intervals over images."""
    groups = {
        block: [r for r in rows if (r["dataset"], r["setting"], r["block"]) == (dataset, setting, block)]
        for block in BLOCKS
    }
    groups = {block: sorted(group, key=lambda r: r["seed"]) for block, group in groups.items() if group}
    lines = [
        "| block | AUROC (95 % interval) | each seed | against none (95 % interval) | accuracy | ECE raw / scaled |",
        "|---|---|---|---|---|---|",
    ]
    for block, group in groups.items():
        truth = np.array(group[0]["truth"])
        p = np.array([r["probabilities"] for r in group]).T  # (images, seeds)
        seeds = [r["seed"] for r in group]  # a block whose runs are not all done is compared on those that are
        plain = np.array([r["probabilities"] for r in groups["none"] if r["seed"] in seeds]).T

        def statistic(
            index: np.ndarray, p: np.ndarray = p, plain: np.ndarray = plain, truth: np.ndarray = truth
        ) -> np.ndarray:
            y = truth[index, None]
            mine, theirs = (class_aurocs(v[index], y.repeat(v.shape[1], 1)).mean() for v in (p, plain))
            return np.array([mine, mine - theirs])

        low, high = patient_bootstrap(statistic, group[0]["patients"])
        mean, gain = statistic(np.arange(len(truth)))
        each = " ".join(f"{r['auroc']:.3f}" for r in group)
        against = "" if block == "none" else f"{gain:+.3f} ({low[1]:+.3f} to {high[1]:+.3f})"
        average = {k: np.mean([r[k] for r in group]) for k in ("accuracy", "ece_raw", "ece_scaled")}
        lines.append(
            f"| {block} | {mean:.3f} ({low[0]:.3f} to {high[0]:.3f}) | {each} | {against} "
            f"| {average['accuracy']:.3f} | {average['ece_raw']:.3f} / {average['ece_scaled']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", type=Path, required=True, help="folder with covid19_xray and brainmri")
    parser.add_argument("--output", type=Path, default=Path("attention_study.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--datasets", nargs="+", default=["covid19_xray", "brainmri"])
    parser.add_argument("--settings", nargs="+", default=["scratch", "lite0"])
    parser.add_argument("--blocks", nargs="+", default=list(BLOCKS), choices=list(BLOCKS))
    parser.add_argument("--scratch_epochs", type=int, default=8)
    parser.add_argument("--lite0_epochs", type=int, default=5)
    parser.add_argument("--scratch_size", type=int, default=48)
    parser.add_argument("--lite0_size", type=int, default=128)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.is_file() else []
    done = {(r["dataset"], r["setting"], r["block"], r["seed"]) for r in rows}
    for setting in args.settings:
        size, epochs = getattr(args, f"{setting}_size"), getattr(args, f"{setting}_epochs")
        for dataset in args.datasets:
            data: dict[str, Any] = {}
            for seed in args.seeds:
                for block in args.blocks:
                    if (dataset, setting, block, seed) in done:
                        continue
                    data = data or read_dataset(dataset, args.data_root / dataset, size)
                    row = {"dataset": dataset, "setting": setting, "block": block, "seed": seed}
                    row |= run(setting, data, block, seed, epochs)
                    rows.append(row)
                    with args.output.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    figures = f"AUROC {row['auroc']:.3f}, {row['seconds']} s"
                    print(f"{dataset} {setting} {block} seed {seed}: {figures}", file=sys.stderr, flush=True)
    for setting in args.settings:
        for dataset in args.datasets:
            print(f"\n{dataset}, {setting}\n\n{table(rows, dataset, setting)}")


if __name__ == "__main__":
    main()
