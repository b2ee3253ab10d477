# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank approximation of small matrices by a power iteration that squares its matrix."""

from __future__ import annotations

import torch

__all__ = ["low_rank_approximation"]


def low_rank_approximation(
    matrix: torch.Tensor, rank: int = 1, num_squarings: int = 8, exact: bool = False
) -> torch.Tensor:
    r"""
    Return the sum of the ``rank`` leading terms :math:`\sigma_i u_i v_i^T` of the singular value decomposition.

    The right singular vectors come from a power iteration on :math:`M^T M`, one after the other (Fang et al., 2022,
    Algorithm 1, https://doi.org/10.1016/j.neucom.2022.09.008). Departures: :math:`G = M^T M` is squared ``s`` times,
    :math:`G^{2^s}` being :math:`2^s` steps, and the largest column of that is the vector: no start can be orthogonal to
    it, and the result is deterministic, exportable and the same whatever else is in the batch. And ``u`` is a unit
    vector in :math:`\sigma u v^T`, where line 15 of the algorithm, as printed, multiplies ``sigma`` in twice. The
    gradient is that of the unrolled iteration, which tends to that of the decomposition as the iteration converges:
    the error is the ratio of neighboring singular values to the power :math:`2^{s+1}`.

    Args:
        matrix: batch of matrices, shape ``(B, H, W)``, float32 or float64.
        rank: number of terms, from 1; terms past ``min(H, W)`` are zero.
        num_squarings: ``s``, from 1.
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
    m = matrix.double()  # autocast would run products of single precision in half precision
    # eigenvalues of G below this are rounding of the matrix: such vectors fade, they are not blown up
    floor = (1e-12 * m.detach().square().sum(dim=(1, 2), keepdim=True)).clamp_min(1e-60)
    rest, result = m, torch.zeros_like(m)
    for _ in range(rank):
        gram = rest.transpose(1, 2) @ rest  # (B, W, W); what is left of G itself would not stay positive
        power = gram / _trace(gram).clamp_min(1e-60)
        for _ in range(num_squarings):
            power = power @ power
            power = power / _trace(power).clamp_min(1e-60)  # tends to v v^T
        largest = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
        v = torch.gather(power, 2, largest[:, None, None].expand(-1, power.shape[1], 1))  # (B, W, 1)
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp_min(1e-60)
        v = v * (torch.linalg.vector_norm(gram @ v, dim=1, keepdim=True) / floor).clamp_max(1.0)
        term = (rest @ v) @ v.transpose(1, 2)  # sigma u v^T
        rest, result = rest - term, result + term
    return result.to(matrix.dtype)


def _trace(matrix: torch.Tensor) -> torch.Tensor:
    """Return the traces ``(B, 1, 1)``."""
    return matrix.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
