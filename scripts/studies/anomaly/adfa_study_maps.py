# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
How much of the heat lies in the lesions of busi_part, and pictures of maps, from the runs of
scripts/studies/anomaly/adfa_study.py.

    python scripts/studies/anomaly/adfa_study_maps.py DATA DIR --pictures docs/figures

Writes ``DIR/localization.json`` and two PNG files a set: the abnormal images that the default ranks highest (right) and
lowest (wrong), and the normal ones that it ranks highest (false alarms), each beside its map.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adfa_study import SETS, Split, baseline_network, distance_maps, make_network
from monai.bundle import ConfigParser
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from bundle.anomaly.scoring import anomaly_heatmap


def network_grid() -> Callable[[str | Path], np.ndarray]:
    """Return what reads an image or a mask into the network's grid, values 0..1, shape (224, 224)."""
    parser, configs = ConfigParser(), Path(__file__).parents[3] / "configs"
    parser.read_config([str(configs / f"{layer}.yaml") for layer in ("base", "train", "adfa")])
    load = parser.get_parsed_content("load")
    return lambda path: load({"image": str(path)})["image"].numpy().mean(axis=0)


gray = network_grid()


def localization(maps: torch.Tensor, paths: list[str], masks: Path) -> dict[str, float]:
    """Return pixel AUROC, PRO up to 30 % false positives and the ratio of heat inside and outside the lesions."""
    heats, lesions = [], []
    for heat, path in zip(maps, paths, strict=True):
        found = [gray(m) > 0.5 for m in sorted(masks.glob(f"{Path(path).stem}_[0-9]*.png"))]
        if found and any(m.any() for m in found):
            heats.append(anomaly_heatmap(heat, (224, 224))[0].numpy()[::2, ::2])
            lesions.append([m[::2, ::2] for m in found if m[::2, ::2].any()])
    anywhere = np.stack([np.any(masks, axis=0) for masks in lesions])
    heat = np.stack(heats)
    false_rate, _, thresholds = roc_curve(anywhere.ravel(), heat.ravel())
    rates = np.linspace(0, 0.3, 31)
    levels = np.interp(rates, false_rate[1:], thresholds[1:])  # the first threshold is infinite
    covered = [
        [(h[mask] >= level).mean() for level in levels]
        for h, masks in zip(heat, lesions, strict=True)
        for mask in masks
    ]
    return {
        "pixel_auroc": float(roc_auc_score(anywhere.ravel(), heat.ravel())),
        "pro": float(np.trapezoid(np.mean(covered, axis=0), rates) / 0.3),
        "heat_inside": float(np.mean([h[a].mean() / h[~a].mean() for h, a in zip(heat, anywhere, strict=True)])),
        "lesions": len(covered),
    }


def montage(paths: list[str], heats: list[np.ndarray], low: float, high: float) -> Image.Image:
    """Return images above their maps, dark is usual and bright is far from normal."""
    top = np.concatenate([gray(p) for p in paths], axis=1)
    bottom = np.concatenate([((h - low) / (high - low)).clip(0, 1) for h in heats], axis=1)
    both = (np.concatenate([top, bottom]) * 255).astype(np.uint8)
    return Image.fromarray(both[::2, ::2])


def main() -> None:
    """Load the default of seed 0 for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--score", default="top 2 %")
    arguments = parser.parse_args()
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        run = arguments.folder / f"{name}_default_seed0.json"
        if not run.exists():
            continue
        split = Split(arguments.data, name, 0, arguments.folder)
        paths = [item["image"] for item in split.test_items]
        network: Any = make_network({}, split, 0)
        start = distance_maps(network, split, split.test)
        network.load_state_dict(torch.load(run.with_suffix(".pt"), weights_only=True), strict=False)
        maps = distance_maps(network, split, split.test)
        row = json.loads(run.read_text())
        scores, labels = np.array(row["final"][arguments.score]), np.array(row["labels"])
        order = np.argsort(-scores)
        abnormal, normal = [i for i in order if labels[i]], [i for i in order if not labels[i]]
        heats = [anomaly_heatmap(m, (224, 224))[0].numpy() for m in maps]
        low, high = np.quantile(np.stack([heats[i] for i in normal]), [0.5, 0.999])
        for kind, chosen in (("right", abnormal[:5]), ("wrong", normal[:3] + abnormal[-3:])):
            picture = montage([paths[i] for i in chosen], [heats[i] for i in chosen], float(low), float(1.3 * high))
            picture.save(arguments.pictures / f"adfa_{name}_{kind}.png", optimize=True)
        if name == "busi_part":
            masks = arguments.data / SETS[name] / "masks"
            lesions = np.flatnonzero(labels).tolist()
            padim = distance_maps(baseline_network(split, "PaDiM", 0), split, [split.test[i] for i in lesions])
            found = [paths[i] for i in lesions]
            result = {
                "PaDiM": localization(padim, found, masks),
                "default before training": localization(start[lesions], found, masks),
                "default": localization(maps[lesions], found, masks),
            }
            (arguments.folder / "localization.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
