# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The crops and filters of images that a run names by one flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, InvertibleTransform, Transform

from bundle.preprocessing.box_frames import seen_in_source
from bundle.preprocessing.dictionary import DictTransform, InvertibleDictTransform, NoteInMetad
from bundle.preprocessing.geometry import CropToRegion, CropUniformBorder
from bundle.preprocessing.intensity import EqualizeLocally, ReduceSpeckle, ScaleForeground
from bundle.preprocessing.ultrasound import MaskOutsideFan

__all__ = ["ADJUSTMENTS", "field_left", "make_adjustments"]

_SOURCE: dict[str, Callable[[], Transform]] = {
    "crop_region": CropToRegion,
    "crop_border": CropUniformBorder,
    "mask_outside_fan": MaskOutsideFan,
    "reduce_speckle": ReduceSpeckle,
}
# in the network's grid a window has one size for all detectors, and a large film takes no longer
_FITTED: dict[str, Callable[[], Transform]] = {"stretch": ScaleForeground, "equalize": EqualizeLocally}
ADJUSTMENTS = (*_SOURCE, *_FITTED)


def field_left(image: MetaTensor) -> dict[str, np.ndarray]:
    """
    Return what the crops of an image left, as ``field``: left, upper, right, lower edge in pixels of the file.

    Padding that follows covers other parts of the file, where no box may lie.

    Args:
        image: with ``original_affine`` and ``spatial_shape`` in its metadata.
    """
    return {"field": seen_in_source(image).numpy()}


def make_adjustments(keys: KeysCollection, names: Sequence[str], fitted: bool) -> Compose:
    """
    Return the named transforms of one side of the fit into the network's grid, in the order of ``ADJUSTMENTS``.

    Crops keep the way back to the source frame; values are display values 0..1 before and after.

    Args:
        keys: the images, shape ``(C, H, W)``.
        names: among ``ADJUSTMENTS``, of both sides.
        fitted: those of the image in the network's grid (contrast), or those of the image as it was read.

    Raises:
        ValueError: When a name is unknown.

    Example:
        >>> [step.transform for step in make_adjustments("image", ["equalize", "stretch"], fitted=True).transforms]
        [<bundle.preprocessing.intensity.ScaleForeground ...>, <bundle.preprocessing.intensity.EqualizeLocally ...>]
    """
    unknown = sorted(set(names) - set(ADJUSTMENTS))
    if unknown:
        raise ValueError(f"adjustments must be among {', '.join(ADJUSTMENTS)}, got {', '.join(unknown)}.")
    made: list = [_of_items(keys, make()) for name, make in (_FITTED if fitted else _SOURCE).items() if name in names]
    cropped = not fitted and {"crop_region", "crop_border"} & set(names)
    return Compose([*made, NoteInMetad(keys, field_left)] if cropped else made)


def _of_items(keys: KeysCollection, transform: Transform) -> DictTransform:
    """Return an array transform for items of a dictionary, with the way back where it has one."""
    if isinstance(transform, InvertibleTransform):
        return InvertibleDictTransform(keys, transform)
    return DictTransform(keys, transform)
