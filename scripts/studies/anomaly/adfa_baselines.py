# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
ADFA as the paper writes it beside its hard top-k, its untrained start, PaDiM and a patch memory, on the same features.

Every method trains on all normals of the split and is read once on the test images, after a fixed number of epochs.
A step of training takes the loss over a random quarter of the patches, which is unbiased and four times cheaper.
Rows are appended to a file as they finish; a second start skips what is there.

    python scripts/studies/anomaly/adfa_baselines.py DATA/brainmri DATA/covid19_xray DATA/busi_part
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn
from tqdm import tqdm

from bundle.anomaly import anomaly_heatmap, compute_anomaly_metrics
from bundle.anomaly.adfa import ADFA
from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory
from bundle.lists import AnomalyDataList
from bundle.networks import FeatureBackbone

ROOT = Path(__file__).resolve().parents[3]
PAPER = {"brainmri": (0.857, 0.843), "covid19": (0.973, 0.695), "busi": (0.966, 0.948)}  # Table 1: ADFA, PaDiM
METHODS = ("ADFA, soft top-k", "ADFA, hard top-k", "ADFA, untrained", "PaDiM", "patch memory")
Maps = list[torch.Tensor]


class Features:
    """Feature maps of images by file, computed once."""

    def __init__(self) -> None:
        parser = ConfigParser()
        parser.read_config(str(ROOT / "configs" / "base.yaml"))
        self.preprocess = parser.get_parsed_content("preprocessing")
        self.backbone = FeatureBackbone()
        self.cache: dict[str, Maps] = {}

    @torch.no_grad()
    def add(self, items: list[dict]) -> None:
        """Compute the maps of the items that are new."""
        for item in tqdm([i for i in items if i["image"] not in self.cache], desc="features"):
            image = self.preprocess(dict(item))["image"].as_tensor()
            self.cache[item["image"]] = [m.half() for m in self.backbone(image[None])]

    def batches(self, items: list[dict], size: int, order: list[int] | None = None) -> Iterator[Maps]:
        """Yield batches of maps, in the order given."""
        order = list(range(len(items))) if order is None else order
        for start in range(0, len(order), size):
            group = [self.cache[items[i]["image"]] for i in order[start : start + size]]
            yield [torch.cat(level).float() for level in zip(*group, strict=True)]


def train_adfa(features: Features, items: list[dict], epsilon: float, epochs: int, seed: int) -> ADFA:
    """Train the descriptor as section 3.2 of the paper says, for a fixed number of epochs."""
    torch.manual_seed(seed)
    network = ADFA.paper(epsilon=epsilon)
    with torch.no_grad():
        total = sum(network.describe_features(maps).double().sum(0) for maps in features.batches(items, 10))
        network.center_bank.set_centers((total / len(items)).float())  # type: ignore[operator]
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=5e-4, amsgrad=True)
    for _ in range(epochs):
        for maps in features.batches(items, 10, torch.randperm(len(items)).tolist()):
            optimizer.zero_grad()
            patches = network.describe_features(maps)
            # a quarter of the patches, drawn anew at each step: an unbiased estimate of the mean of Eq. 5
            drawn = torch.randperm(patches.shape[1])[: patches.shape[1] // 4]
            network.center_bank(patches[:, drawn]).mean().backward()
            optimizer.step()
    return network


@torch.no_grad()
def scores_of(network: nn.Module, features: Features, items: list[dict]) -> tuple[list[float], list[float]]:
    """Return the maximum of each map (Eq. 6), and the maximum of the upsampled and smoothed map."""
    raw, smooth = [], []
    for maps in features.batches(items, 8):
        if isinstance(network, ADFA):
            distances = network.distance_map(network.describe_features(maps))
        else:
            distances = network.distances(maps)
        raw += distances.amax(dim=(1, 2, 3)).tolist()
        smooth += [float(anomaly_heatmap(d, (224, 224)).amax()) for d in distances]
    return raw, smooth


def fit(method: str, features: Features, normals: list[dict], epochs: int, seed: int) -> nn.Module:
    """Return the fitted network of one row."""
    if method == "PaDiM":
        padim = PaDiM(map_stride=4)
        padim.fit_features(features.batches(normals, 10))
        return padim
    if method == "patch memory":
        memory = PatchMemory(memory_size=len(normals) * 28 * 28 // 10, candidates=1)  # a tenth of all patches
        memory.fit_features(features.batches(normals, 10), seed)
        return memory
    hard, untrained = "hard" in method, "untrained" in method
    return train_adfa(features, normals, 0.0 if hard else 0.1, 0 if untrained else epochs, seed)


def table(rows: list[dict]) -> str:
    """Return the Markdown table: mean over seeds, and the interval of the pooled bootstrap of the first seed."""
    lines = ["| set | method | AUROC, maximum (Eq. 6) | AUROC, smoothed | 95 % interval (smoothed, seed 0) | paper |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["set"] for row in rows):
        for method in METHODS:
            found = [row for row in rows if row["set"] == name and row["method"] == method]
            if not found:
                continue
            raw, smooth = ([row[key][0] for row in found] for key in ("raw", "smooth"))
            low, high = found[0]["smooth"][1:]
            paper = {"ADFA, soft top-k": PAPER[name][0], "PaDiM": PAPER[name][1]}.get(method, "")
            spread = f" ± {np.std(smooth):.3f}" if len(smooth) > 1 else ""
            lines.append(
                f"| {name} | {method} ({len(found)} seeds) | {np.mean(raw):.3f} | {np.mean(smooth):.3f}{spread} "
                f"| {low:.3f} to {high:.3f} | {paper} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, fill the rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="data sets: folders of BrainMRI, COVID-19 X-ray or BUSI")
    parser.add_argument(
        "--rows", default="output/adfa_baselines.jsonl", help="where rows are kept (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the trained rows (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    arguments = parser.parse_args()
    path = Path(arguments.rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    features = Features()
    for seed in range(arguments.seeds):
        for folder in arguments.folders:
            lists = AnomalyDataList(folder, seed=seed)
            normals, test = lists.training + lists.validation, lists.test
            for method in METHODS:
                mark = {"set": lists.layout, "method": method, "seed": seed, "epochs": arguments.epochs}
                if any(all(row[k] == v for k, v in mark.items()) for row in rows):
                    continue
                features.add(normals + test)
                start = time.monotonic()
                network = fit(method, features, normals, arguments.epochs, seed)
                labels = [item["label"] for item in test]
                metrics = (compute_anomaly_metrics(labels, s) for s in scores_of(network, features, test))
                raw, smooth = ((found["auroc"], *found["auroc_interval"]) for found in metrics)
                rows.append({**mark, "raw": raw, "smooth": smooth, "seconds": round(time.monotonic() - start)})
                with path.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(
                    f"{lists.layout}, seed {seed}, {method}: maximum {raw[0]:.3f}, smoothed {smooth[0]:.3f}", flush=True
                )
    print(table([row for row in rows if row["epochs"] == arguments.epochs]))


if __name__ == "__main__":
    main()
