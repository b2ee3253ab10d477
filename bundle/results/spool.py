# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A list that lies on disk, so that a run over 100,000 images needs the memory of one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import Any

__all__ = ["Spool"]


class Spool:
    """
    Grow-only list of what JSON can say, in a file without a name that is gone when this object is.

    Example:
        >>> spool = Spool()
        >>> spool.append({"key": "a"}); spool.append({"key": "b"})
        >>> spool[1], [item["key"] for item in spool]
        ({'key': 'b'}, ['a', 'b'])
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, item: Any) -> None:
        """
        Add an item at the end.

        Args:
            item: plain numbers, words, lists and dictionaries.
        """
        self._starts.append(self._file.seek(0, 2))
        self._file.write(json.dumps(item).encode() + b"\n")

    def __getitem__(self, index: int) -> Any:
        self._file.seek(self._starts[index])
        return json.loads(self._file.readline())

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
