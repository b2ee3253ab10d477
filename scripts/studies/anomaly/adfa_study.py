# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Which part of ADFA does what, on radiographs, MRI and ultrasound: one resumable command for docs/adfa.md.

    python scripts/studies/anomaly/adfa_study.py DATA --output DIR [--quick]

DATA holds ``covid19_xray``, ``brainmri`` and ``busi_part``. Features are computed once and kept in DIR. Every run (set,
setting, seed) is a JSON file, written when it is done and skipped when it is there. Steps are chosen on held-back
normals against synthetic anomalies in them; test images are scored at the start and at the chosen step, never to
choose.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import roc_auc_score
from torch import nn

from bundle.anomaly import AdaptationLoss, MeanDistanceLoss
from bundle.anomaly.adfa import ADFA
from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory
from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.anomaly.resizing import resized_map
from bundle.anomaly.scoring import anomaly_heatmap, mean_of_largest
from bundle.anomaly.stacked_maps import stacked_maps
from bundle.anomaly.synthetic_anomalies import SYNTHETIC_ANOMALY_KINDS, synthetic_anomaly
from bundle.lists import AnomalyDataList
from bundle.networks import FeatureBackbone

SETS = {"covid19": "covid19_xray", "brainmri": "brainmri", "busi_part": "busi_part"}
NET = {"descriptor_channels": 0, "epsilon": 0.0, "attention_weight": 0.1, "scale": "row_mean"}
PAPER = {
    "descriptor_channels": None,
    "epsilon": 0.1,
    "whiten": 0.0,
    "push": 0.0,
    "centers": "once",
    "refit": False,
    "images": "stretched",
}
# name: departures from the default (whitened deviations from the mean of each position, hard top-k, push against made
# abnormal, centers that follow the descriptor, step chosen by validation, refit on all normals)
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "pull only": {"push": 0.0},
    "random start": {"whiten": 0.0},
    "paper": PAPER,
    "paper, hard": {**PAPER, "epsilon": 0.0},
    "standardized start": {"whiten": 1.0},
    "whitened over all patches": {"within": False},
    "centers once": {"centers": "once"},
    "no attention": {"attention_weight": 0.0},
    "width 44": {"descriptor_channels": 44},
    "soft 0.02": {"epsilon": 0.02},
    "stretched images": {"images": "stretched"},
    "two kinds of change unseen": {"kinds": [0, 1, 2]},
    "paper, attention 0": {**PAPER, "attention_weight": 0.0},
    "paper, attention 0.05": {**PAPER, "attention_weight": 0.05},
    "paper, attention 0.2": {**PAPER, "attention_weight": 0.2},
    "paper, random backbone": {**PAPER, "images": "stretched, random backbone"},
    "paper, sharp 0.02": {**PAPER, "epsilon": 0.02},
    "paper, batch scale": {**PAPER, "scale": "batch_max"},
}
SCORES = {"max": None, "smoothed": 0.0, "top 2 %": 0.02, "top 5 %": 0.05, "top 10 %": 0.1, "top 25 %": 0.25}
Taps = list[torch.Tensor]


def taps_of(backbone: nn.Module, images: list[torch.Tensor], normalize: Any) -> Taps:
    """Return the backbone's maps of display-value images, in half precision."""
    batches = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            batch = torch.stack([normalize({"image": i})["image"].as_tensor() for i in images[start : start + 16]])
            batches.append([m.half() for m in backbone(batch)])
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]


def cached_features(root: Path, name: str, kind: str, folder: Path) -> dict[str, Any]:
    """Return maps of all images of a set and of five synthetic anomalies of each normal image, computed once."""
    path = folder / f"features_{name}_{kind.replace(', ', '_').replace(' ', '_')}.pt"
    if not path.exists():
        parser = ConfigParser()
        configs = Path(__file__).parents[3] / "configs"
        parser.read_config([str(configs / f"{layer}.yaml") for layer in ("base", "train", "adfa")])
        parser["keep_aspect"] = "stretched" not in kind
        load, normalize = parser.get_parsed_content("load"), parser.get_parsed_content("normalize")
        torch.manual_seed(0)
        backbone = FeatureBackbone(weights=None if "random" in kind else "default")
        data = AnomalyDataList(root / SETS[name], seed=0)
        items = data.training + data.validation + data.test + data.left_out  # another seed may test with them
        images = [load({"image": item["image"]})["image"].as_tensor() for item in items]
        normal = [i for i, item in enumerate(items) if not item["label"]]
        made, regions = [], []
        for i in normal:
            for j, change in enumerate(SYNTHETIC_ANOMALY_KINDS):
                changed, region = synthetic_anomaly(images[i], change, torch.Generator().manual_seed(5 * i + j))
                made.append(changed)
                regions.append(region)
        content = {
            "paths": [item["image"] for item in items],
            "maps": taps_of(backbone, images, normalize),
            "made": taps_of(backbone, made, normalize),
            "made_of": [items[i]["image"] for i in normal],
            "regions": torch.stack(regions),
        }
        torch.save(content, path)
    return torch.load(path, weights_only=True)


