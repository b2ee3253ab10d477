# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Which files show the same picture, rescaled, re-encoded or cropped a little: they must not be on two sides of a split.

Each file is read once, small. What is compared is the fine structure of the thumbnails (the thumbnail less its blurred
self), because the coarse structure of two normal chest films is much the same. A perceptual hash finds candidates in
linear time; a candidate counts when its thumbnails, laid over one another by a shift and a scale along rows and
columns, correlate by at least ``THRESHOLD``. docs/near-copies.md has the evidence for it. Mirrored, rotated and
inverted copies are not found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.formats import file_format, one_line_errors, split_frame
from bundle.reading.pictures import picture_frames
from bundle.reading.reader import RadiologyReader

__all__ = ["THRESHOLD", "NearCopy", "near_copies", "thumbnails"]

THRESHOLD = 0.91  # of the correlation; copies seen have 0.925 and more, images of different patients at most 0.89
_SIDE = 64  # of a thumbnail
_HASHED = 16  # side of what is hashed
_LIKELY = 0.75  # correlation, small and as they lie, from which a pair is a candidate
_NEIGHBORS = 4  # candidates a view: the most similar ones
_STEPS = 6  # of the alignment
_TABLES = 24  # of the hash: a candidate pair at 0.95 is missed by all of them less than once in 1,000
_BUCKET = 64  # images a bucket of the hash holds on average
_LARGEST = 1024  # images of a bucket that are compared with each other


class NearCopy(NamedTuple):
    """Two files that show the same picture: their places in the list, the first the smaller, and the correlation."""

    first: int
    second: int
    correlation: float


def near_copies(files: Sequence[str | Path]) -> list[NearCopy]:
    """
    Return pairs of files that show the same picture.

    Of many copies of one picture enough pairs are returned to connect them, not all. Time and memory grow as the number
    of files, the memory by 10 kB a file. Files that cannot be read and pictures of one value are nobody's copy. Of
    several frames of a file the named one is compared.

    Args:
        files: paths, ``loop.dcm#frame=7`` for a frame.

    Returns:
        pairs in the order of the files.

    Example:
        >>> near_copies([])
        []
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read = list(pool.map(thumbnails, files))
    home: dict[bytes, int] = {}  # the first file with this very thumbnail
    correlations: dict[tuple[int, int], float] = {}
    for i, views in enumerate(read):
        for view in views:
            first = home.setdefault(view, i)
            if first != i:
                correlations[first, i] = 1.0
    if len(home) > 1:
        owner = np.array(list(home.values()))
        small = np.frombuffer(b"".join(home), np.uint8).reshape(-1, _SIDE, _SIDE)
        del read, home
        pairs = _candidates(_unit(_fine(_shrunk(small, _HASHED), 2.0)))
        pairs = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
        for part in np.split(pairs, range(256, len(pairs), 256)):
            fine = (torch.from_numpy(_fine(small[side], 3.0)) for side in part.T)
            for (i, j), value in zip(owner[part].tolist(), _aligned_correlation(*fine).tolist(), strict=True):
                if value >= THRESHOLD:
                    key = (min(i, j), max(i, j))
                    correlations[key] = max(value, correlations.get(key, 0))
    return [NearCopy(i, j, round(value, 3)) for (i, j), value in sorted(correlations.items())]


def thumbnails(file: str | Path) -> tuple[bytes, ...]:
    """
    Return small gray views of a file, each stretched to a square: whole, and without its even border if it has one.

    A picture is read by Pillow, a JPEG at a fraction of its size, every other format by :py:class:`RadiologyReader`.

    Args:
        file: a path, ``loop.dcm#frame=7`` for a frame.

    Returns:
        values 0..255 of 64 x 64 pixels, row by row; nothing where the file cannot be read or holds one value.
    """
    path, frame = split_frame(str(file))
    reader = RadiologyReader(channels=1)
    try:
        with one_line_errors(path):
            if file_format(path) == "picture":
                picture_frames(path, reader.limits)
                values = _small_picture(path, frame)
            else:
                values = reader.get_data([str(file)])[0][0]
    except (UnreadableImageError, SkippedFileError):
        return ()
    even = 0.05 * np.ptp(values)
    rows = np.flatnonzero(np.ptp(values, axis=1) > even)
    columns = np.flatnonzero(np.ptp(values, axis=0) > even)
    if not len(rows) or not len(columns):
        return ()
    inner = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tuple(dict.fromkeys((_stretched(values), _stretched(inner))))


def _small_picture(path: Path, frame: int) -> np.ndarray:
    with Image.open(path) as image:
        image.seek(frame)
        image.draft("L", (2 * _SIDE, 2 * _SIDE))  # a JPEG decoder leaves out what a thumbnail does not show
        upright = ImageOps.exif_transpose(image)
        deep = upright.mode == "F" or upright.mode.startswith("I")
        return np.asarray(upright if deep else upright.convert("RGB").convert("L"), dtype=np.float32)


def _stretched(values: np.ndarray) -> bytes:
    """Return the mean of each of 64 x 64 fields of an image, from the smallest as 0 to the largest as 255."""
    small = np.asarray(Image.fromarray(values.astype(np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    low, high = float(small.min()), float(small.max())
    return np.round((small - low) * (255 / (high - low or 1))).astype(np.uint8).tobytes()


def _shrunk(small: np.ndarray, side: int) -> np.ndarray:
    step = small.shape[-1] // side
    return small.reshape(-1, side, step, side, step).mean(axis=(2, 4), dtype=np.float32)


def _fine(images: np.ndarray, sigma: float) -> np.ndarray:
    """Return images less their blurred selves, float32."""
    images = images.astype(np.float32)
    return images - gaussian_filter(images, (0, sigma, sigma), mode="nearest")


def _unit(images: np.ndarray) -> np.ndarray:
    """Return images as vectors of mean 0 and length 1, so that their products are correlations."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _candidates(units: np.ndarray) -> np.ndarray:
    """
    Return pairs that may be copies: each image with its most similar ones among those of the same hash.

    Args:
        units: fine structure, shape ``(N, D)``, rows of length 1.

    Returns:
        pairs of indices, the smaller one first, shape ``(P, 2)``, at most ``_NEIGHBORS`` an image.
    """
    count = len(units)
    bits = max(0, math.ceil(math.log2(count / _BUCKET)))
    centered = units - units.mean(axis=0)  # so that each bit halves the collection
    generator = np.random.default_rng(0)
    best = np.full((count, _NEIGHBORS), -1.0, np.float32)
    partner = np.full((count, _NEIGHBORS), -1)
    for _ in range(_TABLES if bits else 1):
        sides = centered @ generator.standard_normal((units.shape[1], bits + 1), dtype=np.float32)
        codes = (sides[:, :bits] > 0) @ (1 << np.arange(bits))
        order = np.lexsort((sides[:, bits], codes))
        ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
        for bucket in np.split(order, ends[:-1]):
            for start in range(0, len(bucket), _LARGEST):
                _keep_nearest(best, partner, units, bucket[start : start + _LARGEST])
    i, k = np.nonzero(best >= _LIKELY)
    return np.unique(np.sort(np.stack([i, partner[i, k]], axis=1), axis=1), axis=0)


