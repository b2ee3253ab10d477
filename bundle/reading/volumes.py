# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""NIfTI, MHA and NRRD by MONAI's own readers, each slice turned upright and counted as a frame."""

from __future__ import annotations

import math
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
from monai.data import ITKReader, NibabelReader
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from bundle.reading.errors import UnreadableImageError
from bundle.reading.limits import Limits
from bundle.reading.pictures import scaled_to_unit

__all__ = ["read_volume", "volume_frames"]


def volume_frames(path: Path, kind: str, limits: Limits) -> int:
    """
    Return how many slices a volume has once it lies in RAS+ order, from its header.

    Args:
        path: file to look at.
        kind: ``"nifti"`` or ``"itk"``.
        limits: what fits.

    Raises:
        UnreadableImageError: When the header states a volume that is too large, more than three axes, or data that lie
            in another file.
    """
    if kind == "nifti":
        image: Any = nibabel.load(path)
        shape, item, affine = image.shape, image.get_data_dtype().itemsize, image.affine
    else:
        _check_attached(path)
        io = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        io.SetFileName(str(path))
        io.ReadImageInformation()
        axes = range(io.GetNumberOfDimensions())
        shape, item = tuple(io.GetDimensions(i) for i in axes), io.GetComponentSize() * io.GetNumberOfComponents()
        affine = _affine_of_axes(np.array([io.GetDirection(i) for i in axes]).T)
    if (len(shape) > 3 and max(shape[3:]) > 1) or not 2 <= len(shape):
        raise UnreadableImageError(f"a volume must have two or three axes, got {len(shape)}.")
    shape = (*shape, 1)[:3]
    order = io_orientation(affine)[:, 0]  # which anatomical axis each array axis follows
    frames = shape[int(np.flatnonzero(order == 2)[0])]
    limits.check(math.prod(shape) * item / frames, frames)
    return int(frames)


def read_volume(path: Path, kind: str, frame: int) -> tuple[np.ndarray, dict]:
    """
    Return one axial slice as display values 0..1: anterior up, the patient's right at the left, as radiologists look.

    Unsigned 8 and 16 bits keep their full range, other depths are scaled from the volume's smallest to largest value.

    Args:
        path: file to read.
        kind: ``"nifti"`` or ``"itk"``.
        frame: slice from the lowest, from 0.

    Returns:
        float32, shape ``(C, H, W)``; metadata with the spacing.
    """
    reader = NibabelReader() if kind == "nifti" else ITKReader(reverse_indexing=False)
    volume, header = reader.get_data(reader.read(str(path)))
    affine = _affine_of_axes(np.asarray(header["affine"])[:-1, :-1])
    array = np.asarray(volume)
    samples = array.shape[-1] if array.ndim > len(header["spatial_shape"]) else 1
    spatial = (*(int(n) for n in header["spatial_shape"]), 1)[:3]
    array = array.reshape(*spatial, samples)
    orientation = io_orientation(affine)
    canonical = apply_orientation(array, orientation)
    spacing = nibabel.affines.voxel_sizes(affine @ inv_ornt_aff(orientation, spatial))
    values = scaled_to_unit(canonical)[::-1, ::-1, frame]  # x runs to the right side and y to anterior
    values = values.transpose(2, 1, 0)[:3]  # (C, H, W)
    package = "nibabel" if kind == "nifti" else "itk"
    return values, {
        "decoder": f"{package} {version(package)}",
        "spacing": np.array([spacing[1], spacing[0]]),
        "spacing_source": "affine",
    }


def _check_attached(path: Path) -> None:
    """Refuse a header that points at another file, which could be any file on the machine."""
    with path.open("rb") as file:
        header = file.read(2**16)
    header = header.split(b"\n\n", 1)[0] if header.startswith(b"NRRD") else header
    if re.search(rb"^data ?file\s*:|^ElementDataFile\s*=(?!\s*LOCAL\s)", header, re.MULTILINE | re.IGNORECASE):
        raise UnreadableImageError("the data must be attached to the header, they are in another file.")


def _affine_of_axes(axes: np.ndarray) -> np.ndarray:
    """Return a 4x4 affine without offset from the axes of two or three dimensions."""
    affine = np.eye(4)
    affine[: len(axes), : len(axes)] = axes
    return affine
