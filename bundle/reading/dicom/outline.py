# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Some elements of a DICOM file and the length of its pixel data, in a few kilobytes of memory whatever the file holds.

What a stranger sends is read so. Every other value, and all that sequences hold, is passed over.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from bundle.reading.dicom.header import frame_count
from bundle.reading.dicom.inflated_stream import open_inflated
from bundle.reading.errors import UnreadableImageError
from bundle.reading.limits import Limits

__all__ = ["Outline", "check_length", "read_outline"]

_LONGEST = 2**12  # bytes of a value that is asked for
_DEEPEST = 32  # sequences within one another
_MOST = 2**20  # elements and items that are passed over one by one: a second's work
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_PIXEL_DATA = (0x7FE0, 0x0010)
_LONG = {str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32}


class Outline(NamedTuple):
    """
    What a DICOM file says before its pixel data.

    Args:
        header: the elements that were asked for, as far as they are there, with the file meta information's transfer
            syntax.
        start: byte of the file at which the data set begins, behind the file meta information.
        pixels: byte of the file at which Pixel Data (7FE0,0010) begins; ``start`` for a deflated data set.
        length: bytes of its value, or of its fragments together.
        fragments: how many there are, the offset table (PS3.5 A.4) left out; ``None`` for uncompressed pixels.
    """

    header: Dataset
    start: int
    pixels: int
    length: int
    fragments: int | None


