# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses for findings, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bundle.classification.targets import balanced_class_weights, multi_hot, positive_class_weights

__all__ = ["LOSS_NAMES", "ClassificationLoss"]

LOSS_NAMES = ("bce", "focal", "cross_entropy")


class ClassificationLoss(nn.Module):
    """
    Binary cross entropy, focal loss, or cross entropy with label smoothing, weighted by class if asked.

    Args:
        name: ``"bce"`` or ``"focal"`` (Lin et al., 2017, arXiv:1708.02002) for findings that occur together,
            ``"cross_entropy"`` for exclusive classes.
        num_classes: number of logits ``K``.
        items: training items whose ``label`` (a class number, or a row of 0 and 1) balances the classes; ``None`` for
        no
            weights.
        gamma: exponent of the focal loss; 0 makes it ``"bce"``.
        label_smoothing: of the cross entropy, 0..1.

    Raises:
        ValueError: When ``name`` is unknown, or a class of ``items`` has no positive or no negative.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        items: Sequence[Mapping[str, Any]] | None = None,
        gamma: float = 2.0,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        if name not in LOSS_NAMES:
            raise ValueError(f"loss must be one of {list(LOSS_NAMES)}, got '{name}'.")
        self.num_classes = num_classes
        targets = None
        if items is not None:
            targets = multi_hot(torch.stack([torch.as_tensor(item["label"]) for item in items]), num_classes)
        self.loss: nn.Module
        if name == "cross_entropy":
            weight = None if targets is None else balanced_class_weights(targets)
            self.loss = nn.CrossEntropyLoss(weight, label_smoothing=label_smoothing)
        elif name == "bce":
            self.loss = nn.BCEWithLogitsLoss(pos_weight=None if targets is None else positive_class_weights(targets))
        else:
            self.loss = _FocalLoss(gamma, None if targets is None else positive_class_weights(targets))

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits, shape ``(B, K)``.
            target: class numbers ``(B,)``, or targets 0..1 of shape ``(B, K)``, mixed ones included.

        Returns:
            the mean loss, a scalar.
        """
        return self.loss.to(input.device)(input, multi_hot(target, self.num_classes))


class _FocalLoss(nn.BCEWithLogitsLoss):
    r"""
    Binary cross entropy times :math:`(1 - p_t)^\gamma`, the weight on the positives alone.

    MONAI's ``FocalLoss`` multiplies the positives and the negatives of a class with its weight, so that a rare class
    counts more than the others and its own positives no more than before.
    """

    def __init__(self, gamma: float, positive_weight: torch.Tensor | None) -> None:
        super().__init__(pos_weight=positive_weight, reduction="none")
        self.gamma = gamma

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_wrong = F.logsigmoid(input * (1 - 2 * target))  # log(1 - p_t)
        return ((self.gamma * log_wrong).exp() * super().forward(input, target)).mean()