def _keep_nearest(best: np.ndarray, partner: np.ndarray, units: np.ndarray, part: np.ndarray) -> None:
    """Put the neighbors among ``part`` that are nearer than those known in their place."""
    similar = torch.from_numpy(units[part] @ units[part].T).fill_diagonal_(-1)
    values, places = (found.numpy() for found in similar.topk(min(_NEIGHBORS, len(part))))
    names = part[places]
    values[(names[:, :, None] == partner[part][:, None]).any(axis=2)] = -1  # known from another table
    values, names = np.hstack([best[part], values]), np.hstack([partner[part], names])
    nearest = np.argsort(-values, axis=1, kind="stable")[:, :_NEIGHBORS]
    best[part] = np.take_along_axis(values, nearest, axis=1)
    partner[part] = np.take_along_axis(names, nearest, axis=1)


def _aligned_correlation(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """
    Return the correlation of pairs of pictures, one laid over the other by a scale and a shift along rows and columns.

    Gauss-Newton steps on the squared difference, in the inverse compositional form of Baker and Matthews (IJCV 2004,
    https://doi.org/10.1023/B:VISI.0000011205.11775.fd).

    Args:
        images: fine structure, shape ``(P, H, W)``.
        others: the same.

    Returns:
        the largest of the correlations met, -1..1, shape ``(P,)``.
    """
    axis = torch.linspace(-0.9, 0.9, 48)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]  # (1, 48, 48, x and y)
    scale, shift = torch.ones(len(images), 2), torch.zeros(len(images), 2)

    def values(picture: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        places = places.expand(len(picture), -1, -1, -1)
        return F.grid_sample(picture[:, None], places, padding_mode="border", align_corners=False).flatten(1)

    def normal(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(dim=1, keepdim=True)
        return x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)

    step = 2 / images.shape[-1]  # a pixel
    raw = values(images, grid)
    length = (raw - raw.mean(dim=1, keepdim=True)).norm(dim=1, keepdim=True).clamp_min(1e-6)
    fixed = normal(raw)
    slope = []
    for direction in (grid.new_tensor([step, 0]), grid.new_tensor([0, step])):
        slope.append((values(images, grid + direction) - values(images, grid - direction)) / (2 * step) / length)
    x, y = grid[..., 0].flatten(), grid[..., 1].flatten()
    jacobian = torch.stack([slope[0] * x, slope[1] * y, slope[0], slope[1]], dim=-1)  # (P, M, 4)
    jacobian = jacobian - jacobian.mean(dim=1, keepdim=True)
    curvature = jacobian.transpose(1, 2) @ jacobian
    curvature = curvature + 1e-3 * torch.eye(4)
    best = torch.full((len(images),), -1.0)
    for _ in range(_STEPS):
        moved = normal(values(others, grid * scale[:, None, None] + shift[:, None, None]))
        best = torch.maximum(best, (fixed * moved).sum(dim=1))
        change = torch.linalg.solve(curvature, jacobian.transpose(1, 2) @ (moved - fixed)[..., None])[..., 0]
        scale = scale / (1 + change[:, :2].clamp(-0.2, 0.2))
        shift = shift - scale * change[:, 2:]
    return best