class Split:
    """Maps of one set under one seed: training, held-back and test images, and synthetic anomalies."""

    def __init__(self, root: Path, name: str, seed: int, folder: Path, kind: str = "whole") -> None:
        content = cached_features(root, name, kind, folder)
        where = {path: i for i, path in enumerate(content["paths"])}
        made = {path: i for i, path in enumerate(content["made_of"])}
        data = AnomalyDataList(root / SETS[name], seed=seed)
        self.name, self.test_items = name, data.test
        self.labels = [int(item["label"]) for item in data.test]
        self.content = content
        self.training = [where[item["image"]] for item in data.training]
        self.held_back = [where[item["image"]] for item in data.validation]
        self.test = [where[item["image"]] for item in data.test]
        self.made_of = {where[path]: i for path, i in made.items()}
        self.patient = {where[i["image"]]: i["patient"] or i["image"] for i in data.training + data.validation}

    def maps(self, index: list[int]) -> Taps:
        """Return the maps of images as they are."""
        return [m[index].float() for m in self.content["maps"]]

    def made(self, index: list[int], change: list[int]) -> tuple[Taps, torch.Tensor]:
        """Return the maps of synthetic anomalies, and their regions ``(B, 1, H, W)``."""
        rows = [5 * self.made_of[i] + j for i, j in zip(index, change, strict=True)]
        return [m[rows].float() for m in self.content["made"]], self.content["regions"][rows][:, None].float()


def image_scores(maps: torch.Tensor) -> dict[str, list[float]]:
    """Return each kind of score of maps of distances ``(B, 1, h, w)``."""
    out: dict[str, list[float]] = {}
    for name, share in SCORES.items():
        if share is None:
            values = maps.amax(dim=(1, 2, 3))
        elif share == 0:
            values = torch.stack([anomaly_heatmap(m, (224, 224)).amax() for m in maps])
        else:
            values = torch.stack([mean_of_largest(m, share) for m in maps])
        out[name] = values.tolist()
    return out


@torch.no_grad()
def distance_maps(network: Any, split: Split, index: list[int], change: int | None = None) -> torch.Tensor:
    """Return the network's maps of images by index, as they are or with one kind of synthetic anomaly."""
    out = []
    for start in range(0, len(index), 32):
        part = index[start : start + 32]
        maps = split.maps(part) if change is None else split.made(part, [change] * len(part))[0]
        if isinstance(network, ADFA):
            out.append(network.distance_map(network.describe_features(maps)))
        else:
            out.append(network.distances(maps))
    return torch.cat(out)


def validate(network: ADFA, split: Split) -> dict[str, Any]:
    """Return the AUROC of every score, and of each kind: held-back normals against synthetic anomalies in them."""
    normal = image_scores(distance_maps(network, split, split.held_back))
    changed = [image_scores(distance_maps(network, split, split.held_back, j)) for j in range(5)]
    labels = [0] * len(split.held_back) + [1] * (5 * len(split.held_back))
    result: dict[str, Any] = {
        name: float(roc_auc_score(labels, normal[name] + [s for scores in changed for s in scores[name]]))
        for name in SCORES
    }
    pair = [0] * len(split.held_back) + [1] * len(split.held_back)
    result["kinds"] = [float(roc_auc_score(pair, normal["top 2 %"] + scores["top 2 %"])) for scores in changed]
    return result


def fit_normals(network: ADFA, setting: dict[str, Any], split: Split, index: list[int], start: bool = False) -> None:
    """Whiten with normals, from the start or behind a trained projection, and set the centers to their mean."""
    shrinkage = setting.get("whiten", 0.1)
    if shrinkage:
        found = PatchStatistics.of(stacked_maps(split.maps(index), network.map_size))
        whiten = network.descriptor.start_whitened if start else network.descriptor.whiten
        whiten(found.mean(), found.covariance(setting.get("within", True)), shrinkage)
    set_centers(network, split, index)


