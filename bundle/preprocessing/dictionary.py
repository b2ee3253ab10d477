# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What every dictionary-based wrapper does: apply one array transform to the items it names, or note what they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

__all__ = ["DictTransform", "InvertibleDictTransform", "NoteInMetad"]


class DictTransform(MapTransform):
    """
    Apply one array transform to some items of a dictionary.

    Args:
        keys: the items.
        transform: array transform, called with each item.
        allow_missing_keys: whether an item may be missing.
    """

    def __init__(self, keys: KeysCollection, transform: Callable[[Any], Any], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the dictionary with the items transformed."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


class InvertibleDictTransform(DictTransform, InvertibleTransform):
    """
    The same with a way back.

    Args:
        keys: the items.
        transform: array transform with an ``inverse`` method.
        allow_missing_keys: whether an item may be missing.
    """

    def __init__(self, keys: KeysCollection, transform: InvertibleTransform, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, transform, allow_missing_keys)
        self.inverse_transform = transform.inverse

    def inverse(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the dictionary with the items as they were."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.inverse_transform(d[key])
        return d


class NoteInMetad(MapTransform):
    """
    Note in the metadata of images what a function says of them.

    Args:
        keys: the images.
        note: of an image, a MetaTensor; returns entries of the metadata by name.
        allow_missing_keys: whether an image may be missing.

    Example:
        >>> import torch
        >>> item = {"image": MetaTensor(torch.full((1, 2, 2), 0.5))}
        >>> NoteInMetad("image", lambda image: {"brightest": float(image.max())})(item)["image"].meta["brightest"]
        0.5
    """

    def __init__(
        self,
        keys: KeysCollection,
        note: Callable[[MetaTensor], Mapping[str, Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.note = note

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the notes in the images' metadata."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key].meta.update(self.note(d[key]))
        return d
