# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The image as a person sees it, kept before it is fitted to the network, so that no file is decoded twice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_numpy

__all__ = ["KeepPictured", "Picture", "picture_of"]


def picture_of(image: Any) -> np.ndarray:
    """
    Return display values as bytes.

    Args:
        image: display values 0..1, clipped to the range, shape ``(1, rows, columns)`` or ``(3, rows, columns)``.

    Returns:
        0..255, shape ``(rows, columns)``, or ``(rows, columns, 3)`` where the channels differ.
    """
    values = convert_to_numpy(image)
    values = values[0] if len(values) == 1 or bool((values[0] == values[1:]).all()) else np.moveaxis(values, 0, -1)
    return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)


class Picture(bytes):
    """
    A picture that goes through a batch as it is: MONAI collates arrays of one shape only, and leaves bytes alone.

    Attributes:
        shape: of the array.
    """

    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Picture:
        """
        Return an array as a picture.

        Args:
            array: 0..255, as :py:func:`picture_of` returns it.

        Example:
            >>> Picture.of(np.zeros((2, 3), np.uint8)).array().shape
            (2, 3)
        """
        picture = cls(array.tobytes())
        picture.shape = array.shape
        return picture

    def array(self) -> np.ndarray:
        """Return the picture as an array of its own."""
        return np.frombuffer(self, np.uint8).reshape(self.shape).copy()


class KeepPictured(MapTransform):
    """
    Put :py:func:`picture_of` an image beside it, as ``picture``, a :py:class:`Picture`.

    Args:
        keys: the image.
        picture_key: what the picture is called.
        allow_missing_keys: whether the image may be missing.
    """

    def __init__(self, keys: KeysCollection, picture_key: str = "picture", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.picture_key = picture_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the picture."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.picture_key] = Picture.of(picture_of(d[key]))
        return d
