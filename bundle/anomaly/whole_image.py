# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The distance of a whole image to normal ones, in the deepest features of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.anomaly.whitening import whitening_matrix

__all__ = ["WholeImageDistance"]

STRIDE = 32  # of the deepest stage
USUAL = 10.0  # where the joined map has its hottest positions in a usual normal image, which keeps it above 0


class WholeImageDistance(nn.Module):
    r"""
    Mean distance of the cells of a coarse grid to the nearest normal image, cell by cell.

    What makes a film abnormal is often large and diffuse. Maps of strides 4 to 16 do not see it; the deepest stage
    does. Its map is averaged over a grid of cells, the deviations from each cell's normal mean are whitened by the
    covariance within cells (as ADFA's patches are), and each cell :math:`c` is compared with the same cell of stored
    normal images :math:`n`:

    .. math:: d(x) = \frac{1}{|C|} \sum_{c \in C} \min_n \lVert W (x_c - \mu_c) - z_{nc} \rVert

    Args:
        image_size: rows and columns of the images.
        map_size: rows and columns of the map that the distances of the cells are drawn out to.
        channels: of the deepest map.
        grid: cells of a side; fewer where the map has fewer positions.
        memory_size: normal images to store, from 1. Where there are fewer, they are stored more than once.

    Raises:
        ValueError: When ``grid`` or ``memory_size`` is below 1.

    Example:
        >>> distance = WholeImageDistance((64, 64), (8, 8), channels=2, grid=2, memory_size=3)
        >>> distance.fit(torch.rand(5, 4, 2))
        >>> distance(torch.rand(1, 2, 2, 2)).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(
        self,
        image_size: Sequence[int],
        map_size: Sequence[int],
        channels: int,
        grid: int = 3,
        memory_size: int = 256,
    ) -> None:
        super().__init__()
        if grid < 1 or memory_size < 1:
            raise ValueError(f"grid and memory_size must be at least 1, got {grid} and {memory_size}.")
        self.map_size = [int(size) for size in map_size]
        rows, columns = (averaging(-(-size // STRIDE), grid) for size in image_size)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        cells = len(rows) * len(columns)
        self.register_buffer("mean", torch.zeros(cells, channels))
        self.register_buffer("matrix", torch.eye(channels))
        self.register_buffer("memory", torch.zeros(cells, memory_size, channels))
        # factors of a map and of this distance, and what is added: the map as it is, until they are fitted
        self.register_buffer("joint", torch.tensor([1.0, 0.0, 0.0]))
        self.register_buffer("usual", torch.zeros(1, 1, *self.map_size))  # this distance in normal images, on average
        self.rows: torch.Tensor
        self.columns: torch.Tensor
        self.mean: torch.Tensor
        self.matrix: torch.Tensor
        self.memory: torch.Tensor
        self.joint: torch.Tensor
        self.usual: torch.Tensor

    def cells(self, deepest: torch.Tensor) -> torch.Tensor:
        """Return the means over the cells, ``(B, cells, C)``, of a deepest map ``(B, C, h, w)``."""
        return (self.rows @ deepest @ self.columns.T).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def fit(self, cells: torch.Tensor, shrinkage: float = 0.1, seed: int = 0) -> None:
        """
        Estimate the whitening, and store normal images.

        Args:
            cells: of normal images, ``(N, cells, C)`` with ``N`` at least 2, see :py:meth:`cells`.
            shrinkage: see :py:func:`bundle.anomaly.whitening.whitening_matrix`.
            seed: of the draw of the images that are stored.

        Raises:
            ValueError: When there are fewer than two images.
        """
        if len(cells) < 2:
            raise ValueError(f"the distance of whole images needs at least 2 normal images, got {len(cells)}.")
        found = PatchStatistics.of(cells.transpose(1, 2).unsqueeze(-1))
        self.mean.copy_(found.total / found.count)
        self.matrix.copy_(whitening_matrix(found.covariance(), shrinkage))
        drawn = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
        again = torch.arange(self.memory.shape[1]) % min(len(cells), self.memory.shape[1])
        self.memory.copy_(self.whitened(cells[drawn[again].to(cells.device)]))

    @torch.no_grad()
    def fit_joint(self, distances: torch.Tensor, whole: torch.Tensor, weight: float) -> None:
        """
        Bring a map and this distance to one unit: deviations of normal images that neither was fitted to.

        Args:
            distances: maps of normal images, ``(N, 1, h, w)``.
            whole: this distance of the same images, ``(N, 1, h, w)``.
            weight: share of this distance, in (0, 1); the map has the others.
        """
        hottest, mean = hottest_mean(distances), whole.flatten(1).mean(dim=1)
        factors = torch.stack([(1 - weight) / hottest.std().clamp_min(1e-6), weight / mean.std().clamp_min(1e-6)])
        offset = USUAL - factors[0] * hottest.mean() - factors[1] * mean.mean()
        self.joint.copy_(torch.stack([*factors, offset]))
        self.usual.copy_(whole.mean(dim=0, keepdim=True))

    def whitened(self, cells: torch.Tensor) -> torch.Tensor:
        """Return whitened deviations, cells first, ``(cells, B, C)``, of cells ``(B, cells, C)``."""
        return ((cells - self.mean) @ self.matrix.T).transpose(0, 1)

    def forward(self, deepest: torch.Tensor) -> torch.Tensor:
        """
        Args:
            deepest: map of stride 32, shape ``(B, C, h, w)``.

        Returns:
            distances of the cells in whitened units, drawn out to the map's size, ``(B, 1, *map_size)``; the mean of an
            image's is its distance.
        """
        nearest = cell_distances(self.whitened(self.cells(deepest)), self.memory).amin(dim=2)  # (cells, B)
        cells = nearest.T.reshape(-1, 1, len(self.rows), len(self.columns))
        drawn = F.interpolate(cells, self.map_size, mode="bilinear", align_corners=False)
        return drawn + (cells.mean(dim=(2, 3), keepdim=True) - drawn.mean(dim=(2, 3), keepdim=True))

    def joined(self, distances: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        r"""
        Return a map of both distances in deviations of normal images.

        Where it is hottest it has on average, of a map :math:`m` and cells :math:`d` with the mean :math:`\bar d`,

        .. math:: s = 10 + (1 - w) \frac{\operatorname{hot}(m) - \mu_m}{\sigma_m} + w \frac{\bar d - \mu_d}{\sigma_d}

        which is the score: 10 in a usual normal image. A position is hot where the patch is far from normal, where the
        cell is further from normal than it usually is, or both. Before :py:meth:`fit_joint` it is the map as it is.

        Args:
            distances: maps, ``(B, 1, h, w)``.
            whole: this distance of the images, ``(B, 1, h, w)``.
        """
        shape = self.joint[0] * distances + self.joint[1] * (whole - self.usual)
        mean = whole.flatten(1).mean(dim=1)
        score = self.joint[0] * hottest_mean(distances) + self.joint[1] * mean + self.joint[2]
        return (shape + (score - hottest_mean(shape))[:, None, None, None]).clamp_min(0)


def hottest_mean(maps: torch.Tensor) -> torch.Tensor:
    """Return the mean of the hottest 2 % of maps, at least of one position: ``(B,)`` of ``(B, 1, h, w)``."""
    values = maps.flatten(1)
    return values.topk(max(1, int(0.02 * values.shape[1] + 0.5)), dim=1).values.mean(dim=1)


def cell_distances(cells: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Return distances ``(cells, B, M)`` of centered features ``(cells, B, C)`` to stored ones ``(cells, M, C)``."""
    squares = cells.square().sum(dim=2, keepdim=True) + stored.square().sum(dim=2).unsqueeze(1)
    return (squares - 2 * cells @ stored.transpose(1, 2)).clamp_min(0).sqrt()


def averaging(size: int, cells: int) -> torch.Tensor:
    """
    Return the matrix that averages positions over cells of equal width; a position may lie in two in part.

    Args:
        size: positions.
        cells: wanted; at most as many as positions.

    Returns:
        shape ``(cells, size)``, rows that sum to 1.

    Example:
        >>> averaging(3, 2) * 1.5
        tensor([[1.0000, 0.5000, 0.0000],
                [0.0000, 0.5000, 1.0000]])
    """
    cells = min(cells, size)
    width = size / cells
    low, high = torch.arange(cells)[:, None] * width, torch.arange(1, cells + 1)[:, None] * width
    edges = torch.arange(size)
    return (torch.minimum(high, edges + 1) - torch.maximum(low, edges)).clamp_min(0) / width
