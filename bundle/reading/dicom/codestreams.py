# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a compressed frame says of itself: its size, its syntax, and where it ends."""

from __future__ import annotations

import struct

from pydicom import uid

__all__ = ["codestream_size", "codestream_syntax", "ends_of_jpegls"]

NO_SIZE = {0xC4, 0xC8, 0xCC}  # among the JPEG markers C0..CF: Huffman tables, reserved, arithmetic conditioning
# by the marker that starts a frame (ISO/IEC 10918-1 table B.1, 14495-1 C.1.1), the syntax that may hold any such
BY_MARKER = {
    0xC0: uid.JPEGBaseline8Bit,
    0xC1: uid.JPEGExtended12Bit,
    0xC3: uid.JPEGLossless,
    0xF7: uid.JPEGLSNearLossless,
}
MOST_ZEROS_OF_A_SCAN = 4  # a code word has at most 32 bits, so what a scan truly ends in


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """
    Return rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream states, ``None`` where it is none of them.

    Args:
        frame: compressed frame.

    Example:
        >>> codestream_size(bytes.fromhex("ffd8 ffc0 0011 08 0010 0020 03"))
        (16, 32)
    """
    start = _start_of_jpeg2000(frame)
    if start >= 0 and len(frame) >= start + 24:  # ISO/IEC 15444-1 A.5.1
        width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
        return height - top, width - left
    place = _start_of_frame(frame)
    return None if place is None else struct.unpack_from(">2H", frame, place + 5)


def codestream_syntax(frame: bytes) -> uid.UID | None:
    """
    Return the transfer syntax that a compressed frame shows, ``None`` where it shows none.

    Args:
        frame: compressed frame.

    Example:
        >>> codestream_syntax(bytes.fromhex("ffd8 ffc0 0011 08 0010 0020 03")).name
        'JPEG Baseline (Process 1)'
    """
    start = _start_of_jpeg2000(frame)
    if start >= 0:
        after_size = start + 4 + struct.unpack_from(">H", frame, start + 4)[0]
        return uid.HTJ2K if frame[after_size : after_size + 2] == b"\xff\x50" else uid.JPEG2000  # ISO/IEC 15444-15 A.3
    place = _start_of_frame(frame)
    if place is not None:
        return BY_MARKER.get(frame[place + 1])
    # PS3.5 G.5: a header of 64 bytes, the number of segments and where each begins, the first right behind it
    segments, first = struct.unpack_from("<2L", frame) if len(frame) > 64 else (0, 0)
    return uid.RLELossless if 1 <= segments <= 15 and first == 64 else None


def ends_of_jpegls(frame: bytes) -> list[bytes]:
    """
    Return a JPEG-LS frame without the zero bytes before its end-of-image marker, which some writers put there.

    A scan may truly end in a few zero bytes, so there are several to try, the shortest first.

    Args:
        frame: compressed frame.

    Returns:
        frames that end in the marker, none where there are no such zeros.

    Example:
        >>> [end.hex() for end in ends_of_jpegls(bytes.fromhex("ffd8 17 0000 ffd9 00"))]
        ['ffd817ffd9', 'ffd81700ffd9']
    """
    end = frame.rfind(b"\xff\xd9")
    scan = frame[:end].rstrip(b"\0")
    zeros = max(end, 0) - len(scan)
    return (
        [scan + b"\0" * kept + b"\xff\xd9" for kept in range(min(zeros, MOST_ZEROS_OF_A_SCAN + 1))] if end > 0 else []
    )


def _start_of_jpeg2000(frame: bytes) -> int:
    """Return where a JPEG 2000 codestream begins, in the box of a JP2 file (15444-1 I.4) or at once; -1 for nowhere."""
    place = 0
    if frame[4:12] == b"jP  \r\n\x87\n":
        while frame[place + 4 : place + 8] != b"jp2c" and place + 16 <= len(frame):
            length, _, extended = struct.unpack_from(">LLQ", frame, place)
            place += max(extended if length == 1 else length, 8)
        place += 16 if frame[place : place + 4] == b"\0\0\0\1" else 8
    return place if frame[place : place + 4] == b"\xff\x4f\xff\x51" else -1


def _start_of_frame(frame: bytes) -> int | None:
    """Return where the marker lies that starts the frame of a JPEG or JPEG-LS codestream (ISO/IEC 10918-1 B.2.2)."""
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in NO_SIZE):
            return place
        # a fill byte stands alone, a segment carries its length
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None
