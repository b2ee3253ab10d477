# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures, maps and objects of an earlier run in the same folder, which would stand beside tables of other images."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path, PurePosixPath

__all__ = ["files_of_earlier", "remove_earlier"]

_FOLDERS = ("overlays", "heatmaps", "dicom")


def files_of_earlier(folder: Path) -> frozenset[str]:
    """
    Return the files that the ``predictions.json`` of a folder names, relative to it; none where it cannot be read.

    Args:
        folder: the output folder of a run.
    """
    try:
        content = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
        named = [path for record in content["images"] for path in record["files"].values()]
        return frozenset(path for path in named if _is_ours(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()  # some other program's, or damaged: nothing of it is known to be ours


def remove_earlier(folder: Path, earlier: Set[str], written: Set[str]) -> int:
    """
    Remove what an earlier run wrote and this one did not, and return how many files that were.

    Args:
        folder: the output folder of both.
        earlier: see :py:func:`files_of_earlier`.
        written: files of this run.
    """
    count = 0
    for path in sorted(earlier - written):
        file = folder / path
        if file.is_file() and not file.is_symlink() and file.resolve().is_relative_to(folder.resolve()):
            file.unlink()
            count += 1
    return count


def _is_ours(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) == 2 and parts[0] in _FOLDERS and ".." not in parts
