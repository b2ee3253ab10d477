# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How well heatmaps show what was annotated with boxes: pixel AUROC, overlap of regions, share of the heat in boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle.rules import number_in
from bundle.training.auroc import class_aurocs

__all__ = ["box_regions", "heat_in_regions", "per_region_overlap", "pixel_auroc"]


def box_regions(boxes: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """
    Return which points of a grid lie in which box.

    Args:
        boxes: left, upper, right, lower edge in pixels, shape ``(M, 4)``.
        columns: of the points, in the same pixels, ascending, shape ``(w,)``.
        rows: of the points, shape ``(h,)``.

    Returns:
        booleans of shape ``(M, h, w)``; a box between the points has the one nearest to its center.

    Example:
        >>> centers = np.arange(4) + 0.5  # of pixels
        >>> box_regions(np.array([[1, 0, 3, 1]]), centers, centers)[0].sum(axis=1).tolist()
        [2, 0, 0, 0]
    """
    found = np.zeros((len(boxes), len(rows), len(columns)), dtype=bool)
    for region, (left, upper, right, lower) in zip(found, boxes, strict=True):
        across = _within(columns, left, right)
        region[:] = _within(rows, upper, lower)[:, None] & across
    return found


def pixel_auroc(heats: Sequence[np.ndarray], regions: Sequence[np.ndarray]) -> float:
    """
    Return the area under the receiver operating characteristic of all pixels: heat inside against outside of regions.

    Args:
        heats: of each image, shape ``(h, w)``; minus infinity where the network did not look.
        regions: of each image, booleans of shape ``(M, h, w)``; none for a normal image.

    Returns:
        0..1, ``nan`` where all pixels are of one kind.

    Raises:
        ValueError: When the shapes do not fit, or a value is not a number.
    """
    values, _, inside = _pixels(heats, regions)
    return float(class_aurocs(values[:, None], inside[:, None])[0])


def per_region_overlap(heats: Sequence[np.ndarray], regions: Sequence[np.ndarray], limit: float = 0.3) -> float:
    r"""
    Return how much of the regions is found, averaged over regions and over false positive rates up to a limit.

    PRO of Bergmann et al. (CVPR 2020, https://arxiv.org/abs/1911.02357, Sec. 4.2): at each threshold, the share of each
    region that is above it, averaged over all regions, so that a small one counts as much as a large one; its curve
    over the share of the pixels outside that are above, integrated up to the limit and divided by it. Here a region is
    an annotated box, not a component of a mask. A map that is the same everywhere has half of the limit.

    Args:
        heats: see :py:func:`pixel_auroc`.
        regions: see there; each with one pixel at least.
        limit: greatest false positive rate, in (0, 1].

    Returns:
        0..1, ``nan`` without a region or without a pixel outside.

    Raises:
        ValueError: When the shapes do not fit, a value is not a number, or the limit is out of range.

    Example:
        >>> heat, region = np.array([[3.0, 2.0], [1.0, 0.0]]), np.array([[[True, True], [False, False]]])
        >>> round(per_region_overlap([heat], [region]), 12)
        1.0
    """
    number_in("limit", limit, 0, 1, without_low=True)
    values, found, inside = _pixels(heats, regions)
    count, outside = sum(map(len, regions)), float((~inside).sum())
    if not count or not outside:
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # pixels of one heat fall together
    rates = np.append(0, np.cumsum(~inside[order])[ends] / outside)
    overlaps = np.append(0, np.cumsum(found[order])[ends] / count)
    last = int((rates <= limit).sum())  # the first point beyond the limit, if there is one
    x, y = rates[:last], overlaps[:last]
    if last < len(rates):
        part = (limit - x[-1]) / (rates[last] - x[-1])
        x, y = np.append(x, limit), np.append(y, y[-1] + part * (overlaps[last] - y[-1]))
    return float(((y[1:] + y[:-1]) / 2 @ np.diff(x)) / limit)


def heat_in_regions(heat: np.ndarray, inside: np.ndarray) -> float:
    """
    Return the share of an image's heat that lies in its regions; heat counts from the least of the image.

    Without that start a constant that is added to a map would change the share, and the scores of a detector have one.

    Args:
        heat: shape ``(h, w)``; minus infinity where the network did not look, which has no heat.
        inside: booleans of that shape.

    Returns:
        0..1; for a map that is the same everywhere, the share of the pixels.

    Example:
        >>> heat_in_regions(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[False, False], [False, True]]))
        0.5
    """
    seen = np.isfinite(heat)
    above = np.where(seen, heat - heat[seen].min(), 0.0)
    total = float(above.sum())
    return float(above[inside].sum()) / total if total else float(inside.mean())


def _within(points: np.ndarray, low: float, high: float) -> np.ndarray:
    inside = (points >= low) & (points < high)
    if not inside.any():
        inside[np.abs(points - (low + high) / 2).argmin()] = True
    return inside


def _pixels(heats: Sequence[np.ndarray], regions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of all pixels the heat, the part of regions that each is, and whether it lies in any."""
    values, parts, inside = [], [], []
    for number, (heat, masks) in enumerate(zip(heats, regions, strict=True)):
        if masks.shape[1:] != heat.shape:
            raise ValueError(f"regions must have the shape of their map, got {masks.shape[1:]} for {heat.shape}.")
        if np.isnan(heat).any():
            raise ValueError(f"heat must be a number, that of image {number} is not.")
        sizes = masks.sum(axis=(1, 2), keepdims=True)
        values.append(np.asarray(heat, dtype=float).ravel())
        parts.append((masks / np.maximum(sizes, 1)).sum(axis=0).ravel())
        inside.append(masks.any(axis=0).ravel())
    return np.concatenate(values), np.concatenate(parts), np.concatenate(inside)
