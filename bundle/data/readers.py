# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One MONAI reader for every format, with one convention: display values 0..1, channel first, rows first, upright."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import PathLike
from monai.data import ITKReader, NibabelReader
from monai.data.image_reader import ImageReader
from monai.utils import SpaceKeys, ensure_tuple
from PIL import Image, ImageOps
from pydicom.config import disable_value_validation

from bundle.data.dicom_files import check_is_image, check_size, frame_count, open_dicom, pseudonym
from bundle.data.dicom_pixels import decode_frame, display_values
from bundle.data.errors import SkippedFileError, UnreadableImageError

__all__ = ["RadiologyReader", "file_format", "planar_affine", "split_frame"]

FRAME_SUFFIX = re.compile(r"#frame=(\d+)$")
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Y of PS3.3 C.7.6.3.1.2


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
        secret: key of the keyed hash that stands for the patient.
        max_bytes: largest decoded size of a file with all its frames.
        max_frame_bytes: largest decoded size of one frame.

    Raises:
        ValueError: When ``channels`` is not 1, 3 or ``None``.
    """

    def __init__(
        self,
        channels: int | None = None,
        window: str | None = "first",
        secret: str = "",
        max_bytes: int = 2**29,
        max_frame_bytes: int = 2**27,
    ) -> None:
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1, 3 or None, got {channels}.")
        self.channels, self.window, self.secret = channels, window, secret
        self.max_bytes, self.max_frame_bytes = max_bytes, max_frame_bytes

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: the content decides, not the name."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[str]:
        """Return the file names; reading waits for :py:meth:`get_data`."""
        return [str(name) for name in ensure_tuple(data)]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict]:
        """
        Args:
            img: what :py:meth:`read` returned, one file.

        Returns:
            display values 0..1, float32, shape ``(C, H, W)``, and their metadata; docs/pixels.md lists the keys.

        Raises:
            UnreadableImageError: When the file cannot be read as its format means it.
            SkippedFileError: When the file is no image.
        """
        path, frame = split_frame(img[0])
        with one_line_errors(path):
            kind = file_format(path)
            if kind == "dicom":
                values, meta = self._dicom(path, frame)
            elif kind in ("nifti", "itk"):
                values, meta = self._volume(path, frame, kind)
            else:
                values, meta = self._picture(path, frame)
            if not np.isfinite(values).all():
                raise UnreadableImageError("values must be finite, some are not.")
            values = self._with_channels(values)
        spacing = meta["spacing"]
        affine = planar_affine(spacing)
        return values, {
            **TEXT_DEFAULTS,
            **meta,
            "frame": frame,
            "affine": affine,
            "original_affine": affine.copy(),
            "space": SpaceKeys.RAS,
            "original_channel_dim": 0,
            "spatial_shape": np.array(values.shape[1:]),
            "filename_or_obj": str(path),
        }

    def _dicom(self, path: Path, frame: int) -> tuple[np.ndarray, dict]:
        header = open_dicom(path, self.max_bytes, header_only=True)
        check_is_image(header)
        check_size(header, self.max_bytes, self.max_frame_bytes)
        frames = frame_count(header)
        _check_frame(frame, frames)
        dataset = open_dicom(path, self.max_bytes)
        stored, photometric, decoder = decode_frame(dataset, frame)
        values = display_values(dataset, stored, photometric, self.window)
        spacing, source = _dicom_spacing(dataset)
        return values, {
            "num_frames": frames,
            "spacing": spacing,
            "spacing_source": source,
            "modality": str(dataset.get("Modality") or ""),
            "view_position": str(dataset.get("ViewPosition") or ""),
            "laterality": str(dataset.get("ImageLaterality") or dataset.get("Laterality") or ""),
            "photometric": str(dataset.get("PhotometricInterpretation") or ""),
            "decoder": decoder,
            "sop_instance_uid": str(dataset.get("SOPInstanceUID") or ""),
            "subject": pseudonym(str(dataset.get("PatientID") or ""), self.secret),
        }

    def _volume(self, path: Path, frame: int, kind: str) -> tuple[np.ndarray, dict]:
        reader = NibabelReader() if kind == "nifti" else ITKReader(reverse_indexing=False)
        volume, header = reader.get_data(reader.read(str(path)))
        affine = np.eye(4)
        size = header["affine"].shape[0] - 1
        affine[:size, :size] = header["affine"][:size, :size]
        array = np.asarray(volume)
        array = array.reshape(array.shape + (1,) * (3 - array.ndim))  # (x, y, z[, samples])
        orientation = nibabel.io_orientation(affine)
        array = nibabel.apply_orientation(array, orientation)
        step = nibabel.affines.voxel_sizes(affine @ nibabel.orientations.inv_ornt_aff(orientation, array.shape[:3]))
        _check_frame(frame, array.shape[2])
        scaled = _full_range(array)[:, :, frame]
        upright = scaled[::-1, ::-1].swapaxes(0, 1)  # right-to-left becomes columns, anterior-to-posterior rows
        samples = upright[None] if upright.ndim == 2 else np.moveaxis(upright[..., :3], -1, 0)
        spacing = np.array([step[1], step[0]])
        return samples, {"num_frames": array.shape[2], "spacing": spacing, "spacing_source": kind, "decoder": kind}

    def _picture(self, path: Path, frame: int) -> tuple[np.ndarray, dict]:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            _check_frame(frame, frames)
            if image.width * image.height * len(image.getbands()) > self.max_frame_bytes:
                raise UnreadableImageError(f"a picture must hold at most {self.max_frame_bytes} values.")
            image.seek(frame)
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("1", "LA", "La"):
                upright = upright.convert("L")
            elif upright.mode not in ("L", "F", "RGB") and not upright.mode.startswith("I"):
                upright = upright.convert("RGB")  # palettes, alpha, CMYK, YCbCr
            array = np.asarray(upright)
        scaled = _full_range(array)
        samples = scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        return samples, {"num_frames": frames, "spacing": np.full(2, np.nan), "decoder": f"pillow {Image.__version__}"}

    def _with_channels(self, values: np.ndarray) -> np.ndarray:
        if self.channels == 1 and len(values) == 3:
            values = np.tensordot(LUMINANCE, values, axes=1)[None]
        elif self.channels == 3 and len(values) == 1:
            values = values.repeat(3, axis=0)
        return np.ascontiguousarray(values, dtype=np.float32)


# words, not None, so that batches collate; an empty word means unknown
TEXT_DEFAULTS = {
    name: ""
    for name in (
        "spacing_source modality view_position laterality photometric decoder sop_instance_uid subject".split()
    )
}


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
    if head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return "dicom"
    raise SkippedFileError("this is no DICOM, PNG, JPEG, TIFF, NIfTI, MHA or NRRD file.")


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
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except (UnreadableImageError, SkippedFileError) as error:
        raise type(error)(f"{path.name}: {error}") from None
    except Exception as error:
        raise UnreadableImageError(
            f"{path.name}: the file must be whole, reading ended in {type(error).__name__}."
        ) from None
    finally:
        logger.disabled = was_disabled


def _check_frame(frame: int, frames: int) -> None:
    if not 0 <= frame < frames:
        raise UnreadableImageError(f"frame must be in [0, {frames - 1}], got {frame}.")


def _full_range(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8 or array.dtype == np.uint16:
        return array.astype(np.float32) / np.iinfo(array.dtype).max
    low, high = float(array.min()), float(array.max())
    return ((array - low) / (high - low or 1)).astype(np.float32)


def _dicom_spacing(dataset: Any) -> tuple[np.ndarray, str]:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        if dataset.get(name):
            return np.array([float(v) for v in dataset[name].value]), name
    return np.full(2, np.nan), ""
