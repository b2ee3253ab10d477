# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps of the network's input brought to the pixel grid of the file, or an error."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, MapTransform
from monai.utils import convert_to_tensor

__all__ = ["ToSourceGridd"]


class ToSourceGridd(MapTransform):
    """
    Undo an image's preprocessing on maps of the network's input, with bilinear interpolation.

    MONAI's ``Invertd`` only warns where a map is no ``MetaTensor``, and leaves it in the grid of the network, where a
    finding lies elsewhere in the file. Here it takes the record of the image, and a map of another size is an error.

    Args:
        keys: the maps, shape ``(C, H, W)`` of the network's input.
        transform: the preprocessing of the image.
        image_key: the preprocessed image, a ``MetaTensor`` with ``source_size`` in its metadata, see
            :py:func:`bundle.preprocessing.display_facts.display_facts`.
        allow_missing_keys: whether a map may be missing.

    Raises:
        ValueError: When a map does not get the size of the file.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Any,
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.invert = Invertd(
            self.keys, transform, orig_keys=image_key, nearest_interp=False, allow_missing_keys=allow_missing_keys
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the maps ``(C, rows, columns)`` of the file."""
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            plain = convert_to_tensor(d[key], track_meta=False)
            d[key] = MetaTensor(plain, meta=dict(image.meta), applied_operations=list(image.applied_operations))
        d = self.invert(d)
        size = [int(side) for side in image.meta["source_size"]]
        for key in self.key_iterator(d):
            if list(d[key].shape[-2:]) != size:
                raise ValueError(f"{key} must have the {size} pixels of the file, got {list(d[key].shape[-2:])}.")
        return d
