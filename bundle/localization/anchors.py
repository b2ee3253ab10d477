# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Where findings usually lie: a few typical boxes of each, among which its map chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.utils import CommonKeys
from sklearn.cluster import KMeans

from bundle.lists.boxes import read_boxes
from bundle.lists.label_lists import LabelDataList
from bundle.localization.boxes import mean_inside
from bundle.localization.metrics import annotation_key
from bundle.preprocessing.box_frames import boxes_on_input
from bundle.rules import whole_number

__all__ = ["box_from_anchors", "cluster_boxes", "fit_anchors"]

Anchors = dict[str, list[list[float]]]


def cluster_boxes(boxes: torch.Tensor, count: int) -> list[list[float]]:
    """
    Return the centers of the clusters of boxes, that of the most boxes first.

    k-means on the four edges; anchors from clusters of training boxes are those of YOLO9000 (Redmon and Farhadi, CVPR
    2017, https://arxiv.org/abs/1612.08242, Sec. 2), which clusters sizes alone, as its detector slides over the image.

    Args:
        boxes: left, upper, right, lower edge as shares of an image, 0..1, shape ``(N, 4)``.
        count: of clusters; as many as different boxes where there are fewer.

    Example:
        >>> left, right = [0.1, 0.4, 0.3, 0.8], [0.7, 0.4, 0.9, 0.8]
        >>> cluster_boxes(torch.tensor([left, right, right]), 2)
        [[0.7, 0.4, 0.9, 0.8], [0.1, 0.4, 0.3, 0.8]]
    """
    edges = boxes.detach().double().numpy()
    means = KMeans(min(count, len(boxes.unique(dim=0))), n_init=10, random_state=0).fit(edges)
    order = sorted(range(len(means.cluster_centers_)), key=lambda k: (-(means.labels_ == k).sum(), k))
    return [[round(float(edge), 4) for edge in means.cluster_centers_[k]] for k in order]


def fit_anchors(
    datalist: LabelDataList,
    preprocessing: Callable[[dict[str, Any]], Any],
    boxes_path: str | Path,
    classes: Sequence[str],
    count: int = 3,
) -> Anchors | None:
    """
    Return the typical boxes of each finding in training images, for :py:func:`box_from_anchors`.

    Boxes of some training images, beyond Cai et al. (MICCAI 2018), which has image labels alone. Their places are all
    that is taken from them; the maps that choose among the places still learn from image labels.

    Args:
        datalist: whose training images have boxes, some or all of them.
        preprocessing: from an item with the path of an ``image`` to the network's input with its metadata.
        boxes_path: annotated boxes, see :py:func:`bundle.lists.read_boxes`; empty for none.
        classes: names of the findings.
        count: of typical boxes, at least 1.

    Returns:
        by finding, boxes as left, upper, right, lower edge in shares of the network's input, 0..1, that of the most
        training boxes first; a finding without a box in training is left out. ``None`` without ``boxes_path``.

    Raises:
        ValueError: When ``count`` is no whole number above 0, or no training image has a box of a finding.
    """
    whole_number("anchors_per_finding", count)
    if not boxes_path:
        return None
    annotated = read_boxes(boxes_path)
    found: dict[str, list[torch.Tensor]] = {}
    for item in datalist.training:
        path = str(item[CommonKeys.IMAGE])
        if boxes := annotated.get(annotation_key(annotated, path)):
            image = preprocessing({CommonKeys.IMAGE: path})[CommonKeys.IMAGE]
            size = torch.tensor([image.shape[-1], image.shape[-2]] * 2, dtype=torch.float64)
            for label, edges in boxes.items():
                found.setdefault(label, []).append((boxes_on_input(edges.double(), image) / size).clamp(0, 1))
    anchors = {label: cluster_boxes(torch.cat(found[label]), count) for label in classes if label in found}
    if not anchors:
        raise ValueError(
            f"anchor_boxes must have boxes of training images in one of the classes {list(classes)}, "
            f"'{Path(boxes_path).name}' has none."
        )
    return anchors


def box_from_anchors(heatmaps: torch.Tensor, anchors: Sequence[Sequence[float]], upsample: int = 4) -> torch.Tensor:
    """
    Return the anchor that each map is hottest in, by the mean inside.

    Args:
        heatmaps: of one finding, any real values, shape ``(B, H, W)``; they cover the image whole.
        anchors: boxes as left, upper, right, lower edge in shares of the image, shape ``(K, 4)``.
        upsample: factor of bilinear upsampling before the mean; an anchor is rounded to this finer grid.

    Returns:
        the chosen anchor, shape ``(B, 4)``, and behind it the mean of its map inside, together ``(B, 5)``.

    Example:
        >>> heat = torch.zeros(1, 4, 4)
        >>> heat[0, 1:3, 3] = 1
        >>> box_from_anchors(heat, [[0, 0, 0.5, 1], [0.5, 0, 1, 1]], upsample=1)
        tensor([[0.5000, 0.0000, 1.0000, 1.0000, 0.2500]])
    """
    heat = heatmaps.unsqueeze(1)
    if upsample > 1:
        heat = F.interpolate(heat, scale_factor=float(upsample), mode="bilinear", align_corners=False)
    height, width = heat.shape[-2:]
    boxes = heat.new_tensor([list(anchor) for anchor in anchors])
    grid = (boxes * boxes.new_tensor([width, height] * 2)).round().long()
    low = torch.minimum(grid[:, :2], grid.new_tensor([width - 1, height - 1]))
    edges = torch.cat([low, torch.maximum(grid[:, 2:], low + 1)], dim=1)  # one cell at least
    means = mean_inside(heat, edges.expand(len(heat), 1, -1, -1))[:, 0]
    best = means.argmax(dim=1)
    return torch.cat([boxes[best], means.gather(1, best[:, None])], dim=1)
