# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What passes by itself, such as a full disk, and so must not decide about a study for good."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

__all__ = ["NoRoomError", "PassingError", "check_room", "passing_cause"]

_PASSING = {
    getattr(errno, name)
    for name in (
        "ENOSPC EDQUOT EROFS EIO ESTALE ENODEV ENOMEM EMFILE ENFILE EAGAIN EBUSY ETIMEDOUT ECONNREFUSED ECONNRESET "
        "ECONNABORTED EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ENOTCONN"
    ).split()
    if hasattr(errno, name)
}


class PassingError(OSError):
    """Something that may be over later; one line without text from inside a file."""


class NoRoomError(PassingError):
    """No disk space left for now."""


def check_room(folder: Path, min_free_bytes: int, size: int) -> None:
    """
    Refuse to write where too little disk space would be left.

    Args:
        folder: on the disk in question.
        min_free_bytes: that must be left.
        size: bytes to be written.

    Raises:
        NoRoomError: When there is too little.
    """
    if shutil.disk_usage(folder).free < min_free_bytes + size:
        raise NoRoomError(f"less than {min_free_bytes + size} bytes are free on disk.")


def passing_cause(error: BaseException) -> str | None:
    """
    Return what passes and led to an error, in words; ``None`` where nothing did.

    Args:
        error: as it was caught; all that it was raised from or during is looked at.

    Example:
        >>> passing_cause(OSError(errno.ENOSPC, "No space left on device", "name of a patient"))
        'No space left on device'
        >>> passing_cause(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
        True
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, PassingError):
            return str(one)
        if isinstance(one, OSError) and one.errno in _PASSING:
            return str(one.strerror)
        if isinstance(one, (ConnectionError, TimeoutError)):
            return "the network is away"
        if isinstance(one, sqlite3.OperationalError):
            return "the database cannot be written to"
        if isinstance(one, MemoryError) or type(one).__name__ == "OutOfMemoryError":  # the latter is torch's
            return "there is too little memory"
    return None
