# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The crops and filters of images that a run names by one flag."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform

from bundle.preprocessing.box_frames import seen_in_source
from bundle.preprocessing.geometry import CropToRegiond, CropUniformBorderd
from bundle.preprocessing.intensity import EqualizeLocallyd, ReduceSpeckled, ScaleForegroundd
from bundle.preprocessing.ultrasound import MaskOutsideFand

__all__ = ["ADJUSTMENTS", "NoteFieldd", "make_adjustments"]

_SOURCE = {
    "crop_region": CropToRegiond,
    "crop_border": CropUniformBorderd,
    "mask_outside_fan": MaskOutsideFand,
    "reduce_speckle": ReduceSpeckled,
}
# in the network's grid a window has one size for all detectors, and a large film takes no longer
_FITTED = {"stretch": ScaleForegroundd, "equalize": EqualizeLocallyd}
ADJUSTMENTS = (*_SOURCE, *_FITTED)


class NoteFieldd(MapTransform):
    """
    Note in an image's metadata what its crops left, as ``field``: left, upper, right, lower edge in pixels of the file.

    Padding that follows covers other parts of the file, where no box may lie.

    Args:
        keys: the image, a MetaTensor with ``original_affine`` and ``spatial_shape`` in its metadata.
        allow_missing_keys: whether the image may be missing.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the field in the image's metadata."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key].meta["field"] = seen_in_source(d[key]).numpy()
        return d


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
        ['CropUniformBorderd', 'NoteFieldd']
    """
    unknown = sorted(set(names) - set(ADJUSTMENTS))
    if unknown:
        raise ValueError(f"adjustments must be among {', '.join(ADJUSTMENTS)}, got {', '.join(unknown)}.")
    made = [make(keys) for name, make in (_FITTED if fitted else _SOURCE).items() if name in names]
    cropped = not fitted and {"crop_region", "crop_border"} & set(names)
    return Compose([*made, NoteFieldd(keys)] if cropped else made)
