# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Check that heatmaps of a trained EfficientNet-Lite0 classifier follow its weights and not just the image.

The trained part is randomized from the output downwards; the table holds the mean absolute rank correlation of the maps
with the original ones (1: the map has not noticed, 0: nothing is left of it).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from monai.transforms import LoadImage, Resize
from torch import nn

from bundle.classification.attention_lite import AttentionLite0
from bundle.classification.explainer import EXPLANATION_NAMES, ClassExplainer
from bundle.classification.explanation_check import randomization_check
from bundle.lists.table import load_label_table
from bundle.networks.attention.make import ATTENTION_NAMES
from bundle.networks.pretrained import load_pretrained
from bundle.reading.reader import RadiologyReader

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def explain(network: nn.Module, image: torch.Tensor, method: str, index: int) -> torch.Tensor:
    """Return the heatmaps of one class by one method."""
    return ClassExplainer(network.eval(), method=method)(image, index)


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="model.pt of args_sna_train.yaml")
    parser.add_argument("labels", type=Path, help="label table")
    parser.add_argument("image_dir", type=Path)
    parser.add_argument("--classes", nargs="+", default=["normal", "pneumonia"])
    parser.add_argument("--explained_class", default="pneumonia")
    parser.add_argument("--attention", default="sna", choices=ATTENTION_NAMES)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=20)
    args = parser.parse_args()
    size, index = (args.image_size, args.image_size), args.classes.index(args.explained_class)
    items = load_label_table(args.labels, args.image_dir, args.classes, "test")
    items = [item for item in items if item["label"][index]][: args.images]
    load, resize = LoadImage(reader=RadiologyReader(channels=3), image_only=True), Resize(size, mode="area")
    images = torch.stack([resize(load(item["image"])).as_tensor() for item in items])
    images = (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    network = AttentionLite0(len(args.classes), size, args.attention, weights=None)
    load_pretrained(network, args.weights, ignore="^$")
    layers = ["fc", *(f"tuned.{i}" for i in reversed(range(len(network.tuned) - 1)))]
    print(
        f"{len(items)} images, class {args.explained_class}\n\n| randomized down to | {' | '.join(EXPLANATION_NAMES)} |"
    )
    print("|---|" + "---|" * len(EXPLANATION_NAMES))
    columns = [
        randomization_check(network.eval(), partial(explain, method=m, index=index), images, layers)
        for m in EXPLANATION_NAMES
    ]
    for layer in layers:
        print(f"| {layer} | " + " | ".join(f"{column[layer]:.2f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
