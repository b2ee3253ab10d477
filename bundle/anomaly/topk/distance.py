# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Sum of the (soft) k smallest distances to a set of centers, block by block: the N x K matrix never exists whole.

``reference.py`` has the equation and no more.
"""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

from bundle.anomaly.topk.euclidean import expanded_squares, square_roots_
from bundle.anomaly.topk.smallest import k_smallest
from bundle.anomaly.topk.weights import solve_weights
from bundle.networks.plain import full_precision, plain_tensor

__all__ = ["COST_SCALES", "cost_scale", "soft_topk_distance"]

COST_SCALES = ("row_mean", "row_max", "batch_max")


def cost_scale(distances: torch.Tensor, mode: str) -> torch.Tensor:
    """
    Return the divisor ``s`` of the SOFT top-k cost ``(d - anchor)^2 / s``, without which ``epsilon`` has no meaning.

    ``row_mean`` is twice the row's mean distance times one unit, so the logits are ``-d / (mean(d) epsilon)`` and the
    weights do not change when all features are scaled; ``row_max`` is the largest cost of the row, as the paper's
    operator is usually normalized; ``batch_max`` the largest cost of all rows, as in the released ADFA code, where one
    image changes another's score.

    Args:
        distances: shape ``(..., n)``.
        mode: one of ``COST_SCALES``.

    Returns:
        shape ``(..., 1)``, above 0.

    Raises:
        ValueError: When ``mode`` is unknown.
    """
    if mode == "row_mean":
        return (2 * distances.mean(dim=-1, keepdim=True)).clamp_min(1e-30)
    if mode != "row_max" and mode != "batch_max":  # spelled out: TorchScript knows no global tuple
        raise ValueError(f"scale must be row_mean, row_max or batch_max, got '{mode}'.")
    cost = torch.maximum(distances.square(), (distances - 1).square()).amax(dim=-1, keepdim=True).clamp_min(1e-30)
    return cost if mode == "row_max" else cost.amax().expand_as(cost)


def soft_topk_distance(
    patches: torch.Tensor,
    centers: torch.Tensor,
    k: int,
    epsilon: float,
    scale: str = "row_mean",
    block: int = 0,
) -> torch.Tensor:
    r"""
    Return :math:`Z_t^\top D(p_t, C)` for every patch (ADFA Eq. 4 to 6).

    Equal to ``(soft_topk(d, k, epsilon, cost_scale(d, scale)) * d).sum(-1)`` with ``d`` the Euclidean distances, but
    computed in blocks of rows and again in the backward pass, so memory is ``O(N + K)`` and not ``O(N K)``. Centers and
    scale are constants to the gradient. The mean of the centers is subtracted from both first, which changes no
    distance and keeps the digits of :py:func:`bundle.anomaly.topk.euclidean.squared_distances`; autocast has no part in
    it.

    Args:
        patches: patch features, shape ``(..., N, C)``; half precision is widened to float32. A subclass such as
            ``MetaTensor`` is taken for what it holds.
        centers: center bank, shape ``(K, C)``.
        k: how many nearest centers count.
        epsilon: regularization of SOFT top-k; 0 is the hard top-k.
        scale: the cost's divisor, one of ``COST_SCALES``.
        block: rows of the distance matrix that exist at one time; 0 chooses by the device.

    Returns:
        distances in feature units, shape ``(..., N)``, float32 or float64.

    Raises:
        ValueError: When ``k`` is not in [1, K], ``epsilon`` is negative, ``scale`` is unknown or ``C`` differs.
    """
    if not 1 <= k <= centers.shape[0]:
        raise ValueError(f"k must be in [1, {centers.shape[0]}] for {centers.shape[0]} centers, got {k}.")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}.")
    if patches.shape[-1] != centers.shape[-1]:
        raise ValueError(f"patches and centers must share C, got {patches.shape[-1]} and {centers.shape[-1]}.")
    if block <= 0:
        threads = 1
        if not torch.jit.is_scripting():  # TorchScript does not know them
            threads = torch.get_num_threads()
        # numbers of a block: 6.5 MiB of float32 with one thread, 3.25 more with each further one. More would leave the
        # caches, and fewer rows cost more in calls than they save
        in_cache, fewest_rows, rows_on_a_gpu = 851968 * (1 + threads), 64, 4096
        most = max(fewest_rows, in_cache // centers.shape[0]) if patches.device.type == "cpu" else rows_on_a_gpu
        total = max(1, patches.numel() // max(1, patches.shape[-1]))
        block = math.ceil(total / math.ceil(total / most))  # all blocks alike
    if not torch.jit.is_scripting():
        if torch.compiler.is_compiling():
            block = 0  # one block: a graph for any batch size knows no number of blocks
    patches, centers = plain_tensor(patches), plain_tensor(centers)
    wide = torch.promote_types(patches.dtype, torch.float32)
    rows, centers = patches.reshape(-1, patches.shape[-1]).to(wide), centers.detach().to(wide)
    shift = centers.mean(dim=0)
    rows, centers = rows - shift, centers - shift
    if torch.jit.is_scripting():
        out = _forward(rows, centers, k, epsilon, scale, block)[0]
    else:
        with full_precision(rows):
            out = _SoftTopKDistance.apply(rows, centers, k, epsilon, scale, block)
    return out.reshape(patches.shape[:-1])


def _forward(
    rows: torch.Tensor, centers: torch.Tensor, k: int, epsilon: float, scale: str, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed distances ``(R,)`` and, for the backward pass, ``u, d_k, rate`` of every row ``(R, 3)``."""
    blocks = rows.split(block) if block > 0 else [rows]
    # ||p - c||^2 in one product a block: (||c||^2 - 2 p.c) + ||p||^2
    norms, twice = centers.square().sum(dim=-1), -2 * centers.T
    largest = torch.zeros(1, dtype=rows.dtype, device=rows.device)
    if scale == "batch_max" and epsilon > 0:
        for part in blocks:
            d = square_roots_(expanded_squares(part, centers))
            largest = torch.maximum(largest, cost_scale(d, scale)[:1, 0])
    sums, states = [], []
    buffers: torch.Tensor | None = None  # of a block, used again by the next: giving memory back and forth costs more
    if not torch.jit.is_scripting():
        if block > 0 and epsilon > 0:
            buffers = rows.new_empty(3, min(block, rows.shape[0]), centers.shape[0])
    for part in blocks:
        own_norm = part.square().sum(dim=-1, keepdim=True)
        of_part = buffers[:, : part.shape[0]] if buffers is not None else None
        # without the row's own norm, which changes no order
        d = torch.addmm(norms, part, twice) if of_part is None else torch.addmm(norms, part, twice, out=of_part[2])
        if epsilon == 0 and k < centers.shape[0]:
            nearest = k_smallest(d, k)[0] + own_norm
            sums.append(square_roots_(nearest).sum(dim=-1))
            continue
        d = square_roots_(d.add_(own_norm))
        if k == centers.shape[0]:
            sums.append(d.sum(dim=-1))
            continue
        s = largest if scale == "batch_max" else cost_scale(d, scale)
        rate = (2 / (epsilon * s)).expand(d.shape[0], 1)
        y, a, d_k = solve_weights(d, k, rate, buffers=of_part)
        sums.append(y.mul_(d).sum(dim=-1).mul_(a[:, 0]))
        states.append(torch.cat([a.log(), d_k, rate], dim=-1))
    state = torch.cat(states) if states else rows.new_zeros(0, 3)
    return torch.cat(sums), state


