# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Open a DICOM file within limits, whatever its encoding, and leave its pixel data on disk until a frame is wanted."""

from __future__ import annotations

import os
import struct
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
from bundle.reading.dicom.header import frame_count
from bundle.reading.dicom.inflated_stream import open_inflated
from bundle.reading.errors import UnreadableImageError
from bundle.reading.limits import Limits

__all__ = ["OpenedDicom", "Pixels", "open_dicom", "read_to_pixels"]

PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # of floats, of doubles, of whole numbers


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


class OpenedDicom(NamedTuple):
    """
    An open DICOM file whose header is read and whose pixel data is still on disk.

    Args:
        dataset: its header, with the file meta information.
        stream: at the pixel data; of the bytes on disk, or of those that a deflated data set (PS3.5 A.5) inflates to,
            which is never held as a whole.
        size: bytes on disk, ``None`` for a deflated data set.
    """

    dataset: Dataset
    stream: BinaryIO
    size: int | None

    def pixels(self) -> Pixels:
        """
        Return where the pixel data lies, so that one frame of a long loop is read alone.

        A file that does not state its transfer syntax, as one without file meta information, gets the one that its
        bytes show.

        Raises:
            UnreadableImageError: When there is no pixel data, or its transfer syntax is neither stated nor shown.
        """
        pixels = _pixels(self.dataset, self.stream, self.size)
        if pixels is None:
            raise UnreadableImageError("PixelData (7FE0,0010) must be present, it is not.")
        if not self.dataset.file_meta.get("TransferSyntaxUID"):
            self.dataset.file_meta.TransferSyntaxUID = _shown_syntax(self.dataset, pixels)
        return pixels


def read_to_pixels(file: BinaryIO, limits: Limits) -> OpenedDicom:
    """
    Return the header of an open DICOM file, and the place where its pixel data begins.

    Args:
        file: at its start.
        limits: of what a deflated data set may hold.

    Raises:
        UnreadableImageError: When what precedes the pixel data of a deflated data set inflates to more than a frame.
    """
    dataset, stream = _read(file, limits, header_only=True)
    return OpenedDicom(dataset, stream, os.fstat(file.fileno()).st_size if stream is file else None)


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
