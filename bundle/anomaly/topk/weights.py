# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The SOFT top-k operator in closed form: one scalar root a row. ``reference.py`` has the equation and no more."""

from __future__ import annotations

import math

import torch
from torch.autograd.function import once_differentiable

from bundle.anomaly.topk.smallest import k_smallest
from bundle.networks.plain import plain_tensor

__all__ = ["soft_topk", "solve_weights"]


def soft_topk(distances: torch.Tensor, k: int, epsilon: float, scale: float | torch.Tensor = 1.0) -> torch.Tensor:
    r"""
    Return how much each distance belongs to the ``k`` smallest of its row.

    SOFT top-k (Xie et al., 2020, https://arxiv.org/abs/2002.06504) is entropic optimal transport from ``n`` scores of
    mass ``1/n`` to the anchors 0 (mass ``k/n``) and 1 (mass ``(n-k)/n``) at the cost ``(d - anchor)^2 / scale``. With
    two anchors the plan needs no Sinkhorn sweeps: the weights are

    .. math:: Z_i = \sigma\big((b - 2 d_i / s) / \epsilon\big), \qquad \sum_i Z_i = k,

    with one number ``b`` a row, found by a bracketed Newton iteration: one or two passes over the row after the first
    estimate. The root is known to lie, in units of ``epsilon``, between ``m - log(n - k)`` and ``m + log k`` where
    ``m`` is the middle of the ``k``-th and ``k+1``-th smallest ``2 d / s``: from
    ``sum_{i<=k} (1 - Z_i) = sum_{i>k} Z_i`` each side is at least its largest and at most ``k`` (``n - k``) times its
    largest term.

    Equal distances get equal weights; a constant row gets ``k / n``; ``k = n`` gives ones. An infinite distance gets
    weight 0; a row with fewer than ``k`` finite distances gives each of them weight 1 and sums to their number. A NaN
    makes its row NaN. The gradient is ``dZ_i/dlogit_j = w_i (delta_ij - w_j / sum(w))`` with ``w = Z (1 - Z)``;
    ``scale`` is a constant to it, and there is no second derivative.

    Args:
        distances: shape ``(..., n)``, float32, float64 or a half type (then computed in float32), any unit.
        k: how many to select, ``1 <= k <= n``.
        epsilon: regularization, above 0; towards 0 the weights approach the hard top-k.
        scale: the cost's divisor ``s``, above 0, in units of squared distance: a number, or a tensor that broadcasts
            over rows, its last dimension 1.

    Returns:
        weights in [0, 1], shape and type of ``distances``; the last dimension sums to ``k``.

    Raises:
        ValueError: When ``k`` is not in [1, n], or ``epsilon`` or a ``scale`` given as a number is not above 0.

    Example:
        >>> soft_topk(torch.tensor([0.1, 0.2, 5.0, 6.0]), k=2, epsilon=0.01)
        tensor([1., 1., 0., 0.])
    """
    n = distances.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, {n}] for rows of {n} distances, got {k}.")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}.")
    if not isinstance(scale, torch.Tensor):
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}.")
        scale = torch.tensor(scale, dtype=torch.float64, device=distances.device)
    distances, scale = plain_tensor(distances), plain_tensor(scale)
    if torch.jit.is_scripting():
        return _forward(distances, k, epsilon, scale)
    return _SoftTopK.apply(distances, k, epsilon, scale)


