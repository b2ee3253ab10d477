# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Look-up tables of DICOM: one reader for Modality, VOI and palette tables, in either byte order and either width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from bundle.reading.errors import UnreadableImageError

__all__ = ["Lut", "read_lut", "read_palette"]

MOST_ENTRIES = 2**16  # PS3.3 C.11.1.1: the first value of the descriptor has 16 bits, and 0 stands for 2^16


@dataclass(frozen=True)
class Lut:
    """
    A table from input values to output values (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

    Args:
        entries: output values, unsigned, shape ``(N,)``.
        first: input value that the first entry is for; inputs below it get the first, beyond the table the last entry.
        bits: bits of an entry by the descriptor.
    """

    entries: np.ndarray
    first: int
    bits: int

    @property
    def top(self) -> int:
        """Return the largest value an entry can have: by the descriptor, by the entries where they need more bits."""
        return 2 ** max(self.bits, int(self.entries.max()).bit_length()) - 1

    @property
    def doubt(self) -> str:
        """Return a note where the entries use a quarter of the descriptor's range or less: one of them is wrong."""
        used = int(self.entries.max()).bit_length()
        if used >= self.bits - 1:
            return ""
        return f"a table of {self.bits} bits by its descriptor contradicts its entries of {used}"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """
        Return the entries for input values.

        Args:
            values: whole numbers, of any shape and type.

        Example:
            >>> Lut(np.array([7, 8, 9]), first=1, bits=8)(np.array([0, 1, 2, 200])).tolist()
            [7, 7, 8, 9]
        """
        if values.dtype.kind == "f":
            values = np.rint(values)
        index = values.astype(np.int32 if values.itemsize <= 2 else np.int64) - self.first
        return self.entries[np.clip(index, 0, len(self.entries) - 1)]


def read_lut(item: Dataset, header: Dataset, low: float, high: float) -> Lut | None:
    """
    Return the table of an item of Modality LUT Sequence or VOI LUT Sequence, ``None`` where it holds no entries.

    Args:
        item: item with LUT Descriptor (0028,3002) and LUT Data (0028,3006).
        header: header of the frame, whose transfer syntax says the order of bytes.
        low: smallest input value, which tells the sign of the first value mapped.
        high: largest input value.

    Raises:
        UnreadableImageError: When there are entries, but not those that the descriptor promises.
    """
    if not _length(item, "LUTData"):
        return None
    count, first, bits = _descriptor(item, "LUTDescriptor")
    entries = _entries(item, "LUTData", bits, count, _little_endian(header))
    return _lut(entries, count, first, bits, low, high, "LUTData")


def read_palette(header: Dataset, low: float, high: float) -> list[Lut]:
    """
    Return the tables of red, green and blue, whole or in segments (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2).

    Args:
        header: header of the frame.
        low: smallest stored value.
        high: largest stored value.

    Raises:
        UnreadableImageError: When a table is missing, shorter than its descriptor, or has impossible segments.
    """
    little_endian, luts = _little_endian(header), []
    for color in ("Red", "Green", "Blue"):
        stem = f"{color}PaletteColorLookupTable"
        count, first, bits = _descriptor(header, f"{stem}Descriptor")
        if _length(header, f"{stem}Data"):
            entries = _entries(header, f"{stem}Data", bits, count, little_endian)
        elif _length(header, f"Segmented{stem}Data"):
            # segments are written in units of an entry, so there is no count to tell words from bytes by
            words = _entries(header, f"Segmented{stem}Data", bits, MOST_ENTRIES, little_endian)
            entries = _expanded(words, 1 if bits <= 8 else 2)
        else:
            raise UnreadableImageError(f"{stem}Data must be present, it is not.")
        luts.append(_lut(entries, count, first, bits, low, high, f"{stem}Data"))
    return luts


def _little_endian(header: Dataset) -> bool:
    return getattr(header, "file_meta", {}).get("TransferSyntaxUID") != ExplicitVRBigEndian


def _length(item: Dataset, keyword: str) -> int:
    """Return how many bytes or values an element has."""
    value = item.get(keyword)
    return 0 if value is None else len(value) if hasattr(value, "__len__") else 1


