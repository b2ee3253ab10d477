# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From what a user points at (file, folder, DICOMDIR, glob) to the items of a data list, every file accounted for."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.multival import MultiValue
from tqdm import tqdm

from bundle.data.dicom_files import open_dicom, pseudonym, run_secret
from bundle.data.errors import SkippedFileError, UnreadableImageError
from bundle.data.files import lies_in
from bundle.data.limits import Limits
from bundle.data.readers import count_frames, file_format, one_line_errors

__all__ = ["Refusal", "chosen_frames", "find_images"]


@dataclass(frozen=True)
class Refusal:
    """
    A file that gives no image.

    Args:
        source: the file.
        status: ``"skipped"`` for what is no image, ``"failed"`` for an image that cannot be read.
        reason: one line, free of identity apart from the file's name.
    """

    source: Path
    status: str
    reason: str


def find_images(
    path: str | Path,
    frames: str = "all",
    secret: str | None = None,
    limits: Limits | None = None,
    allow_outside: bool = False,
    progress: bool = False,
) -> tuple[list[dict], list[Refusal]]:
    """
    Return the items of a data list, and the files that give none with the reason.

    Only headers are read, so an image may still fail when its pixels are. A link to a folder is not followed; a link to
    a file is, unless it leaves the folder that ``path`` is or starts from.

    Args:
        path: a file, a folder (all files below it), a DICOMDIR, or a pattern such as ``films/**/*.dcm``.
        frames: which frames of a multi-frame file, see :py:func:`chosen_frames`.
        secret: key of the hash that stands for the patient; ``None`` draws one for this process, an empty one leaves
            the hash out.
        limits: how large a file may be, the default of :py:class:`bundle.data.limits.Limits` if ``None``.
        allow_outside: follow links out of the folder too.
        progress: shows a bar.

    Returns:
        items ``{"image": path, "key": unique name without identity, "patient": hash or ""}`` in the order of the file
        names, one a frame, a frame's image being ``path#frame=N``; and the refusals.

    Raises:
        FileNotFoundError: When ``path`` names no file.
    """
    limits = limits or Limits()
    secret = run_secret() if secret is None else secret
    path = Path(path).expanduser()
    files, root = list(_files(path, limits)), _root(path)
    if not files:
        if path.is_dir():
            raise FileNotFoundError(f"the input must hold files, the folder '{path}' holds none.")
        raise FileNotFoundError(f"the input must be a file, a folder or a pattern that matches files, got '{path}'.")
    items: list[dict] = []
    refusals = []
    for i, file in enumerate(tqdm(files, desc="reading headers", unit=" files", disable=not progress)):
        try:
            with one_line_errors(file):
                _check_link(file, None if allow_outside is True else root)
                kind = file_format(file)
                count = count_frames(file, kind, limits)
                patient = _patient(file, limits, secret) if kind == "dicom" else ""
        except SkippedFileError as error:
            refusals.append(Refusal(file, "skipped", str(error)))
        except UnreadableImageError as error:
            refusals.append(Refusal(file, "failed", str(error)))
        else:
            for frame in chosen_frames(count, frames):
                suffix = (f"#frame={frame}", f"_f{frame:04d}") if count > 1 else ("", "")
                items.append({"image": f"{file}{suffix[0]}", "key": f"{i:06d}{suffix[1]}", "patient": patient})
    return items, refusals


def chosen_frames(count: int, frames: str) -> list[int]:
    """
    Return the frames to read of a file that has several.

    Args:
        count: how many there are.
        frames: ``"all"``, ``"first"``, ``"middle"`` or ``"every N"``.

    Raises:
        ValueError: When ``frames`` is none of these.

    Example:
        >>> chosen_frames(7, "every 3"), chosen_frames(7, "middle")
        ([0, 3, 6], [3])
    """
    word, _, step = frames.partition(" ")
    if word == "every" and step.isdecimal() and int(step) > 0:
        return list(range(0, count, int(step)))
    choices = {"all": list(range(count)), "first": [0], "middle": [count // 2]}
    if frames not in choices:
        raise ValueError(f"frames must be 'all', 'first', 'middle' or 'every N', got {frames!r}.")
    return choices[frames]


def _files(path: Path, limits: Limits) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(found for found in path.rglob("*") if found.is_symlink() or found.is_file())
    elif path.is_file():
        listed = list(_referenced_files(path, limits)) if path.name.upper().startswith("DICOMDIR") else []
        yield from listed or [path]
    else:
        yield from sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())


def _root(path: Path) -> Path | None:
    """Return the folder that what is found must lie in; none for the one file that was named."""
    if path.is_dir():
        return path
    if path.is_file():
        return None
    return Path(*itertools.takewhile(lambda part: not re.search(r"[*?\[]", part), path.parent.parts))


def _check_link(file: Path, root: Path | None) -> None:
    if file.is_symlink() and not file.is_file():
        raise SkippedFileError("a link to a folder or to nothing is not followed.")
    if root is not None and not lies_in(file, root):
        raise UnreadableImageError("must not be a link out of the input folder; --allow_outside True reads it.")


def _referenced_files(directory: Path, limits: Limits) -> Iterator[Path]:
    """Yield the files that a DICOMDIR lists (PS3.3 F.3), as far as they lie below it."""
    names: list = []
    with suppress(UnreadableImageError), one_line_errors(directory):  # refused later, as a file of its own
        records = open_dicom(directory, limits).get("DirectoryRecordSequence") or []
        names = [record.get("ReferencedFileID") for record in records]
    root = directory.parent.resolve()
    for name in names:
        if name:
            file = root.joinpath(*(name if isinstance(name, MultiValue) else [name])).resolve()
            if file.is_relative_to(root) and file.is_file():
                yield directory.parent / file.relative_to(root)


def _patient(file: Path, limits: Limits, secret: str) -> str:
    return pseudonym(str(open_dicom(file, limits, header_only=True).get("PatientID") or ""), secret)
