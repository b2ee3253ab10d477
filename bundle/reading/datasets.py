# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Data sets and loaders that go on when one file of many cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.data.utils import list_data_collate
from monai.transforms import Randomizable
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from bundle.errors import reason_of

__all__ = ["InMemoryDataset", "ReadableDataLoader", "ReadableDataset"]

logger = logging.getLogger(__name__)


class _Failure(dict):
    """An item that could not be read: ``image`` and ``reason``."""


class _Tolerant(TorchDataset):
    """Items of a transform, or a ``_Failure`` in place of one."""

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable) -> None:
        self.data, self.transform = data, transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        item = self.data[index]
        try:
            return self.transform(dict(item))
        except Exception as error:  # whatever a broken file raises, the others go on
            return _Failure(image=item["image"], reason=reason_of(error))


class InMemoryDataset(Dataset):
    """
    Items in memory, whose tensors are copied before a transform sees them.

    MONAI's ``NormalizeIntensity(channel_wise=True)`` writes into its input, so without the copy an image would be
    normalized again at every access.

    Args:
        data: items with tensors.
        transform: applied anew at each access, ``None`` for nothing.

    Attributes:
        item_seed: if set, the random transform of item ``i`` starts from this number and ``i``.
    """

    item_seed: int | None = None

    def _transform(self, index: int) -> Any:
        item = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in self.data[index].items()}
        if self.transform is None:
            return item
        if self.item_seed is not None and isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=(self.item_seed * 1_000_003 + index) % 2**32)
        return self.transform(item)


class ReadableDataset(InMemoryDataset):
    """
    Preprocessed images that were all read once; those that cannot be read are left out and listed.

    For training sets: the deterministic part of the preprocessing runs once, its results stay in memory.

    Args:
        data: items with an ``image`` path.
        transform: deterministic preprocessing of one item.
        random_transform: applied anew at each access, ``None`` for nothing.
        progress: shows a bar while reading.

    Attributes:
        failures: ``(file, reason)`` of each item left out.

    Raises:
        ValueError: When no item can be read; names the first reason.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable,
        random_transform: Callable | None = None,
        progress: bool = False,
    ) -> None:
        tolerant = _Tolerant(data, transform)
        items = [tolerant[i] for i in tqdm(range(len(data)), desc="reading images", disable=not progress)]
        self.failures = [(item["image"], item["reason"]) for item in items if isinstance(item, _Failure)]
        for file, reason in self.failures:
            logger.warning("left out '%s': %s", Path(file).name, reason)
        items = [item for item in items if not isinstance(item, _Failure)]
        if not items:
            first = f", first: {self.failures[0][1]}" if self.failures else ""
            raise ValueError(f"none of {len(data)} images can be read{first}")
        super().__init__(items, random_transform)


class ReadableDataLoader(DataLoader):
    """
    Batches of the images that can be read, in order; the others are listed.

    For inference over folders of any size: nothing is kept. How many batches there are is not known before all files
    were read, so ``len()`` raises ``TypeError``, which Ignite and MONAI take for an iterable without a length.

    Args:
        dataset: MONAI data set; only its ``data`` and ``transform`` are used.
        progress: shows a bar.
        **kwargs: of MONAI's ``DataLoader``.

    Attributes:
        total: items of a whole pass, those left out included.
        failures: ``(file, reason)`` of each item left out in the last pass over the data, up to the present batch.
    """

    def __init__(self, dataset: Dataset, progress: bool = False, **kwargs: Any) -> None:
        super().__init__(_Tolerant(dataset.data, dataset.transform), collate_fn=list, **kwargs)
        self.progress, self.total = progress, len(dataset.data)
        self.failures: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Raise ``TypeError``: the number of readable batches is not known in advance."""
        raise TypeError("the number of readable batches is not known before all files were read")

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield collated batches of readable items."""
        self.failures = []
        bar = tqdm(total=self.total, unit=" images", disable=not self.progress)
        for samples in super().__iter__():
            bar.update(len(samples))
            self.failures += [(item["image"], item["reason"]) for item in samples if isinstance(item, _Failure)]
            readable = [item for item in samples if not isinstance(item, _Failure)]
            if readable:
                yield list_data_collate(readable)
        bar.close()
