# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank approximation of small matrices by a power iteration with a fixed start."""

from __future__ import annotations

import torch

__all__ = ["low_rank_approximation"]


def low_rank_approximation(
    matrix: torch.Tensor, rank: int = 1, num_iterations: int = 10, exact: bool = False
) -> torch.Tensor:
    r"""
    Return the sum of the ``rank`` leading terms :math:`\sigma_i u_i v_i^T` of the singular value decomposition.

    The right singular vectors come from a power iteration on :math:`M^T M`, orthogonalized one against the other (Fang
    et al., 2022, Algorithm 1, https://doi.org/10.1016/j.neucom.2022.09.008). Departures: the number of steps and the
    start are fixed, so the result is deterministic, exportable and the same whatever else is in the batch; and ``u`` is
    a unit vector in :math:`\sigma u v^T`, where line 15 of the algorithm, as printed, multiplies ``sigma`` in twice.
    The gradient is that of the unrolled iteration, which tends to that of the decomposition as fast as the iteration
    converges: by the squared ratio of neighboring singular values in every step.

    Args:
        matrix: batch of matrices, shape ``(B, H, W)``, float32 or float64.
        rank: number of terms, from 1; terms past ``min(H, W)`` are zero.
        num_iterations: power iterations, from 1.
        exact: ``True`` for a full decomposition: slow, and its gradient is not finite where singular values coincide,
            as in a constant or zero matrix.

    Returns:
        approximation of shape ``(B, H, W)``; 0 for a zero matrix.

    Example:
        >>> low_rank_approximation(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])).round(decimals=3)
        tensor([[[3., 0.],
                 [0., 0.]]])
    """
    if exact:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return (u[..., :rank] * s[..., None, :rank]) @ vh[..., :rank, :]
    b, _, w = matrix.shape
    column = torch.arange(w, device=matrix.device, dtype=matrix.dtype)
    # the first start is constant: after a ReLU the leading vector is positive (Perron-Frobenius), so they never are
    # orthogonal; the cosines of the others have no symmetry that an image could share
    vectors = [torch.cos(i * column).expand(b, w) for i in range(rank)]
    floor = torch.zeros(b, 1, device=matrix.device, dtype=matrix.dtype)
    for _ in range(num_iterations):
        for i in range(rank):
            # products and sums, not matmul: autocast would run matmul in half precision
            left = (matrix * vectors[i][:, None, :]).sum(dim=2)  # (B, H)
            v = (matrix * left[:, :, None]).sum(dim=1)  # (B, W)
            for j in range(i):
                v = v - (v * vectors[j]).sum(dim=1, keepdim=True) * vectors[j]
            norm = torch.linalg.vector_norm(v, dim=1, keepdim=True)  # (B, 1), tends to the i-th eigenvalue
            if i == 0:
                # eigenvalues of M^T M below this are rounding in float32: such vectors fade, they are not blown up
                floor = (1e-6 * norm.detach()).clamp_min(1e-30)
            vectors[i] = v / torch.maximum(norm, floor)
    result = torch.zeros_like(matrix)
    for v in vectors:
        left = (matrix * v[:, None, :]).sum(dim=2)  # (B, H), sigma u
        result = result + left[:, :, None] * v[:, None, :]
    return result
