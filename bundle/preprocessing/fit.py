# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From an image as it was read to the picture that a network takes, all but its normalization."""

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import CenterSpatialCropd, Compose

from bundle.preprocessing.adjustments import make_adjustments
from bundle.preprocessing.dictionary import NoteInMetad
from bundle.preprocessing.display_facts import display_facts
from bundle.preprocessing.geometry import ResizeAndPadd
from bundle.preprocessing.picture import KeepPictured

__all__ = ["fit_to_input"]


def fit_to_input(
    image_size: Sequence[int],
    resize: Sequence[int],
    keep_aspect: bool = False,
    adjustments: Sequence[str] = (),
    keep_picture: bool = False,
) -> Compose:
    """
    Return the transforms that fit ``image`` to a network's input, with the way back to the pixels of the file.

    The image has display values 0..1 and shape ``(C, rows, columns)`` before, ``(C, *image_size)`` after. What it
    looked like before is noted in its metadata, see :py:func:`bundle.preprocessing.display_facts.display_facts`.

    Args:
        image_size: rows and columns of the network's input.
        resize: rows and columns that the image is resized to; of a larger one ``image_size`` is cut from the center,
            and the border is never looked at.
        keep_aspect: pad with 0 instead of stretching.
        adjustments: names of crops and filters, see :py:func:`bundle.preprocessing.make_adjustments`.
        keep_picture: keep the image as it was read as ``picture``, to draw results on.

    Raises:
        ValueError: When an adjustment is unknown.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> fit_to_input([4, 4], resize=[6, 6])({"image": MetaTensor(torch.rand(3, 20, 10))})["image"].shape
        torch.Size([3, 4, 4])
    """
    return Compose(
        [
            *([KeepPictured("image")] if keep_picture else []),
            NoteInMetad("image", display_facts),
            make_adjustments("image", adjustments, fitted=False),
            ResizeAndPadd("image", resize, keep_aspect),  # MONAI's Resized blurs at full size first: 20 times slower
            CenterSpatialCropd("image", image_size),
            make_adjustments("image", adjustments, fitted=True),
        ]
    )