def read_outline(path: Path, keywords: Collection[str], limits: Limits) -> Outline:
    """
    Return some elements of a file and the length of its pixel data, whose values are not read.

    Args:
        path: file to read.
        keywords: elements of the data set to return; values of more than 4096 bytes are refused.
        limits: ``limits.file`` is the most that a deflated data set may inflate to.

    Raises:
        UnreadableImageError: When there is no pixel data, an element reaches beyond the file, sequences lie too deep
            within one another, or there are too many elements.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(132 if file.read(132)[128:] == b"DICM" else 0)
        meta = _Walk(file, size, False, "<")
        syntax = meta.to_data_set()
        start = file.tell()
        if syntax == DeflatedExplicitVRLittleEndian:
            walk = _Walk(open_inflated(file, limits), None, False, "<")
        else:
            head = file.read(6)
            file.seek(start)
            implicit, little = not head[4:6].isalpha(), head[1:2] <= head[:1]
            if syntax:
                implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
            walk = _Walk(file, size, implicit, "<" if little else ">")
        header, place = walk.to_pixel_data({Tag(word) for word in keywords})
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = UID(syntax)
        pixels = start if syntax == DeflatedExplicitVRLittleEndian else place
        return Outline(header, start, pixels, *walk.pixel_length())


def check_length(outline: Outline) -> None:
    """
    Refuse pixel data that cannot hold the frames which the header promises (PS3.3 C.7.6.3, PS3.5 8.1 and A.4).

    Args:
        outline: with the elements of the image pixel module, as far as they are there.

    Raises:
        UnreadableImageError: When an element that the length follows from is missing or no number, compressed pixels
            are not in fragments or others are, or there are too few bytes or fragments.
    """
    header, syntax = outline.header, outline.header.file_meta.get("TransferSyntaxUID")
    frames = frame_count(header)
    if syntax and UID(syntax).is_encapsulated != (outline.fragments is not None):
        raise UnreadableImageError("PixelData must be in fragments where it is compressed, and else not; it is other.")
    if outline.fragments is not None:
        if outline.fragments < frames:
            raise UnreadableImageError(f"PixelData must have {frames} fragments or more, got {outline.fragments}.")
        return
    try:
        expected = get_expected_length(header)
    except (AttributeError, TypeError, ValueError):
        raise UnreadableImageError("Rows, Columns and the other sizes of pixels must be numbers, are not.") from None
    if outline.length < expected:
        raise UnreadableImageError(f"PixelData must hold {expected} bytes, got {outline.length}.")


class _Walk:
    """Goes from element to element of a data set; ``size`` is where its stream ends, if that is known."""

    def __init__(self, stream: BinaryIO, size: int | None, implicit: bool, order: str) -> None:
        self._stream, self._size, self._implicit, self._order = stream, size, implicit, order
        self._left = _MOST

    def to_data_set(self) -> str:
        """Go to the end of the file meta information and return its transfer syntax."""
        syntax = ""
        while True:
            head = self._stream.read(2)
            self._stream.seek(-len(head), os.SEEK_CUR)
            if head != b"\2\0":
                return syntax
            tag, _, length = self._head()
            if tag == (0x0002, 0x0010):
                syntax = self._value(length).decode("latin-1").strip(" \0")
            else:
                self._pass(length)

    def to_pixel_data(self, wanted: Collection[BaseTag]) -> tuple[Dataset, int]:
        """Return the wanted elements, and the place of Pixel Data; the stream is then at its value."""
        found: dict[BaseTag, RawDataElement] = {}
        while True:
            place = self._stream.tell()
            tag, vr, length = self._head()
            if tag == _PIXEL_DATA:
                self._pixel_length = length
                return Dataset(found), place  # type: ignore[arg-type]
            if tag > _PIXEL_DATA:
                raise UnreadableImageError("PixelData (7FE0,0010) must be present, it is not.")
            if (number := BaseTag(tag[0] << 16 | tag[1])) not in wanted:
                self._skip(vr, length)
                continue
            value, words = self._value(length), (vr.decode("latin-1") if vr else None)
            little = self._order == "<"
            found[number] = RawDataElement(number, words, len(value), value, 0, vr is None, little)

    def pixel_length(self) -> tuple[int, int | None]:
        """Return the bytes of the pixel data, and how many fragments it has."""
        length = self._pixel_length
        if length != _UNDEFINED:
            self._pass(length)
            return length, None
        total, fragments = 0, -1  # the first item is the offset table
        while True:
            try:
                tag, _, length = self._head()
            except UnreadableImageError:  # some files end without the delimiter
                break
            if tag != _ITEM:
                break
            self._pass(length)
            total, fragments = total + length * (fragments >= 0), fragments + 1
        return total, max(fragments, 0)

    def _head(self) -> tuple[tuple[int, int], bytes | None, int]:
        """Return tag, value representation (``None`` where it is implicit) and length of the next element."""
        self._left -= 1
        if self._left < 0:
            raise UnreadableImageError(f"there must be at most {_MOST} elements and items, there are more.")
        head = self._stream.read(8)
        if len(head) < 8:
            raise UnreadableImageError("the file must be whole, it ends within its header.")
        group, element, vr, length = struct.unpack(f"{self._order}HH2sH", head)
        # items have no value representation, and some writers switch to implicit in the middle
        if self._implicit or group == 0xFFFE or not vr.isalpha():
            return (group, element), None, struct.unpack(f"{self._order}L", head[4:])[0]
        if vr in _LONG:
            more = self._stream.read(4)
            length = struct.unpack(f"{self._order}L", more)[0] if len(more) == 4 else _UNDEFINED
        return (group, element), vr, length

    def _value(self, length: int) -> bytes:
        if length > _LONGEST:
            raise UnreadableImageError(f"a value in question must have at most {_LONGEST} bytes, got {length}.")
        value = self._stream.read(length)
        if len(value) < length:
            raise UnreadableImageError("the file must be whole, it ends within a value.")
        return value

    def _pass(self, length: int) -> None:
        """Pass over some bytes."""
        target = self._stream.tell() + length
        if (self._size is not None and target > self._size) or self._stream.seek(target) < target:
            raise UnreadableImageError(f"the file must be whole, a value of {length} bytes reaches beyond its end.")

    def _skip(self, vr: bytes | None, length: int) -> None:
        """Pass over a value; one of undefined length is passed item by item, whatever lies within."""
        if length != _UNDEFINED:
            self._pass(length)
            return
        outer = [self._implicit]
        self._implicit = self._implicit or vr == b"UN"  # PS3.5 6.2.2, note 2
        while outer:  # one entry for each open sequence: how the data set around it is encoded
            tag, vr, length = self._head()
            if tag == _SEQUENCE_END:
                self._implicit = outer.pop()
            elif tag == _ITEM_END or (tag == _ITEM and length == _UNDEFINED):
                continue  # the elements of the item come next
            elif length != _UNDEFINED:
                self._pass(length)
            elif len(outer) == _DEEPEST:
                raise UnreadableImageError(f"sequences must lie at most {_DEEPEST} within one another, lie deeper.")
            else:
                outer.append(self._implicit)
                self._implicit = self._implicit or vr == b"UN"
