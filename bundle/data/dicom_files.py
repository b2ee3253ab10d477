# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Open a DICOM file within limits: what it is, how many frames it holds and how large they are, before any decoding."""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bundle.data.errors import SkippedFileError, UnreadableImageError

__all__ = ["check_is_image", "check_size", "frame_count", "number", "open_dicom", "pseudonym"]

# storage classes with pixels that are measurements or labels, not pictures (PS3.4 B.5)
NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
}


def open_dicom(path: Path, max_bytes: int, header_only: bool = False) -> Dataset:
    """
    Return the data set of a DICOM file, with its file meta information.

    A deflated file (PS3.5 A.5) is inflated up to a limit, because a few kilobytes can hold gigabytes.

    Args:
        path: file to read.
        max_bytes: largest deflated data set, in bytes after inflation.
        header_only: stop before the pixel data.

    Raises:
        UnreadableImageError: When the inflated data set is larger than ``max_bytes``.
    """
    try:
        meta = read_file_meta_info(path)
    except InvalidDicomError:  # no preamble, so no file meta information to ask
        meta = FileMetaDataset()
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(path, force=True, stop_before_pixels=header_only)
    content = path.read_bytes()
    # PS3.10 7.1: the group length is the first element and counts from its own end, byte 144
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(content[start:], max_bytes)
    if inflater.unconsumed_tail:
        raise UnreadableImageError(f"the deflated data set must hold at most {max_bytes} bytes, it holds more.")
    dataset = read_dataset(BytesIO(inflated), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = meta
    return dataset


def check_is_image(dataset: Dataset) -> None:
    """
    Refuse a data set that is no picture.

    Args:
        dataset: header of the file.

    Raises:
        SkippedFileError: When the storage class holds no pictures, or there is no image (PS3.3 C.7.6.3).
    """
    sop_class = dataset.get("SOPClassUID", "")
    if sop_class in NOT_IMAGES:
        raise SkippedFileError(f"{NOT_IMAGES[sop_class]} is not an image to read.")
    if "Rows" not in dataset or "Columns" not in dataset:
        known = getattr(sop_class, "name", "")
        raise SkippedFileError(f"{known if known != sop_class else 'this DICOM file'} holds no image.")


def number(dataset: Dataset, keyword: str, default: float | None = None) -> float:
    """
    Return a numeric element as a finite number.

    Args:
        dataset: data set or sequence item.
        keyword: name of an element with one number.
        default: value of a missing or empty element; ``None`` makes it required.

    Raises:
        UnreadableImageError: When the element is missing without a default, or is not one finite number.
    """
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            if default is None:
                raise UnreadableImageError(f"{keyword} must be present.")
            return default
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, UnreadableImageError):
            raise
        raise UnreadableImageError(f"{keyword} must be a number, got none.") from None
    if not math.isfinite(result):
        raise UnreadableImageError(f"{keyword} must be finite, got {result}.")
    return result


def frame_count(dataset: Dataset) -> int:
    """
    Return Number of Frames (0028,0008), 1 where the element is absent (PS3.3 C.7.6.6).

    Args:
        dataset: header of the file.

    Raises:
        UnreadableImageError: When the value is not a positive whole number.
    """
    count = number(dataset, "NumberOfFrames", 1)
    if count < 1 or count != int(count):
        raise UnreadableImageError(f"NumberOfFrames must be a positive whole number, got {count:g}.")
    return int(count)


def check_size(dataset: Dataset, max_bytes: int, max_frame_bytes: int) -> None:
    """
    Refuse pixel data that would not fit, before anything is decoded.

    Args:
        dataset: header of the file.
        max_bytes: largest Rows x Columns x SamplesPerPixel x bytes x frames.
        max_frame_bytes: the same for one frame.

    Raises:
        UnreadableImageError: When a size is not positive or a limit is exceeded.
    """
    size = [number(dataset, name) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    if min(size) < 1:
        raise UnreadableImageError(f"Rows, Columns, SamplesPerPixel, BitsAllocated must be positive, got {size}.")
    frame = math.prod(size) / 8
    if frame > max_frame_bytes or frame * frame_count(dataset) > max_bytes:
        raise UnreadableImageError(
            f"a frame must hold at most {max_frame_bytes} bytes and all together {max_bytes}, "
            f"got {frame_count(dataset)} frames of {frame:.0f} bytes."
        )


def pseudonym(patient_id: str, secret: str) -> str:
    """
    Return a keyed hash that stands for a patient: the first 16 hexadecimal digits of HMAC-SHA-256.

    Args:
        patient_id: identifier as the file gives it.
        secret: key; whoever has it can link pseudonyms to known identifiers, so keep it apart from the results.

    Example:
        >>> pseudonym("", "key")
        ''
    """
    if not patient_id:
        return ""
    return hmac.new(secret.encode(), patient_id.strip().encode(), hashlib.sha256).hexdigest()[:16]
