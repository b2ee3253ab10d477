# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One MONAI reader for every format, with one convention: display values 0..1, channel first, rows first, upright."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data.image_reader import ImageReader
from monai.utils import SpaceKeys, ensure_tuple

from bundle.reading.dicom.decoders import decode_frame
from bundle.reading.dicom.geometry import pixel_spacing, scanned_region
from bundle.reading.dicom.header import (
    check_is_image,
    check_size,
    frame_count,
    frame_header,
    open_dicom,
    open_pixels,
    pseudonym,
    run_secret,
)
from bundle.reading.dicom.pixels import GRAY, display_values
from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.limits import Limits
from bundle.reading.pictures import picture_frames, read_picture
from bundle.reading.volumes import read_volume, volume_frames

__all__ = ["RadiologyReader", "count_frames", "file_format", "one_line_errors", "planar_affine", "split_frame"]

FRAME_SUFFIX = re.compile(r"#frame=(\d+)$")
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Y of PS3.3 C.7.6.3.1.2
# words and not-a-number, not None, so that batches collate: unknown is an empty word or not-a-number
UNKNOWN = {
    "display_note": "",
    "spacing_source": "",
    "magnification": 1.0,
    "modality": "",
    "view_position": "",
    "laterality": "",
    "photometric": "",
    "sop_class_uid": "",
    "sop_instance_uid": "",
    "subject": "",
    "presentation_intent": "",
    "burned_in_annotation": "",
}


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
        with one_line_errors(path):
            kind = file_format(path)
            frames = count_frames(path, kind, self.limits)
            if not 0 <= frame < frames:
                raise UnreadableImageError(f"frame must be in [0, {frames - 1}], got {frame}.")
            if kind == "dicom":
                values, meta = self._dicom(path, frame)
            elif kind == "picture":
                values, meta = read_picture(path, frame, self.limits)
            else:
                values, meta = read_volume(path, kind, frame)
            if not np.isfinite(values).all():
                raise UnreadableImageError("values must be finite, some are not.")
        values = _with_channels(values, self.channels)
        spacing = meta.get("spacing", np.full(2, np.nan))
        return values, {
            **UNKNOWN,
            "region": np.array([0, 0, *values.shape[1:]]),
            **meta,
            "frame": frame,
            "num_frames": frames,
            "spacing": spacing,
            "affine": planar_affine(spacing),
            "original_affine": planar_affine(spacing),
            "space": SpaceKeys.RAS,
            "original_channel_dim": 0,
            "spatial_shape": np.array(values.shape[1:]),
        }

    def _dicom(self, path: Path, frame: int) -> tuple[np.ndarray, dict]:
        with open_pixels(path, self.limits) as (dataset, pixels):
            stored, photometric, decoder = decode_frame(dataset, frame, pixels)
        header = frame_header(dataset, frame)
        spacing, source, magnification = pixel_spacing(header)
        values, note = display_values(header, stored, photometric, self.window, self.photometric)
        return values, {
            "display_note": note,
            "spacing": spacing,
            "spacing_source": source,
            "magnification": magnification,
            "region": scanned_region(header),
            "modality": _code(header, "Modality"),
            "view_position": _code(header, "ViewPosition"),
            "laterality": _code(header, "ImageLaterality") or _code(header, "Laterality"),
            "photometric": _code(header, "PhotometricInterpretation"),
            "presentation_intent": _code(header, "PresentationIntentType"),
            "burned_in_annotation": _code(header, "BurnedInAnnotation"),
            "decoder": decoder,
            "sop_class_uid": str(header.get("SOPClassUID") or ""),
            "sop_instance_uid": str(header.get("SOPInstanceUID") or ""),
            "subject": pseudonym(str(header.get("PatientID") or ""), self.secret),
        }


def count_frames(path: Path, kind: str, limits: Limits) -> int:
    """
    Return how many frames a file holds, from its header, after the checks that need no pixels.

    Args:
        path: file to look at.
        kind: its format, as :py:func:`file_format` returns it.
        limits: what fits.

    Raises:
        UnreadableImageError: When the header contradicts itself or a limit is exceeded.
        SkippedFileError: When the file is no image.
    """
    if kind == "picture":
        return picture_frames(path, limits)
    if kind != "dicom":
        return volume_frames(path, kind, limits)
    header = open_dicom(path, limits, header_only=True)
    check_is_image(header)
    check_size(header, limits, path.stat().st_size)
    return frame_count(header)


def split_frame(name: str) -> tuple[Path, int]:
    """
    Return the file and the frame that a data list names.

    Args:
        name: a path, with ``#frame=N`` after it for frame N, counted from 0.

    Example:
        >>> split_frame("loop.dcm#frame=7")[1], split_frame("film.dcm")[1]
        (7, 0)
    """
    match = FRAME_SUFFIX.search(name)
    if match is None or Path(name).exists():
        return Path(name), 0
    return Path(name[: match.start()]), int(match.group(1))


def file_format(path: Path) -> str:
    """
    Return ``"dicom"``, ``"nifti"``, ``"itk"`` or ``"picture"`` by a file's content, then its name.

    Args:
        path: file to look at.

    Raises:
        SkippedFileError: When the file is none of them.
    """
    with path.open("rb") as file:
        head = file.read(132)
    name = path.name.lower()
    if head[128:] == b"DICM":
        return "dicom"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")):
        return "picture"
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith(".mha") or head.startswith(b"NRRD"):
        return "itk"
    # a data set without preamble starts with group 0002 or 0008, in either byte order
    if name.endswith(".dcm") or head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return "dicom"
    raise SkippedFileError("this is no DICOM, PNG, JPEG, TIFF, BMP, NIfTI, MHA or NRRD file.")


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


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Name the file in every refusal, turn any other failure into one, and keep the file's text out of the logs."""
    try:
        with quiet_dicom():
            yield
    except (UnreadableImageError, SkippedFileError) as error:
        raise type(error)(f"{path.name}: {error}") from None
    except FileNotFoundError:
        raise UnreadableImageError(f"{path.name}: the file must exist, it does not.") from None
    except Exception as error:
        kind = type(error).__name__
        raise UnreadableImageError(f"{path.name}: the file must be whole, reading ended in {kind}.") from None


def _with_channels(values: np.ndarray, channels: int | None) -> np.ndarray:
    if channels == 1 and len(values) == 3:
        values = np.tensordot(LUMINANCE, values, axes=1)[None]
    elif channels == 3 and len(values) == 1:
        values = values.repeat(3, axis=0)
    return np.ascontiguousarray(values, dtype=np.float32)


def _code(header: Any, keyword: str) -> str:
    """Return a code string (PS3.5 6.2), empty where the file holds other text, which could be anything."""
    value = str(header.get(keyword) or "").strip()
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""
