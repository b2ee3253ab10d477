# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Open a DICOM file within limits: what it is, how many frames it holds and how large they are, before any decoding."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from bundle.reading.dicom.codestreams import codestream_syntax
from bundle.reading.dicom.inflated_stream import open_inflated
from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.limits import Limits

__all__ = [
    "Pixels",
    "check_is_image",
    "check_size",
    "code_word",
    "frame_count",
    "frame_header",
    "number",
    "open_dicom",
    "open_pixels",
    "pseudonym",
    "run_secret",
]

PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # of floats, of doubles, of whole numbers
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
# storage classes with pixels that are measurements or labels, not pictures (PS3.4 B.5)
NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map",
}


class Pixels(NamedTuple):
    """
    Where the value of Pixel Data (7FE0,0010) lies.

    Args:
        stream: open file, at the first byte of the value.
        length: bytes of the value that the file has, ``None`` for the fragments of a compressed one (PS3.5 A.4).
        vr: its value representation.
    """

    stream: BinaryIO
    length: int | None
    vr: str


def open_dicom(path: Path, limits: Limits, header_only: bool = False) -> Dataset:
    """
    Return the data set of a DICOM file, with its file meta information.

    Args:
        path: file to read.
        limits: of what a deflated data set may hold.
        header_only: stop before the pixel data.

    Raises:
        UnreadableImageError: When what precedes the pixel data of a deflated data set inflates to more than a frame.
    """
    with path.open("rb") as file:
        return _read(file, limits, header_only)[0]


@contextmanager
def open_pixels(path: Path, limits: Limits) -> Iterator[tuple[Dataset, Pixels]]:
    """
    Give the header of a DICOM file and its pixel data still on disk, so that one frame of a long loop is read alone.

    A deflated data set (PS3.5 A.5) is inflated as it is read and never held as a whole. A file that does not state its
    transfer syntax, as one without file meta information, gets the one that its bytes show.

    Args:
        path: file to read.
        limits: of what a deflated data set may hold.

    Raises:
        UnreadableImageError: When there is no pixel data, its transfer syntax is neither stated nor shown, or a
            deflated data set inflates to too much.
    """
    with path.open("rb") as file:
        dataset, stream = _read(file, limits, header_only=True)
        pixels = _pixels(dataset, stream, path.stat().st_size if stream is file else None)
        if pixels is None:
            raise UnreadableImageError("PixelData (7FE0,0010) must be present, it is not.")
        if not dataset.file_meta.get("TransferSyntaxUID"):
            dataset.file_meta.TransferSyntaxUID = _shown_syntax(dataset, pixels)
        yield dataset, pixels


def _read(file: BinaryIO, limits: Limits, header_only: bool) -> tuple[Dataset, BinaryIO]:
    """Return a data set and the stream that it was read from, left at its end or at the pixel data."""
    read_preamble(file, force=True)
    meta = FileMetaDataset(read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2))
    syntax, stream = meta.get("TransferSyntaxUID"), file
    if syntax == DeflatedExplicitVRLittleEndian:
        stream, is_implicit, is_little = open_inflated(file, limits), False, True
    elif syntax:
        file.seek(0)
        return pydicom.dcmread(file, force=True, stop_before_pixels=header_only), file
    else:
        is_implicit, is_little = _shown_encoding(file)
    dataset = read_dataset(stream, is_implicit, is_little, stop_when=_at_pixel_data if header_only else None)
    dataset.file_meta = meta
    return dataset, stream


def _at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in PIXEL_DATA


def _shown_encoding(file: BinaryIO) -> tuple[bool, bool]:
    """Return whether a data set has implicit VR and is little endian, by its first element, which is of a low group."""
    head = file.read(6)
    file.seek(-len(head), 1)
    return head[4:].decode("latin-1") not in set(VR), head[1:2] <= head[:1]


def _pixels(dataset: Dataset, stream: BinaryIO, file_size: int | None) -> Pixels | None:
    """Return the place of the pixel data from its tag, value representation and length (PS3.5 7.1)."""
    is_little = dataset.original_encoding[1]
    order, head = "<" if is_little else ">", stream.read(8)
    if len(head) < 8 or struct.unpack(f"{order}2H", head[:4]) != (0x7FE0, 0x0010):
        return None
    vr = head[4:6].decode("latin-1")
    if vr in ("OB", "OW", "UN"):  # no even length begins with these letters
        (length,) = struct.unpack(f"{order}L", stream.read(4))
    else:  # implicit; some files are explicit up to here
        vr, (length,) = "OW", struct.unpack(f"{order}L", head[4:])
    if length == 0xFFFFFFFF:
        if file_size is not None:
            _check_fragments(stream, order, file_size)
        return Pixels(stream, None, vr)
    return Pixels(stream, length if file_size is None else min(length, file_size - stream.tell()), vr)


def _check_fragments(stream: BinaryIO, order: str, file_size: int) -> None:
    """Refuse fragments that reach beyond the file (PS3.5 A.4): many decoders make an image of half a frame."""
    place = start = stream.tell()
    while place + 8 <= file_size:
        stream.seek(place)
        group, element, length = struct.unpack(f"{order}2HL", stream.read(8))
        if (group, element) != (0xFFFE, 0xE000):  # the end, or what the decoder will refuse
            break
        place += 8 + length
    stream.seek(start)
    if place > file_size:
        raise UnreadableImageError(
            f"PixelData must be whole, its fragments end {place - file_size} bytes behind the file."
        )


def _shown_syntax(dataset: Dataset, pixels: Pixels) -> UID:
    """Return the transfer syntax of a file that does not state it, by the encoding and the first compressed frame."""
    is_implicit, is_little = dataset.original_encoding
    if pixels.length is not None:
        if not is_little:  # implicit VR goes with it in no syntax of the Standard, and says nothing of pixels
            return ExplicitVRBigEndian
        return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    place = pixels.stream.tell()
    frame = get_frame(pixels.stream, 0, number_of_frames=frame_count(dataset))
    pixels.stream.seek(place)
    syntax = codestream_syntax(frame)
    if syntax is None:
        raise UnreadableImageError(
            "TransferSyntaxUID (0002,0010) must be stated or shown by the pixel data, it is not."
        )
    return syntax


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


@cache
def run_secret() -> str:
    """Return a key that is drawn once a process: pseudonyms agree within a run and say nothing after it."""
    return secrets.token_hex(16)


def pseudonym(patient_id: str, secret: str) -> str:
    """
    Return a keyed hash that stands for a patient: the first 16 hexadecimal digits of HMAC-SHA-256.

    Without a key nothing is returned, because a hash without a key can be undone by trying identifiers.

    Args:
        patient_id: identifier as the file gives it.
        secret: key; whoever has it can link pseudonyms to known identifiers, so keep it apart from the results.

    Example:
        >>> pseudonym("4711", ""), len(pseudonym("4711", "key"))
        ('', 16)
    """
    if not patient_id.strip() or not secret:
        return ""
    return hmac.new(secret.encode(), patient_id.strip().encode(), hashlib.sha256).hexdigest()[:16]