def _descriptor(item: Dataset, keyword: str) -> tuple[int, int, int]:
    """Return the number of entries, the first input value as written, and the bits of an entry."""
    try:
        count, first, bits = (int(value) for value in item.get(keyword))
    except Exception:  # absent, of another length, or of another kind
        raise UnreadableImageError(f"{keyword} must be three numbers, it is not.") from None
    if not 1 <= bits <= 16:
        raise UnreadableImageError(f"{keyword} must state 1 to 16 bits, got {bits}.")
    return count % 2**16 or MOST_ENTRIES, first, bits  # SS makes large counts negative


def _entries(item: Dataset, keyword: str, bits: int, count: int, little_endian: bool) -> np.ndarray:
    """
    Return the values of a table: 16-bit words, or bytes where entries have 8 bits and words would be too few.

    Two entries of 8 bits share a word, the first in its low byte (PS3.5 8.3 with PS3.3 C.7.6.3.1.6), so that bytes that
    were written as OW are in pairs turned over in a big-endian file.
    """
    value = item.get(keyword)
    if isinstance(value, bytes):
        even = value + b"\0" * (len(value) % 2)
        if item[keyword].VR == "OB" and bits <= 8 and len(even) // 2 < count:
            return np.frombuffer(value, np.uint8)
        words = np.frombuffer(even, "<u2" if little_endian else ">u2").astype(np.uint16)
    else:
        numbers = list(value) if hasattr(value, "__len__") else [value]
        words = (np.array(numbers, dtype=np.int64) % 2**16).astype(np.uint16)
    return words if bits > 8 or len(words) >= count else words.astype("<u2").view(np.uint8)


def _lut(entries: np.ndarray, count: int, first: int, bits: int, low: float, high: float, name: str) -> Lut:
    if len(entries) < count:
        raise UnreadableImageError(f"{name} must hold {count} entries, got {len(entries)}.")

    def covered(start: int) -> float:
        return min(high, start + count - 1) - max(low, start)

    # US or SS: the VR is ambiguous and often wrong, so the sign that puts the table on the values is taken
    other = first - 2**16 if first >= 2**15 else first + 2**16 if first < 0 else first
    return Lut(entries[:count], max(first, other, key=covered), bits)


def _expanded(words: np.ndarray, size: int) -> np.ndarray:
    """
    Return the table that segments stand for (PS3.3 C.7.9.2).

    Args:
        words: segments, in units of ``size`` bytes.
        size: bytes of a unit.

    Raises:
        UnreadableImageError: When there are more than 65536 entries, since a few bytes can stand for millions, or the
            segments are none.
    """
    entries: list[int] = []

    def expand(place: int, segments: int, may_refer: bool) -> None:
        while segments and place + 2 < len(words):  # what is shorter than the shortest segment is padding
            kind, length = int(words[place]), int(words[place + 1])
            place, segments = place + 2, segments - 1
            if kind != 2 and len(entries) + length > MOST_ENTRIES:
                raise UnreadableImageError(
                    f"a palette must have at most {MOST_ENTRIES} entries, got {len(entries) + length}."
                )
            if kind == 0 and length:  # discrete
                entries.extend(int(word) for word in words[place : place + length])
                place += length
            elif kind == 1 and length and entries:  # linear, from the last entry on
                end = int(words[place])
                entries.extend(np.rint(np.linspace(entries[-1], end, length + 1)[1:]).astype(int).tolist())
                place += 1
            elif kind == 2 and entries and may_refer and place + 4 // size <= len(words):  # indirect
                offset = sum(int(words[place + i]) << (8 * size * i) for i in range(4 // size))
                expand(offset // size, length, False)
                place += 4 // size
            else:
                raise UnreadableImageError(f"palette segments must be discrete, linear or indirect, got kind {kind}.")

    expand(0, len(words), True)
    if not entries:
        raise UnreadableImageError("a palette must have at least 1 entry, got 0.")
    return np.array(entries, dtype=np.uint16)