class _SoftTopKDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        rows: torch.Tensor,
        centers: torch.Tensor,
        k: int,
        epsilon: float,
        scale: str,
        block: int,
    ) -> torch.Tensor:
        out, state = _forward(rows, centers, k, epsilon, scale, block)
        ctx.save_for_backward(rows, centers, state)
        ctx.k, ctx.epsilon, ctx.block = k, epsilon, block or rows.shape[0]  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, centers, state = ctx.saved_tensors  # type: ignore[attr-defined]
        k: int = ctx.k  # type: ignore[attr-defined]
        grads = []
        for start in range(0, rows.shape[0], ctx.block):  # type: ignore[attr-defined]
            part = slice(start, start + ctx.block)  # type: ignore[attr-defined]
            d = square_roots_(expanded_squares(rows[part], centers))
            if k == centers.shape[0]:
                dd = torch.ones_like(d)
            elif ctx.epsilon == 0:  # type: ignore[attr-defined]
                dd = torch.zeros_like(d).scatter_(1, k_smallest(d, k)[1], 1.0)
            else:
                u, d_k, rate = state[part].split(1, dim=-1)
                z = torch.sigmoid(u - (d - d_k) * rate)
                w = z - z * z
                mean = (w * d).sum(-1, keepdim=True) / w.sum(-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
                dd = z - rate * w * (d - mean)  # d(sum Z d) / dd, with dZ as in ``soft_topk``
            dd = dd.mul_(grad[part].unsqueeze(-1)).div_(d)  # d(loss)/d(distance) / distance
            with full_precision(rows):
                grads.append(rows[part] * dd.sum(dim=-1, keepdim=True) - dd @ centers)
        return torch.cat(grads), None, None, None, None, None
