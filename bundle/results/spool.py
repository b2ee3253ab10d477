# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A list that lies on disk, so that a run over 100,000 images needs the memory of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle.files import writing

__all__ = ["Spool"]


class Spool:
    """
    Grow-only list of what JSON can say, in a file.

    Args:
        path: the file, made if missing.
        size: bytes of the file that hold items already; what follows is cut off.

    Raises:
        CannotWriteError: When the file cannot be written, here and by every other method.
        ValueError: When the file has fewer bytes.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self._starts: list[int] = []
        with writing(path):
            self._file = path.open("a+b")
            if self._file.seek(0, 2) < size:
                raise ValueError(f"'{path.name}' must hold {size} bytes, it holds {self._file.tell()}.")
            self._file.truncate(size)
        self._file.seek(0)
        while self._file.tell() < size:
            self._starts.append(self._file.tell())
            self._file.readline()

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, item: Any) -> None:
        """
        Add an item at the end.

        Args:
            item: plain numbers, words, lists and dictionaries.
        """
        with writing(self.path):
            self._starts.append(self._file.seek(0, 2))
            self._file.write(json.dumps(item).encode() + b"\n")

    def size(self) -> int:
        """Return the bytes of all items, which another process would find now."""
        with writing(self.path):
            self._file.flush()
            return self._file.seek(0, 2)

    def __getitem__(self, index: int) -> Any:
        self._file.seek(self._starts[index])
        return json.loads(self._file.readline())

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
