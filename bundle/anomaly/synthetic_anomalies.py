# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Synthetic anomalies in normal images, for choosing settings and stopping times without abnormal labels.

Every function is pure and seeded by the caller's generator. What comes out is
a validation tool, not a model of disease.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

__all__ = ["SYNTHETIC_ANOMALY_KINDS", "random_region", "synthetic_anomaly"]


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _smooth_noise(height: int, width: int, cells: int, generator: torch.Generator) -> torch.Tensor:
    """Return noise of about unit deviation with ``cells`` lumps along a side, shape ``(H, W)``."""
    coarse = torch.randn(1, 1, cells, cells, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[0, 0]


def random_region(image: torch.Tensor, diameter: float, generator: torch.Generator, edge: float = 0.15) -> torch.Tensor:
    """
    Return a soft, irregular region that lies on the bright part of the image (the body, not the empty background).

    Args:
        image: display values 0..1, shape ``(C, H, W)``.
        diameter: mean diameter as a fraction of the shorter side.
        generator: source of randomness, on the CPU.
        edge: width of the soft edge as a fraction of the radius.

    Returns:
        weights 0..1, shape ``(H, W)``.
    """
    height, width = image.shape[-2:]
    gray = image.mean(dim=0)[None, None]
    window = max(3, min(height, width) // 16) | 1
    local = F.avg_pool2d(gray, window, 1, window // 2, count_include_pad=False)[0, 0]
    body = local > 0.5 * local.mean()
    body = body if bool(body.any()) else torch.ones_like(body)
    index = torch.nonzero(body)
    row, column = index[int(torch.randint(len(index), (), generator=generator))].tolist()

    y = torch.arange(height)[:, None] - row
    x = torch.arange(width)[None, :] - column
    angle = torch.atan2(y.float(), x.float())
    stretch = _uniform(0.7, 1.4, generator)
    turn = _uniform(0, math.pi, generator)
    along = x * math.cos(turn) + y * math.sin(turn)
    across = y * math.cos(turn) - x * math.sin(turn)
    distance = ((along * stretch) ** 2 + (across / stretch) ** 2).sqrt()
    outline = torch.ones(height, width)
    for lobes in (2, 3, 5, 8):
        outline = outline + _uniform(0, 0.3 / lobes, generator) * torch.cos(lobes * angle + _uniform(0, 7, generator))
    radius = 0.5 * diameter * min(height, width) * outline
    return torch.sigmoid((1 - distance / radius) / (edge / 2))


def _blob(image: torch.Tensor, region: torch.Tensor, donor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Insert a mass: another mean level inside, part of the texture kept."""
    inside = (image * region).sum() / (image.shape[0] * region.sum()).clamp_min(1e-6)
    step = _uniform(0.15, 0.4, generator) * (1 if _uniform(0, 1, generator) < 0.5 else -1)
    if not 0.05 <= float(inside) + step <= 0.95:
        step = -step
    keep = _uniform(0.2, 0.9, generator)
    texture = 0.03 * _smooth_noise(region.shape[0], region.shape[1], 32, generator)
    return inside + step + keep * (image - inside) + texture


def _paste(image: torch.Tensor, region: torch.Tensor, donor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cut from a shifted and mirrored place of a normal image and paste (CutPaste, Li et al. 2021)."""
    height, width = region.shape
    rows = int(_uniform(0.15, 0.85, generator) * height)
    columns = int(_uniform(0.15, 0.85, generator) * width)
    moved = torch.roll(donor, (rows, columns), dims=(-2, -1))
    return moved.flip(-1) if _uniform(0, 1, generator) < 0.5 else moved


def _warp(image: torch.Tensor, region: torch.Tensor, donor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Bend the tissue locally: a smooth random displacement of 4 to 10 % of the side inside the region."""
    height, width = region.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    size = _uniform(0.08, 0.2, generator)  # the grid is 2 wide
    shift = [size * _smooth_noise(height, width, 8, generator) * region for _ in range(2)]
    grid = torch.stack((x + shift[0], y + shift[1]), dim=-1)
    return F.grid_sample(image[None], grid[None], padding_mode="reflection", align_corners=True)[0]


def _noise(image: torch.Tensor, region: torch.Tensor, donor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change the grain: blurred or made noisy, the mean level kept."""
    if _uniform(0, 1, generator) < 0.5:
        window = 2 * int(_uniform(2, 5, generator)) + 1
        return F.avg_pool2d(image[None], window, 1, window // 2, count_include_pad=False)[0]
    cells = int(min(region.shape) / _uniform(2, 8, generator))
    return image + _uniform(0.08, 0.2, generator) * _smooth_noise(region.shape[0], region.shape[1], cells, generator)


def _haze(image: torch.Tensor, region: torch.Tensor, donor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cover with a cloud: contrast lost toward a bright level, unevenly."""
    level = _uniform(0.5, 0.9, generator)
    weight = _uniform(0.3, 0.7, generator) * torch.sigmoid(
        1 + _smooth_noise(region.shape[0], region.shape[1], 8, generator)
    )
    return image + weight * (level - image)


_Maker = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
# kind: maker, smallest and largest diameter as a fraction of the image's shorter side, softness of the edge
_MAKERS: dict[str, tuple[_Maker, float, float, float]] = {
    "blob": (_blob, 0.12, 0.4, 0.15),
    "paste": (_paste, 0.12, 0.4, 0.15),
    "warp": (_warp, 0.25, 0.5, 0.5),
    "noise": (_noise, 0.15, 0.4, 0.3),
    "haze": (_haze, 0.3, 0.8, 0.8),
}
SYNTHETIC_ANOMALY_KINDS = tuple(_MAKERS)


def synthetic_anomaly(
    image: torch.Tensor, kind: str, generator: torch.Generator, donors: Sequence[torch.Tensor] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return a normal image with an anomaly in it.

    Args:
        image: display values 0..1, shape ``(C, H, W)``.
        kind: ``blob`` (inserted mass), ``paste`` (cut and paste), ``warp`` (local bending), ``noise`` (other grain) or
            ``haze`` (wide, soft loss of contrast).
        generator: source of randomness, on the CPU.
        donors: normal images of the same shape to cut from; empty means the image itself.

    Returns:
        the image, display values 0..1, shape ``(C, H, W)``, and where it changed, boolean, ``(H, W)``.

    Raises:
        ValueError: When ``kind`` is unknown or ``image`` is not channel first.
    """
    if kind not in _MAKERS:
        raise ValueError(f"kind must be one of {list(_MAKERS)}, got '{kind}'.")
    if image.dim() != 3:
        raise ValueError(f"image must have shape (C, H, W), got {tuple(image.shape)}.")
    maker, small, large, edge = _MAKERS[kind]
    region = random_region(image, _uniform(small, large, generator), generator, edge)
    donor = donors[int(torch.randint(len(donors), (), generator=generator))] if donors else image
    changed = maker(image, region, donor, generator)
    mixed = (image + region * (changed - image)).clamp(0, 1)
    return mixed, region > 0.5
