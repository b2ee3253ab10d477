# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One MONAI reader for every format, with one convention: display values 0..1, channel first, rows first, upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data.image_reader import ImageReader
from monai.utils import SpaceKeys, ensure_tuple

from bundle.reading.dicom.decoders import decode_frame
from bundle.reading.dicom.geometry import pixel_spacing, scanned_region
from bundle.reading.dicom.header import frame_header
from bundle.reading.dicom.opened import OpenedDicom
from bundle.reading.dicom.pixels import GRAY, display_values
from bundle.reading.errors import UnreadableImageError
from bundle.reading.formats import one_line_errors, split_frame
from bundle.reading.header import header_of
from bundle.reading.limits import Limits
from bundle.reading.pictures import read_picture
from bundle.reading.pseudonym import run_secret
from bundle.reading.volumes import read_volume

__all__ = ["RadiologyReader", "planar_affine"]

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Y of PS3.3 C.7.6.3.1.2
# words and numbers, not None, so that batches collate
UNKNOWN = {"display_note": "", "spacing_source": "", "magnification": 1.0}


class RadiologyReader(ImageReader):
    """
    Read a radiograph, an ultrasound frame or a plain picture as a viewer shows it.

    Use it as ``LoadImaged(keys="image", reader=RadiologyReader(), image_only=True, ensure_channel_first=True)``.
    A frame of a multi-frame file is chosen by the path: ``loop.dcm#frame=7``, counted from 0.

    Everything is read in ``get_data``, because MONAI's ``LoadImage`` answers an error in ``read`` by trying its other
    readers, which would return other pixels.

    Args:
        channels: 1 for luminance, 3 for color (gray repeated), ``None`` for what the file holds.
        window: ``"first"`` for the first VOI LUT or window of a DICOM file, the explanation of another one, ``None``
            for the whole range of values that the file can hold.
        photometric: MONOCHROME1 or MONOCHROME2 in place of all that gray DICOM files say of their polarity, for a
            collection whose tags are known to be wrong; ``None`` believes the files.
        secret: key of the hash that stands for the patient; ``None`` draws one for this process, an empty one leaves
            the hash out.
        limits: how large a file may be, the default of :py:class:`bundle.reading.limits.Limits` if ``None``.

    Raises:
        ValueError: When ``channels`` is not 1, 3 or ``None``, or ``photometric`` is no gray interpretation.
    """

    def __init__(
        self,
        channels: int | None = None,
        window: str | None = "first",
        photometric: str | None = None,
        secret: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or None, got {channels}.")
        if photometric not in (None, *GRAY):
            raise ValueError(f"photometric must be one of {GRAY} or None, got {photometric!r}.")
        self.channels, self.window, self.photometric = channels, window, photometric
        self.secret = run_secret() if secret is None else secret
        self.limits = limits or Limits()

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: the content decides, not the name."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[str]:
        """Return the file names; reading waits for :py:meth:`get_data`."""
        return [str(name) for name in ensure_tuple(data)]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict]:
        """
        Return the image and its metadata.

        Args:
            img: what :py:meth:`read` returned, one file.

        Returns:
            display values 0..1, float32, shape ``(C, H, W)``, and their metadata; docs/pixels.md lists the keys.

        Raises:
            UnreadableImageError: When the file cannot be read as its format means it.
            SkippedFileError: When the file is no image.
            ValueError: When there are several files.
        """
        if len(img) != 1:
            raise ValueError(f"one file must be read at a time, got {len(img)}.")
        path, frame = split_frame(img[0])
        with one_line_errors(path), path.open("rb") as file:
            header, dicom = header_of(file, self.limits, self.secret)
            if not 0 <= frame < header.num_frames:
                raise UnreadableImageError(f"frame must be in [0, {header.num_frames - 1}], got {frame}.")
            if dicom is not None:
                values, meta = self._dicom(dicom, frame)
            elif header.format == "picture":
                values, meta = read_picture(file, frame, self.limits)
            else:
                values, meta = read_volume(path, header.format, frame)
            if not np.isfinite(values).all():
                raise UnreadableImageError("values must be finite, some are not.")
        values = _with_channels(values, self.channels)
        spacing = meta.get("spacing", np.full(2, np.nan))
        return values, {
            **UNKNOWN,
            "region": np.array([0, 0, *values.shape[1:]]),
            **vars(header),
            **meta,
            "frame": frame,
            "spacing": spacing,
            "affine": planar_affine(spacing),
            "original_affine": planar_affine(spacing),
            "space": SpaceKeys.RAS,
            "original_channel_dim": 0,
            "spatial_shape": np.array(values.shape[1:]),
        }

    def _dicom(self, opened: OpenedDicom, frame: int) -> tuple[np.ndarray, dict]:
        stored, photometric, decoder = decode_frame(opened.dataset, frame, opened.pixels())
        header = frame_header(opened.dataset, frame)
        spacing, source, magnification = pixel_spacing(header)
        values, note = display_values(header, stored, photometric, self.window, self.photometric)
        return values, {
            "display_note": note,
            "spacing": spacing,
            "spacing_source": source,
            "magnification": magnification,
            "region": scanned_region(header),
            "decoder": decoder,
        }


def planar_affine(spacing: np.ndarray) -> np.ndarray:
    """
    Return the affine of an upright picture: rows run to posterior, columns to the left of the patient (RAS+ in mm).

    This is where ITK puts a picture without orientation, and how radiological viewers show it upright.

    Args:
        spacing: millimetres per row and per column; not-a-number counts as 1.

    Returns:
        float64, shape ``(4, 4)``, from (row, column, slice) to RAS+.
    """
    rows, columns = np.nan_to_num(np.asarray(spacing, dtype=np.float64), nan=1.0)
    affine = np.diag([0.0, 0.0, 1.0, 1.0])
    affine[1, 0], affine[0, 1] = -rows, -columns
    return affine


def _with_channels(values: np.ndarray, channels: int | None) -> np.ndarray:
    if channels == 1 and len(values) == 3:
        values = np.tensordot(LUMINANCE, values, axes=1)[None]
    elif channels == 3 and len(values) == 1:
        values = values.repeat(3, axis=0)
    return np.ascontiguousarray(values, dtype=np.float32)
