# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the header of a DICOM file says: what it is, how many frames it holds and how large they are."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.limits import Limits

__all__ = ["check_is_image", "check_size", "code_word", "frame_count", "frame_header", "number"]

UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
# storage classes with pixels that are measurements or labels, not pictures (PS3.4 B.5)
NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
}


def check_is_image(dataset: Dataset) -> None:
    """
    Refuse a data set that is no picture.

    Args:
        dataset: header of the file.

    Raises:
        SkippedFileError: When the storage class holds no pictures, or it is none of images and there is no image.
        UnreadableImageError: When the storage class is one of images and there is none.
    """
    sop_class = dataset.get("SOPClassUID", "")
    if sop_class in NOT_IMAGES:
        raise SkippedFileError(f"{NOT_IMAGES[sop_class]} is not an image to read.")
    if "Rows" not in dataset or "Columns" not in dataset:
        name = getattr(sop_class, "name", sop_class)
        if "Image Storage" in name:
            raise UnreadableImageError(f"Rows and Columns must be present in {name}, they are not.")
        raise SkippedFileError(f"{name if name != sop_class else 'this DICOM file'} holds no image.")


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
        result = default if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UnreadableImageError(f"{keyword} must be one number, it is not.") from None
    if result is None:
        raise UnreadableImageError(f"{keyword} must be present, it is not.")
    if not math.isfinite(result):
        raise UnreadableImageError(f"{keyword} must be finite, got {result}.")
    return result


def code_word(dataset: Dataset, keyword: str) -> str:
    """
    Return a code string to compare with the Standard's words: in capitals, without padding of spaces and zero bytes.

    Args:
        dataset: data set or sequence item.
        keyword: name of the element; empty is returned for an absent one.
    """
    return str(dataset.get(keyword) or "").strip(" \0").upper()


def frame_count(dataset: Dataset) -> int:
    """
    Return Number of Frames (0028,0008), 1 where the element is absent or empty (PS3.3 C.7.6.6).

    Args:
        dataset: header of the file.

    Raises:
        UnreadableImageError: When the value is not a positive whole number.
    """
    count = number(dataset, "NumberOfFrames", 1)
    if count < 1 or count != int(count):
        raise UnreadableImageError(f"NumberOfFrames must be a positive whole number, got {count:g}.")
    return int(count)


def check_size(dataset: Dataset, limits: Limits, file_size: int) -> None:
    """
    Refuse a bit depth that lies, a frame that would not fit, and frames that the file cannot hold (PS3.3 C.7.6.3).

    Frames are decoded one at a time, so a loop may be as long as its file says, unless that is deflated as a whole.

    Args:
        dataset: header of the file.
        limits: what fits.
        file_size: bytes of the file; a deflated one is not held against it.

    Raises:
        UnreadableImageError: When a size is not positive, the bits contradict one another, a limit is exceeded, or
            there are more frames than the file can hold.
    """
    rows, columns, samples = (number(dataset, name) for name in ("Rows", "Columns", "SamplesPerPixel"))
    allocated, stored = number(dataset, "BitsAllocated"), number(dataset, "BitsStored")
    if min(rows, columns) < 1 or samples not in (1, 3):
        raise UnreadableImageError(
            f"Rows and Columns must be positive and SamplesPerPixel 1 or 3, got {rows:g}, {columns:g}, {samples:g}."
        )
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise UnreadableImageError(
            f"BitsAllocated must be 1, 8, 16 or 32 and BitsStored within it, got {allocated:g} and {stored:g}."
        )
    high, sign = number(dataset, "HighBit", stored - 1), number(dataset, "PixelRepresentation", 0)
    if high != stored - 1 or sign not in (0, 1):
        raise UnreadableImageError(
            f"HighBit must be BitsStored - 1 and PixelRepresentation 0 or 1, got {high:g}, {stored:g} and {sign:g}."
        )
    frames, frame_bytes = frame_count(dataset), rows * columns * samples * allocated / 8
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    limits.check(frame_bytes, frames if syntax == DeflatedExplicitVRLittleEndian else 1)
    if frames > 1 and syntax != DeflatedExplicitVRLittleEndian:
        # every compressed frame is an item with a header of 8 bytes, and YBR_FULL_422 stores two samples of three
        smallest = frame_bytes * 2 / 3 if syntax in UNCOMPRESSED else 8
        if frames * smallest > file_size:
            raise UnreadableImageError(f"NumberOfFrames must fit the file of {file_size} bytes, got {frames}.")


def frame_header(dataset: Dataset, index: int) -> Dataset:
    """
    Return the header that holds for one frame: functional groups override the common elements (PS3.3 C.7.6.16).

    Args:
        dataset: the file's data set.
        index: frame, from 0.
    """
    groups = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    groups += list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    if not groups:
        return dataset
    header = Dataset({tag: dataset.get_item(tag) for tag in dataset.keys()})
    header.file_meta = dataset.file_meta
    for group in groups:
        for macro in group:
            if macro.VR == "SQ" and macro.value:
                header.update(macro.value[0])
    return header
