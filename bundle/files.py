# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever ends the process that writes them, and files that stay in their folder."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "OWN_ROOT",
    "CannotWriteError",
    "atomic_path",
    "file_sha256",
    "file_state",
    "lies_in",
    "remove_partial_files",
    "stream_sha256",
    "writing",
]

_PREFIX = ".partial-"
_PACKAGE = Path(__file__).resolve().parent
# where configs/ and models/ lie: beside the package, or in it where a wheel was installed
OWN_ROOT = _PACKAGE / "beside" if (_PACKAGE / "beside").is_dir() else _PACKAGE.parent


class CannotWriteError(OSError):
    """A file that cannot be written, since the disk is full or the folder read-only: one line with both names."""


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """
    Turn every failure to write into one line.

    Args:
        path: what is written.

    Raises:
        CannotWriteError: When the block ends in an ``OSError``.
    """
    try:
        yield
    except CannotWriteError:
        raise
    except OSError as error:
        raise CannotWriteError(f"'{path}' cannot be written: {error.strerror or error}.") from None


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """
    Give a temporary path in the folder of ``path``; what was written there gets its name when the block ends well.

    A reader never sees half a file, and a failed write leaves an older file as it was. The folder is made if missing.
    A killed process leaves its temporary file, see :py:func:`remove_partial_files`.

    Args:
        path: the file to write.

    Yields:
        path to write to, with the same suffixes, since many writers choose the format by them.

    Raises:
        CannotWriteError: When the file or its folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{_PREFIX}{uuid.uuid4().hex}{''.join(path.suffixes[-2:])}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def remove_partial_files(folder: str | os.PathLike) -> None:
    """
    Remove what killed processes left in a folder and the folders in it.

    Args:
        folder: nothing else may be writing to it.
    """
    for pattern in (f"{_PREFIX}*", f"*/{_PREFIX}*"):
        for partial in Path(folder).glob(pattern):
            partial.unlink(missing_ok=True)


def lies_in(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """
    Return whether a file is in a folder, or in one below it, when ``..`` and symbolic links are followed.

    Args:
        path: of the file, which need not exist.
        folder: may be a link itself.
    """
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return stream_sha256(file)


def stream_sha256(file: BinaryIO) -> str:
    """Return the SHA-256 of what an open file holds from where it stands to its end, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def file_state(status: os.stat_result) -> str:
    """
    Return a word that changes when a file does: its size and the time of its last change.

    Args:
        status: of the file, by its path or, so that nothing comes between, of the open file.
    """
    return f"{status.st_size} {status.st_mtime_ns}"
