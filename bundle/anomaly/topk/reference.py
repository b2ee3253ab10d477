# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
r"""
SOFT top-k as an equation, to read beside the papers; ``weights.py`` and ``distance.py`` give the same, fast.

Xie et al. (2020, https://arxiv.org/abs/2002.06504) move mass :math:`1/n` from each of :math:`n` distances :math:`d_i`
to the anchors 0 (mass :math:`k/n`) and 1 (mass :math:`(n-k)/n`) at the cost :math:`C_{ij} = (d_i - j)^2 / s`. The plan
of least cost with entropy :math:`\epsilon` is :math:`\Gamma_{ij} = e^{(f_i + g_j - C_{ij}) / \epsilon}`, and the
weights are :math:`Z_i = n \Gamma_{i0}`. Since :math:`\Gamma_{i0} + \Gamma_{i1} = 1/n` and
:math:`C_{i0} - C_{i1} = (2 d_i - 1) / s`,

.. math:: Z_i = \sigma\Big(\frac{b - 2 d_i / s}{\epsilon}\Big), \qquad \sum_i Z_i = k,

with one unknown :math:`b = g_0 - g_1 + 1/s` a row, where the paper sweeps over :math:`f` and :math:`g`.
"""

from __future__ import annotations

import math

import torch

from bundle.anomaly.topk.distance import cost_scale

__all__ = ["soft_topk_distance_reference", "soft_topk_reference"]

HALVINGS = 100  # of the interval that holds b: until two neighbors in float64 are left


def soft_topk_reference(
    distances: torch.Tensor, k: int, epsilon: float, scale: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """
    Return the weights ``Z`` of finite distances, see :py:func:`bundle.anomaly.topk.soft_topk`.

    Args:
        distances: shape ``(..., n)``, float64.
        k: how many to select, ``1 <= k < n``.
        epsilon: regularization, above 0.
        scale: the cost's divisor ``s``, a constant.

    Example:
        >>> soft_topk_reference(torch.tensor([0.0, 0.0, 9.0, 9.0], dtype=torch.float64), k=1, epsilon=0.01)
        tensor([0.5000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """
    t = 2 * distances / (scale * epsilon)  # it and b in units of epsilon
    even = math.log(k / (distances.shape[-1] - k))  # the logit of k / n, which all would have if all were alike
    low, high = t.detach().amin(-1, keepdim=True) + even, t.detach().amax(-1, keepdim=True) + even
    for _ in range(HALVINGS):
        b = (low + high) / 2
        too_many = torch.sigmoid(b - t.detach()).sum(-1, keepdim=True) > k
        low, high = torch.where(too_many, low, b), torch.where(too_many, b, high)
    z = torch.sigmoid(b - t)
    # sum(Z) stays k: db = sum(w dt) / sum(w), so one step of Newton's method gives b its gradient
    b = b - (z.sum(-1, keepdim=True) - k) / (z * (1 - z)).sum(-1, keepdim=True).detach()
    return torch.sigmoid(b - t)


def soft_topk_distance_reference(
    patches: torch.Tensor, centers: torch.Tensor, k: int, epsilon: float, scale: str = "row_mean"
) -> torch.Tensor:
    """
    Return ``Z^T D`` of every patch (ADFA Eq. 4 to 6), see :py:func:`bundle.anomaly.topk.soft_topk_distance`.

    Args:
        patches: patch features, shape ``(..., N, C)``, float64.
        centers: center bank, shape ``(K, C)``.
        k: how many nearest centers count, ``1 <= k < K``.
        epsilon: regularization of SOFT top-k; 0 is the hard top-k.
        scale: the cost's divisor, see :py:func:`bundle.anomaly.topk.distance.cost_scale`.

    Returns:
        shape ``(..., N)``.
    """
    d = torch.linalg.vector_norm(patches[..., None, :] - centers, dim=-1)  # (..., N, K), Eq. 4
    if epsilon == 0:
        return d.sort(dim=-1).values[..., :k].sum(-1)
    return (soft_topk_reference(d, k, epsilon, cost_scale(d.detach(), scale)) * d).sum(-1)
