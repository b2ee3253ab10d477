# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A network some of whose stages are held fixed while the others are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

__all__ = ["HeldStages"]

T = TypeVar("T", bound="HeldStages")


class HeldStages(nn.Module):
    """
    Base of a network whose stages can be held fixed, batch statistics included.

    Example:
        >>> class Pair(HeldStages):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.first, self.second = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
        ...         self.hold(["first"], ["first", "second"])
        >>> pair = Pair().train()
        >>> pair.first.training, pair.first.weight.requires_grad, pair.second.training
        (False, False, True)
    """

    def hold(self, frozen: Sequence[str], stages: Sequence[str], fixed_statistics: bool = False) -> None:
        """
        Hold stages fixed from now on; a constructor calls it last.

        Args:
            frozen: names of submodules without a gradient, and always in evaluation.
            stages: those that may be held.
            fixed_statistics: the batch statistics of all others stay as they are too.

        Raises:
            ValueError: When a name is none of ``stages``.
        """
        if unknown := sorted(set(frozen) - set(stages)):
            raise ValueError(f"frozen must name stages among {list(stages)}, got {unknown}.")
        self.frozen, self.fixed_statistics = tuple(frozen), fixed_statistics
        for name in self.frozen:
            self.get_submodule(name).eval().requires_grad_(False)

    def train(self: T, mode: bool = True) -> T:
        """Switch between training and evaluation, but for what is held."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        if self.fixed_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                    module.eval()
        return self
