# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Heatmaps as NIfTI, so that any tool that takes volumes can measure on them."""

from __future__ import annotations

import os

import nibabel
import numpy as np

from bundle.files import atomic_path
from bundle.reading.reader import planar_affine

__all__ = ["write_nifti"]


def write_nifti(path: str | os.PathLike, heatmap: np.ndarray, spacing: tuple[float, float] | None = None) -> None:
    """
    Write a heatmap with the affine that the reader gives its image, so that both lie on each other.

    Args:
        path: file to write, ending in ``.nii`` or ``.nii.gz``.
        heatmap: any unit, shape ``(rows, columns)``; written as float32 of that shape.
        spacing: millimetres per row and per column; ``None`` or not-a-number where unknown, which is written as a
            spacing of 1 without a unit.
    """
    affine = planar_affine(np.asarray((np.nan, np.nan) if spacing is None else spacing))
    image = nibabel.Nifti1Image(np.asarray(heatmap, dtype=np.float32), affine)
    known = spacing is not None and bool(np.isfinite(spacing).all())
    image.header.set_xyzt_units("mm" if known else "unknown")
    with atomic_path(path) as partial:
        nibabel.save(image, partial)
