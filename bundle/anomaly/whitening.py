# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whitening: the linear map after which all directions of normal features vary alike."""

from __future__ import annotations

import torch

__all__ = ["whitening_matrix"]


def whitening_matrix(covariance: torch.Tensor, shrinkage: float = 0.1) -> torch.Tensor:
    r"""
    Return the whitening matrix that stays closest to plain standardization (ZCA of the correlations).

    With the correlations :math:`R` and the deviations :math:`s` it is
    :math:`((1 - a) R + a I)^{-1/2}\,\mathrm{diag}(1/s)`; the shrinkage :math:`a` keeps directions that hardly vary in
    the normal images from being blown up, and :math:`a = 1` is standardization.

    Args:
        covariance: of normal features, symmetric, shape ``(D, D)``.
        shrinkage: :math:`a`, in (0, 1].

    Returns:
        shape ``(D, D)``; ``matrix @ x`` whitens a centered feature.

    Raises:
        ValueError: When ``shrinkage`` is not in (0, 1].

    Example:
        >>> whitening_matrix(torch.diag(torch.tensor([4.0, 25.0])), 0.5).diagonal()
        tensor([0.5000, 0.2000])
    """
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage must be in (0, 1], got {shrinkage}.")
    wide = covariance.double()
    # a channel that never changes in normal images keeps a finite weight
    variance = wide.diagonal().clamp_min(1e-6 * wide.diagonal().mean().clamp_min(1e-30))
    inverse = variance.rsqrt()
    correlation = (1 - shrinkage) * inverse[:, None] * wide * inverse
    correlation.diagonal().add_(shrinkage)
    values, vectors = torch.linalg.eigh(correlation)
    root = vectors * values.clamp_min(1e-12).rsqrt() @ vectors.T
    return (root * inverse).to(covariance.dtype)