@torch.no_grad()
def set_centers(network: ADFA, split: Split, index: list[int]) -> None:
    """Set the centers to the mean embedding of normals."""
    network.center_bank.set_centers(network.describe_features(split.maps(index)).mean(dim=0))


def make_network(setting: dict[str, Any], split: Split, seed: int) -> ADFA:
    """Return an ADFA whose descriptor and centers are at their start."""
    torch.manual_seed(seed)
    arguments = {key: setting.get(key, value) for key, value in NET.items()}
    network = ADFA(weights=None, map_stride=8, **arguments)
    fit_normals(network, setting, split, split.training, start=True)
    return network


def batches(training: list[int], size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield shuffled batches for ever."""
    while True:
        order = [training[i] for i in torch.randperm(len(training), generator=generator)]
        for start in range(0, len(order), size):
            yield order[start : start + size]


def train(split: Split, setting: dict[str, Any], seed: int, steps: int, score: str, every: int) -> dict[str, Any]:
    """Train one setting and return its validation curve and the scores of the start and of the chosen step."""
    network = make_network(setting, split, seed)
    push = setting.get("push", 1.0)
    loss_function = AdaptationLoss(push=push) if push or setting.get("whiten", 0.1) else MeanDistanceLoss()
    parameters = [p for p in network.descriptor.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=5e-4, amsgrad=True)
    generator = torch.Generator().manual_seed(seed)
    source = batches(split.training, 10, generator)
    curve, best, chosen, states = [], -math.inf, 0, {}
    for step in range(steps + 1):
        if setting.get("centers") != "once":
            if step % max(1, len(split.training) // 10) == 0 or step % every == 0:  # once an epoch
                set_centers(network, split, split.training)
        if step % every == 0:
            curve.append({"step": step, **validate(network, split)})
            if step == 0 or curve[-1][score] > best:
                best, chosen = curve[-1][score], step
                states["chosen"] = copy.deepcopy(network.state_dict())
            if step == 0:
                states["start"] = states["chosen"]
        if step == steps:
            break
        index = next(source)
        half = len(index) // 2 if push else 0  # with synthetic anomalies
        maps, region = split.maps(index[half:]), torch.zeros(len(index) - half, 1, 224, 224)
        if half:
            kinds = setting.get("kinds", range(5))
            change = [kinds[i] for i in torch.randint(len(kinds), (half,), generator=generator).tolist()]
            made, where = split.made(index[:half], change)
            maps = [torch.cat(pair) for pair in zip(maps, made, strict=True)]
            region = torch.cat([region, where])
        patches = network.describe_features(maps).flatten(0, 1)
        changed = resized_map(region, network.map_size).flatten() > 0.5
        # a quarter of the unchanged images' patches is enough for a step, and of the others only the regions count
        unchanged = torch.zeros(len(index), 784, dtype=torch.bool)
        unchanged[: len(index) - half] = torch.rand(len(index) - half, 784, generator=generator) < 0.25
        used = changed | unchanged.flatten()
        distances = network.center_bank(patches[used][None])[0].view(-1, 1, 1, 1)
        loss = loss_function(distances, changed[used].float().view(-1, 1, 1, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result: dict[str, Any] = {"curve": curve, "chosen_step": chosen}
    for name in ("start", "chosen"):
        network.load_state_dict(states[name])
        result[name] = image_scores(distance_maps(network, split, split.test))
        if name == "chosen":
            result["held_back"] = image_scores(distance_maps(network, split, split.held_back))
        if setting.get("refit", True):
            fit_normals(network, setting, split, split.training + split.held_back)
            result[f"{name}, refit"] = image_scores(distance_maps(network, split, split.test))
    result["final"] = result["chosen, refit" if setting.get("refit", True) else "chosen"]
    if setting.get("refit", True):
        result["held_back"] = cross_fitted(network, setting, split)
    result["state"] = {k: v for k, v in network.state_dict().items() if not k.startswith("backbone.")}
    return result


def cross_fitted(network: ADFA, setting: dict[str, Any], split: Split, folds: int = 5) -> dict[str, list[float]]:
    """Return the scores of all normals by whitening and centers of the other folds, as NormalRefit computes them."""
    normals, state = split.training + split.held_back, copy.deepcopy(network.state_dict())
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    parts = np.array_split(np.random.default_rng(0).permutation(normals), folds)
    fold = {i: number for number, part in enumerate(parts) for i in part.tolist()}
    first: dict[str, int] = {}
    goes_with = {i: first.setdefault(split.patient[i], i) for i in normals}  # copies of an image with the first
    for number in range(folds):
        part = [i for i in fold if fold[goes_with[i]] == number]
        fit_normals(network, setting, split, sorted(set(normals) - set(part)))
        for name, values in image_scores(distance_maps(network, split, part)).items():
            scores[name] += values
    network.load_state_dict(state)
    return scores


def baseline_network(split: Split, method: str, seed: int) -> PaDiM | PatchMemory:
    """Return PaDiM or a patch memory, fitted on training and held-back normals: they have nothing to choose."""
    normals = split.training + split.held_back
    if method == "PaDiM":
        padim = PaDiM(weights=None)
        padim.fit_features([split.maps(normals)])
        return padim
    memory = PatchMemory(memory_size=len(normals) * 784 // 10, candidates=1, weights=None)
    memory.fit_features([split.maps(normals)], seed)
    return memory


def jobs(quick: bool) -> list[tuple[str, str, int, int | None]]:
    """Return (set, method, seed, normals) in order of importance."""
    seeds = [0] if quick else [0, 1, 2]
    todo: list[tuple[str, str, int, int | None]] = []
    for method in ("default", "PaDiM", "patch memory"):
        todo += [(name, method, seed, None) for seed in seeds for name in SETS]
    todo += [(name, method, 0, None) for method in ("pull only", "paper", "paper, hard") for name in SETS]
    if quick:
        return todo
    todo += [(name, method, 0, None) for method in SETTINGS for name in SETS if (name, method, 0, None) not in todo]
    few = [(name, count) for count in (5, 10, 20, 40) for name in SETS if count < 30 or name != "busi_part"]
    todo += [(name, method, 0, count) for name, count in few for method in ("default", "PaDiM")]
    # Table 3 of the paper, and what the default is made of, with all seeds
    todo += [(n, m, seed, None) for seed in seeds[1:] for m in SETTINGS for n in SETS if (n, m, seed, None) not in todo]
    return todo


def main() -> None:
    """Parse the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the three data sets")
    parser.add_argument("--output", type=Path, required=True, help="folder of the features, runs and tables")
    parser.add_argument("--quick", action="store_true", help="one seed, fewer steps and settings")
    parser.add_argument("--steps", type=int, default=None, help="training steps (default 150, 60 with --quick)")
    parser.add_argument("--score", default="top 2 %", choices=list(SCORES), help="score that chooses the step")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="only these")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    steps = arguments.steps or (60 if arguments.quick else 150)
    for name, method, seed, count in jobs(arguments.quick):
        parts = [name, method, f"seed{seed}"] + ([f"n{count}"] if count else [])
        path = arguments.output / ("_".join(parts).replace(" ", "-").replace(",", "") + ".json")
        if path.exists() or name not in arguments.sets:
            continue
        start = time.time()
        kind = SETTINGS.get(method, {}).get("images", "whole")
        split = Split(arguments.data, name, seed, arguments.output, kind)
        if count:  # few normals: a fifth of them, at least two, is held back
            held = max(2, count // 5)
            normals = np.random.default_rng(0).permutation(split.training + split.held_back).tolist()
            split.training, split.held_back = normals[held:count], normals[:held]
        if method in SETTINGS:
            row = train(split, SETTINGS[method], seed, steps, arguments.score, max(steps // 5, 1))
            state = row.pop("state")
            if method == "default" and seed == 0 and not count:
                torch.save(state, path.with_suffix(".pt"))
        else:
            network = baseline_network(split, method, seed)
            row = {"final": image_scores(distance_maps(network, split, split.test))}
        row |= {"set": name, "method": method, "seed": seed, "normals": count, "labels": split.labels, "steps": steps}
        row["seconds"] = round(time.time() - start)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(row))
        temporary.replace(path)
        auroc = {k: round(roc_auc_score(split.labels, v), 3) for k, v in row["final"].items()}
        print(path.stem, row.get("chosen_step", ""), auroc, f"{row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
