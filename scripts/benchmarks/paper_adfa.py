# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""ADFA's arithmetic as the paper formulates it, as a reference for times, memory and results; nothing to use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmark_soft_topk import plain_plan

from bundle.anomaly.adfa import ADFA
from bundle.anomaly.topk.distance import cost_scale

__all__ = ["paper_map"]


class _SinkhornWeights(torch.autograd.Function):
    """Weights of the plan that Sinkhorn sweeps find, with the implicit derivative: a linear system in closed form."""

    @staticmethod
    def forward(ctx, d: torch.Tensor, k: int, epsilon: float, scale: torch.Tensor, sweeps: int) -> torch.Tensor:
        """Return the weights, shape of ``d``."""
        n = d.shape[-1]
        masses = torch.tensor([k / n, (n - k) / n], dtype=d.dtype)
        cost = torch.stack([d.square(), (d - 1).square()], dim=-1) / scale[..., None]
        weights = plain_plan(cost - cost.amin(dim=-1, keepdim=True), masses, epsilon, sweeps)[..., 0] * n
        ctx.save_for_backward(weights, 2 / (epsilon * scale))
        return weights

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """Return the gradient for the distances."""
        weights, rate = ctx.saved_tensors
        w = weights * (1 - weights)
        mean = (grad * w).sum(dim=-1, keepdim=True) / w.sum(dim=-1, keepdim=True)
        return w * (mean - grad) * rate, None, None, None, None


def _describe(network: ADFA, maps: list[torch.Tensor]) -> torch.Tensor:
    """Return patch features ``(B, N, D')``: upsample, concatenate with the coordinates, project."""
    descriptor, size = network.descriptor, network.map_size
    large = [
        F.interpolate(F.avg_pool2d(m, descriptor.pool_size, 1, descriptor.pool_size // 2), size, mode="bilinear")
        for m in maps
    ]
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, s) for s in size), indexing="ij")
    grid = torch.stack([rows, columns]).expand(len(maps[0]), 2, *size)
    x = descriptor.attention(descriptor.projection(torch.cat([*large, grid], dim=1)))
    return x.flatten(2).transpose(1, 2)


def paper_map(network: ADFA, image: torch.Tensor, sweeps: int = 200, rows: int | None = None) -> torch.Tensor:
    """
    Return the soft top-k distances ``(B, N)`` of images by the whole N x N matrix and Sinkhorn sweeps.

    Args:
        network: at map stride 4, with an unwhitened descriptor and epsilon above 0.
        image: shape ``(B, 3, H, W)``.
        sweeps: of the Sinkhorn iteration.
        rows: only so many patches of each image go through the sweeps, to measure a part of the work.
    """
    bank = network.center_bank
    with torch.no_grad():
        maps = network.backbone.compute(image)
    patches = _describe(network, maps)[:, :rows]
    d = torch.cdist(patches, bank.centers.expand(len(patches), -1, -1))
    scale = cost_scale(d.detach(), bank.scale)
    weights = _SinkhornWeights.apply(d.flatten(0, 1), bank.k, bank.epsilon, scale.flatten(0, 1), sweeps)
    return (weights.view_as(d) * d).sum(dim=-1)
