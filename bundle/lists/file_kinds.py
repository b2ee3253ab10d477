# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder are images: one rule for training, preparation and inference. Names decide, then content."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

__all__ = ["OWN_RESULT", "files_below", "files_by_name", "pointer_reason", "why_no_image"]

_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir"}
_SIDECARS = set(".json .csv .tsv .txt .dat .xml .yaml .yml .md .html .htm .pdf .xlsx .xls .zip .gz .tar .npy".split())
_MASK = re.compile(r"(^|[ _.-])masks?([ _.-]?\d+)?$", re.IGNORECASE)  # BUSI: benign (1)_mask.png, benign (1)_mask_1.png
_MASK_FOLDERS = {"mask", "masks", "ground_truth", "segmentation_masks"}
_RESULTS = {"heatmaps", "overlays", "dicom", "unfinished", "tensorboard"}
OWN_RESULT = "a result of this bundle, in its output folder."
_POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS; 'git lfs pull' fetches the file",
    b"/annex/objects/": "a pointer of git-annex; 'datalad get' or 'git annex get' fetches the file",
}


def files_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """
    Yield the files of a folder and of those below it in the order of their names, with the reason against each.

    Links to folders are not followed; they come as files.

    Args:
        folder: to search.

    Yields:
        the file, or a folder that is left out as a whole, and why it is no image; an empty word for what may be one.
    """
    for found in sorted(_walk(folder)):
        yield found, why_no_image(found, folder)


def files_by_name(folder: Path, stems: bool = False) -> dict[str, Path]:
    """
    Return the files of a folder that may be images, by their names; of two with one name the first.

    Args:
        folder: to search, with all folders below it.
        stems: leave the suffix out of the names.
    """
    found: dict[str, Path] = {}
    for path, reason in files_below(folder):
        if not reason:
            found.setdefault(path.stem if stems else path.name, path)
    return found


def why_no_image(path: Path, root: Path) -> str:
    """
    Return why a file is left out of a list of images, an empty word where its content has to decide.

    Args:
        path: the file, or a folder that is left out as a whole.
        root: the folder that the user named; what lies above it is no reason.

    Example:
        >>> why_no_image(Path("set/benign/benign (1)_mask_1.png"), Path("set"))
        'a mask by its name; to read it as an image, name the file itself.'
        >>> why_no_image(Path("set/benign/benign (1).png"), Path("set"))
        ''
    """
    relative = path.relative_to(root)
    name, stem = path.name, path.name.split(".")[0] if path.name.lower().endswith(".nii.gz") else path.stem
    if any(part.startswith(".") or part == "__MACOSX" for part in relative.parts):
        return "a hidden or system file."
    if name.lower() in _SYSTEM:
        return "a directory of other files." if name.lower() == "dicomdir" else "a hidden or system file."
    if name.lower().endswith(".dvc"):
        return "a pointer of DVC; 'dvc pull' fetches the file."
    if _is_result(path, root):
        return OWN_RESULT
    if path.suffix.lower() in _SIDECARS and not name.lower().endswith(".nii.gz"):
        return "a table, text or archive beside the images."
    if _MASK.search(stem) or any(part.lower() in _MASK_FOLDERS for part in relative.parts[:-1]):
        return "a mask by its name; to read it as an image, name the file itself."
    parents = relative.parts[:-1]
    if "CROPPED" in parents and (path.parent.parent.name.startswith("im_") or root.name.startswith("im_")):
        return "a cell that SIPaKMeD cut out of the slide beside it."
    return pointer_reason(path)


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif entry.name.startswith(".") or entry.name == "__MACOSX":
                yield path  # as a whole
            else:
                yield from _walk(path)


def _is_result(path: Path, root: Path) -> bool:
    """Return whether our writer made the file: a table beside our ``run.json``, or a file named by a key below it."""
    folder = path.parent
    if folder.name == "unfinished" and path.suffix == ".jsonl":  # of a run that has only begun
        return True
    if path.suffix.lower() in _SIDECARS | {".pt"} and _is_output(folder):
        return True
    if folder == root or folder.name not in _RESULTS:
        return False
    keyed = re.match(r"\d{6}", path.name) is not None or folder.name in ("unfinished", "tensorboard")
    return keyed and _is_output(folder.parent)


def _is_output(folder: Path) -> bool:
    try:
        return _written_by_us(folder / "run.json", (folder / "run.json").stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=256)
def _written_by_us(record: Path, changed: int) -> bool:
    try:
        return json.loads(record.read_text()).get("written_by") == "attention-imaging-bundle"
    except (OSError, ValueError, AttributeError):
        return False


def pointer_reason(path: Path) -> str:
    """
    Return what a file that only stands for another one is and what fetches that one; empty for every other file.

    Args:
        path: of the file, which need not exist.
    """
    try:
        if path.is_symlink() and not path.exists():
            if ".git/annex" in os.readlink(path):
                return _POINTERS[b"/annex/objects/"] + "."
            return ""
        if path.is_file() and path.stat().st_size < 1024:
            head = path.read_bytes()
            return next((f"{reason}." for mark, reason in _POINTERS.items() if head.startswith(mark)), "")
    except OSError:
        pass  # the reader says what is wrong with it
    return ""
