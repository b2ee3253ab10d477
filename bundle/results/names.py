# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Names that stay inside the output folder, and say nothing about this machine."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["plain_text", "relative_source", "safe_name"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices under Windows
_MAX_NAME = 120  # leaves 135 bytes for a suffix within the 255 bytes of common file systems


def safe_name(key: str) -> str:
    """
    Return ``key`` as one file name without a folder: letters, digits, ``.``, ``_`` and ``-`` only.

    A key that had to be changed gets a short hash of the original, so that two keys never share a name.

    Args:
        key: any text.

    Returns:
        name that neither is hidden nor leaves a folder it is joined to.

    Example:
        >>> safe_name("000012_normal_10")
        '000012_normal_10'
        >>> safe_name("../../etc/passwd")
        'etc_passwd-3754d6cb'
    """
    name = _UNSAFE.sub("_", key).strip("._")[:_MAX_NAME]
    if name and name == key and not _RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name or 'image'}-{digest}"


def plain_text(text: str) -> str:
    r"""
    Return text that UTF-8 can hold: a byte of a file name that is not UTF-8 becomes an escape.

    Names that differ in such bytes stay different.

    Args:
        text: as Python gives a file name, such a byte as a lone surrogate.

    Example:
        >>> plain_text("M\udcfcller.png")
        'M\\udcfcller.png'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def relative_source(source: str | os.PathLike, root: str | os.PathLike | None) -> str:
    """
    Return the source's name below the input root with ``/`` between folders, or its bare file name outside of it.

    Args:
        source: an input file.
        root: folder that the inputs lie in; ``None`` where there is none.

    Returns:
        name that says nothing about this machine's folders.
    """
    path = Path(os.path.abspath(source))
    if root is not None:
        with suppress(ValueError):
            relative = path.relative_to(os.path.abspath(root))
            if relative.parts:
                return relative.as_posix()
    return path.name
