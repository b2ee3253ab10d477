# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Class targets as one tensor of zeros and ones, and the weights that balance them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["balanced_class_weights", "multi_hot", "positive_class_weights"]


def multi_hot(target: torch.Tensor, num_classes: int) -> torch.Tensor:
    """
    Return targets of shape ``(B, K)``: class numbers one-hot, anything else as it is.

    Args:
        target: class numbers 0..K-1 of shape ``(B,)``, or targets 0..1 of shape ``(B, K)``.
        num_classes: number of classes ``K``.

    Returns:
        float32 targets of shape ``(B, K)``.

    Raises:
        ValueError: When ``target`` has another shape.

    Example:
        >>> multi_hot(torch.tensor([1, 0]), 2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    if target.ndim == 1:
        return F.one_hot(target.long(), num_classes).float()
    if target.ndim != 2 or target.shape[1] != num_classes:
        raise ValueError(f"targets must have shape (B,) or (B, {num_classes}), got {tuple(target.shape)}.")
    return target.float()


def positive_class_weights(targets: torch.Tensor) -> torch.Tensor:
    """
    Return the number of negatives over the number of positives of every class, for losses on separate probabilities.

    Args:
        targets: zeros and ones, shape ``(N, K)``.

    Returns:
        weights of shape ``(K,)``.

    Raises:
        ValueError: When a class has no positive or no negative.

    Example:
        >>> positive_class_weights(torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1]]))
        tensor([3.0000, 0.3333])
    """
    positives = targets.float().sum(dim=0)
    _check_counts(positives, len(targets))
    return (len(targets) - positives) / positives


def balanced_class_weights(targets: torch.Tensor) -> torch.Tensor:
    """
    Return weights inversely proportional to the class frequencies, for losses on exclusive classes.

    Their mean over the samples is 1, as in scikit-learn's "balanced".

    Args:
        targets: one-hot rows, shape ``(N, K)``.

    Returns:
        weights of shape ``(K,)``.

    Raises:
        ValueError: When a class has no sample, or every sample.
    """
    counts = targets.float().sum(dim=0)
    _check_counts(counts, len(targets))
    return len(targets) / (targets.shape[1] * counts)


def _check_counts(counts: torch.Tensor, total: int) -> None:
    for k, count in enumerate(counts.tolist()):
        if not 0 < count < total:
            raise ValueError(f"class {k} must have positive and negative samples, got {count:g} positive of {total}.")
