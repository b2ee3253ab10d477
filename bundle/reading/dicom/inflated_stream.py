# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A deflated data set as a stream that is inflated while it is read: a few kilobytes can unpack to gigabytes."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from bundle.reading.errors import UnreadableImageError
from bundle.reading.limits import Limits

__all__ = ["open_inflated"]

CHUNK = 2**16


def open_inflated(file: BinaryIO, limits: Limits) -> io.BufferedReader:
    """
    Return what a deflated file holds from its present position on (PS3.5 A.5, RFC 1951), in constant memory.

    Args:
        file: stays open as long as the stream is read.
        limits: ``limits.file`` is the most that is inflated; of it, header and frame may be read, two times
            ``limits.frame`` together, and the rest only skipped.

    Example:
        >>> deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        >>> packed = deflater.compress(b"0123456789") + deflater.flush()
        >>> stream = open_inflated(io.BytesIO(packed), Limits())
        >>> stream.read(4), stream.seek(2), stream.read()
        (b'0123', 2, b'23456789')
    """
    return _Buffered(_Inflated(file, limits), limits.frame)


class _Buffered(io.BufferedReader):
    """The stream, which refuses to hand out more at once than a frame."""

    def __init__(self, raw: io.RawIOBase, most: int) -> None:
        super().__init__(raw, CHUNK)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise UnreadableImageError(
                f"an element of a deflated data set must hold at most {self._most} bytes, got {size}."
            )
        return super().read(size)


class _Inflated(io.RawIOBase):
    """Reads forward by inflating, and backward by starting again."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        super().__init__()
        self._file, self._start, self._limits = file, file.tell(), limits
        self._handed_out = 0
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(self._start)
        self._inflater, self._place = zlib.decompressobj(-zlib.MAX_WBITS), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._handed_out += len(data)
        if self._handed_out > 2 * self._limits.frame + CHUNK:
            raise UnreadableImageError(
                f"a deflated header and frame must hold at most {self._limits.frame} bytes each, they hold more."
            )
        return len(data)

    def _next(self, size: int) -> bytes:
        """Return up to so many inflated bytes, none at the end."""
        data, packed = b"", b"more"
        while not data and packed and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(CHUNK)
            data = self._inflater.decompress(packed, min(size, CHUNK))
        self._place += len(data)
        if self._place > self._limits.file:
            raise UnreadableImageError(
                f"the deflated data set must hold at most {self._limits.file} bytes, it holds more."
            )
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a deflated data set is not known before it is read.")
        target = offset + (self._place if whence == io.SEEK_CUR else 0)
        if target < self._place:
            self._rewind()
        while self._place < target and self._next(target - self._place):
            pass
        return self._place

    def tell(self) -> int:
        return self._place
