# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The crops and filters of images that a run names by one flag."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose

from bundle.preprocessing.box_frames import seen_in_source
from bundle.preprocessing.dictionary import NoteInMetad
from bundle.preprocessing.geometry import CropToRegiond, CropUniformBorderd
from bundle.preprocessing.intensity import EqualizeLocallyd, ReduceSpeckled, ScaleForegroundd
from bundle.preprocessing.ultrasound import MaskOutsideFand

__all__ = ["ADJUSTMENTS", "field_left", "make_adjustments"]

_SOURCE = {
    "crop_region": CropToRegiond,
    "crop_border": CropUniformBorderd,
    "mask_outside_fan": MaskOutsideFand,
    "reduce_speckle": ReduceSpeckled,
}
# in the network's grid a window has one size for all detectors, and a large film takes no longer
_FITTED = {"stretch": ScaleForegroundd, "equalize": EqualizeLocallyd}
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
        >>> [type(t).__name__ for t in make_adjustments("image", ["equalize", "crop_border"], fitted=False).transforms]
        ['CropUniformBorderd', 'NoteInMetad']
    """
    unknown = sorted(set(names) - set(ADJUSTMENTS))
    if unknown:
        raise ValueError(f"adjustments must be among {', '.join(ADJUSTMENTS)}, got {', '.join(unknown)}.")
    made = [make(keys) for name, make in (_FITTED if fitted else _SOURCE).items() if name in names]
    cropped = not fitted and {"crop_region", "crop_border"} & set(names)
    return Compose([*made, NoteInMetad(keys, field_left)] if cropped else made)