def _forward(distances: torch.Tensor, k: int, epsilon: float, scale: torch.Tensor) -> torch.Tensor:
    n = distances.shape[-1]
    if k == n:
        return torch.ones_like(distances)
    wide = distances if distances.dtype == torch.float64 else distances.float()
    rows = wide.reshape(-1, n)
    rate = ((2 / epsilon) / scale.to(wide.dtype)).expand_as(wide[..., :1]).reshape(-1, 1)
    z = torch.empty_like(rows)
    in_cache = 1048576  # numbers of a block: 4 MiB of float32
    block = max(1, in_cache // n) if rows.device.type == "cpu" else rows.shape[0]
    for start in range(0, rows.shape[0], block):
        y, a, _ = solve_weights(rows[start : start + block], k, rate[start : start + block])
        torch.mul(y, a, out=z[start : start + block])
    return z.view(distances.shape).to(distances.dtype)


def solve_weights(
    d: torch.Tensor, k: int, rate: torch.Tensor, max_steps: int = 64, buffers: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Return the weights ``z = sigmoid(u - rate * (d - d_k))`` whose sum is ``k`` as ``z = a y``, and what defines them.

    With ``h = exp(rate * (d - d_k))`` and ``a = exp(u)``, ``y`` is ``1 / (a + h)``, so one exponential an entry serves
    all passes. All weights are off to the same side, so none is further from the root's than the sum is from ``k``: at
    most ``1e-6 k``, ``1e-12 k`` in float64.

    Args:
        d: distances, shape ``(R, n)`` with ``n > k``, float32 or float64.
        k: how many to select.
        rate: logits per unit of distance, ``2 / (s epsilon)``, broadcasting over rows.
        max_steps: of Newton's method, at least 1; a traced graph takes them all.
        buffers: two arrays like ``d``, overwritten, shape ``(2, R, n)`` or more, one of which is returned; for many
            blocks, as the system takes long to give memory anew.

    Returns:
        ``y`` of shape ``(R, n)``, ``a`` and the ``k``-th smallest distance ``d_k``, each ``(R, 1)``.
    """
    n = d.shape[-1]
    largest = 2.0**60  # of what is exponentiated: beyond it weights are 0 or 1
    rate = rate * (1 / math.log(2))  # powers of 2 are faster than those of e
    smallest = k_smallest(d, k + 1, None if buffers is None else buffers[1])[0]
    # subtracting before scaling keeps the weights exact to rounding where epsilon is small and the logits are large
    d_k = smallest[:, k - 1 : k]
    tracing = False  # a traced graph takes every way, and cannot stop early: its rows stand still one by one
    if not torch.jit.is_scripting():
        tracing = torch.compiler.is_compiling()
    short = torch.isinf(d_k)  # fewer than k finite distances
    some_short = tracing or bool(short.any())
    if some_short:
        finite = torch.where(torch.isinf(smallest), torch.full_like(smallest, -math.inf), smallest).amax(-1, True)
        d_k = torch.where(short, torch.where(torch.isinf(finite), torch.zeros_like(finite), finite), d_k)
    middle = torch.exp2((smallest[:, k:] - d_k) * (rate / 2)).clamp(1.0, largest)
    low, high = middle / (n - k), middle * k
    if some_short:
        low, high = low.masked_fill(short, largest), high.masked_fill(short, largest)
    if buffers is None:
        h = (d - d_k).mul_(rate).exp2_()  # (R, n), at most 1 for the k smallest
        y = h.clamp_min(1.0).reciprocal_()
    else:
        h = torch.sub(d, d_k, out=buffers[0]).mul_(rate).exp2_()
        y = torch.clamp(h, min=1.0, out=buffers[1]).reciprocal_()
    a = _first_estimate(y, torch.exp2((smallest - d_k) * rate), k, low, high)
    tolerance = k * (1e-12 if d.dtype == torch.float64 else 1e-6)  # of the sum
    y = (h + a if buffers is None else torch.add(h, a, out=buffers[1])).reciprocal_()
    total = a * y.sum(dim=-1, keepdim=True)
    for _ in range(max_steps):
        open_ = (total - k).abs().masked_fill(short, 0) > tolerance  # false for a row with a NaN
        if not tracing and not bool(open_.any()):
            break
        low, high = torch.where(total < k, a, low), torch.where(total > k, a, high)
        step = _step(a, total, (a * torch.linalg.vector_norm(y, dim=-1, keepdim=True)).square(), k, n)
        step = torch.where((step > low) & (step < high), step, (low * high).sqrt())
        a = torch.where(open_, step, a)
        y = (h + a if buffers is None else torch.add(h, a, out=buffers[1])).reciprocal_()
        total = a * y.sum(dim=-1, keepdim=True)
    return y, a + (total - total), d_k  # one NaN makes its row NaN


def _step(a: torch.Tensor, total: torch.Tensor, squares: torch.Tensor, k: int, n: int) -> torch.Tensor:
    """Return ``a`` after a step of Newton's method on the odds, from the sum of the weights and of their squares."""
    # as many equal weights as have this sum and these squares are solved in one step, however far the root is
    number = total.square() / squares
    number = torch.where(number > 2 * k, number, torch.full_like(number, n))
    rest = number - total
    odds = k * rest / (total * (number - k))
    return a * odds ** (total * rest / (number * (total - squares)))


def _first_estimate(
    y: torch.Tensor, nearest: torch.Tensor, k: int, low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """
    Return ``a`` for the ``k`` smallest as they are and, in place of all others, equal entries with their moments.

    Args:
        y: ``1 / max(h, 1)``, so 1 for the k smallest: what its sums have beyond k is of the others, shape ``(R, n)``.
        nearest: the ``k + 1`` smallest of ``h``, shape ``(R, k + 1)``.
        k: how many to select.
        low: lower bound of ``a``, shape ``(R, 1)``.
        high: upper bound.
    """
    n, tiny = y.shape[-1], 1e-30
    least = nearest[:, k:].reciprocal()
    first = torch.maximum(y.sum(dim=-1, keepdim=True) - k, least).clamp_min(tiny)
    second = torch.maximum(torch.linalg.vector_norm(y, dim=-1, keepdim=True).square() - k, least.square()).clamp_min(
        tiny
    )
    nearest, number = nearest[:, :k], first.square() / second
    # the k smallest as equal too, and none of the others near its limit: a quadratic equation
    a = 2 * k / (first * (1 + (1 + 4 * k / (first * nearest.mean(dim=-1, keepdim=True))).sqrt()))
    z, rest = a / (nearest + a), a / (first / second + a)
    total = z.sum(dim=-1, keepdim=True) + number * rest
    squares = z.square().sum(dim=-1, keepdim=True) + number * rest.square()
    step = _step(a, total, squares, k, n)
    return torch.minimum(torch.where(step > low, step, low), high)


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, distances: torch.Tensor, k: int, epsilon: float, scale: torch.Tensor
    ) -> torch.Tensor:
        z = _forward(distances, k, epsilon, scale)
        ctx.save_for_backward(z, scale)
        ctx.epsilon = epsilon  # type: ignore[attr-defined]
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        z, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        wide = z if z.dtype == torch.float64 else z.float()
        w = wide - wide * wide
        weighted = grad * w
        mean = weighted.sum(dim=-1, keepdim=True) / w.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
        rate = (2 / ctx.epsilon) / scale.to(wide.dtype)  # type: ignore[attr-defined]
        return w.mul_(mean).sub_(weighted).mul_(rate).to(z.dtype), None, None, None
