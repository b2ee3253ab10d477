# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The normal images that a detector is fitted to: all of them, or those outside of a fold."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from monai.data import DataLoader
from monai.utils import CommonKeys

from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.lists.splits import with_folds
from bundle.reading.datasets import InMemoryDataset

__all__ = ["Normals", "folded_loader"]


class Normals:
    """
    Batches of normal images, ``(B, C, H, W)``, that can be read as often as a method needs.

    Args:
        data_loader: batches are dictionaries with an ``image``, ``(B, C, H, W)``, and perhaps a ``fold``, ``(B,)``;
            images without one are in fold 0.
        device: where the images are wanted; ``None`` leaves them where they are.

    Example:
        >>> batch = {"image": torch.zeros(3, 1, 2, 2), "fold": torch.tensor([0, 1, 1])}
        >>> normals = Normals([batch])
        >>> normals.folds(), [len(images) for images in normals.without(1)]
        (Counter({1: 2, 0: 1}), [1])
    """

    def __init__(self, data_loader: Iterable, device: torch.device | str | None = None) -> None:
        self.data_loader, self.device = data_loader, device
        self.left_out: int | None = None
        self._moments: dict[int, PatchStatistics] = {}

    def without(self, fold: int) -> Normals:
        """Return the images outside of a fold."""
        others = Normals(self.data_loader, self.device)
        others.left_out, others._moments = fold, self._moments
        return others

    def of(self, fold: int) -> Iterator[torch.Tensor]:
        """Yield the images of a fold alone."""
        return self._chosen(lambda folds: folds == fold)

    def folds(self) -> Counter[int]:
        """Return how many of all images each fold has."""
        return Counter(int(fold) for batch in self.data_loader for fold in _folds(batch))

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield the images."""
        return self._chosen(lambda folds: folds != (-1 if self.left_out is None else self.left_out))

    @torch.no_grad()
    def moments(self, features: Callable[[torch.Tensor], torch.Tensor]) -> PatchStatistics:
        """
        Return the moments of features of the images.

        Those of every fold are taken once: moments of the others are a difference. So ask for one kind of features.

        Args:
            features: of images ``(B, C, H, W)``, shape ``(B, D, h, w)``.
        """
        if not self._moments:
            for batch in self.data_loader:
                found = features(batch[CommonKeys.IMAGE].to(self.device))
                number = _folds(batch).to(found.device)
                for fold in map(int, number.unique()):
                    part = PatchStatistics.of(found[number == fold])
                    self._moments[fold] = self._moments[fold] + part if fold in self._moments else part
        everything = functools.reduce(operator.add, self._moments.values())
        return everything if self.left_out is None else everything - self._moments[self.left_out]

    def _chosen(self, chosen: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
        for batch in self.data_loader:
            images = batch[CommonKeys.IMAGE][chosen(_folds(batch))]
            if len(images):
                yield images.to(self.device)


def folded_loader(
    items: Sequence[dict[str, Any]], transform: Callable, batch_size: int, folds: int = 5, seed: int = 0
) -> DataLoader:
    """
    Return a loader of all normal images in order, with the number of their fold.

    Args:
        items: loaded, see :py:class:`bundle.reading.InMemoryDataset`.
        transform: of each.
        batch_size: images of a batch.
        folds: see :py:func:`bundle.lists.with_folds`.
        seed: see there.
    """
    return DataLoader(InMemoryDataset(with_folds(items, folds, seed), transform), batch_size=batch_size)


def _folds(batch: dict) -> torch.Tensor:
    return torch.as_tensor(batch.get("fold", torch.zeros(len(batch[CommonKeys.IMAGE]))))
