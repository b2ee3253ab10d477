# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From what a user points at (file, folder, DICOMDIR, glob) to the items of a data list, every file accounted for."""

from __future__ import annotations

import glob
import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.multival import MultiValue
from tqdm import tqdm

from bundle.files import lies_in
from bundle.lists.file_kinds import OWN_RESULT, files_below, why_no_image
from bundle.reading.dicom.opened import open_dicom
from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.formats import one_line_errors
from bundle.reading.header import read_header
from bundle.reading.limits import Limits
from bundle.reading.pseudonym import run_secret

__all__ = ["Refusal", "chosen_frames", "find_images"]

logger = logging.getLogger(__name__)


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
    a file is, unless it leaves the folder that ``path`` is or starts from. What
    :py:func:`bundle.lists.file_kinds.why_no_image` leaves out of a folder or a pattern (masks, system files, sidecars,
    our own results) is refused with its reason; a file that is named itself is always looked at.

    Args:
        path: a file, a folder (all files below it), a DICOMDIR, or a pattern such as ``films/**/*.dcm``.
        frames: which frames of a multi-frame file, see :py:func:`chosen_frames`.
        secret: key of the hash that stands for the patient; ``None`` draws one for this process, an empty one leaves
            the hash out.
        limits: how large a file may be, the default of :py:class:`bundle.reading.limits.Limits` if ``None``.
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
    own = sum(reason == OWN_RESULT for _, reason in files)
    if own:
        logger.info("%d files in the input are results of an earlier run, they are left out", own)
        files = [(file, reason) for file, reason in files if reason != OWN_RESULT]
    if not files:
        if path.is_dir():
            raise FileNotFoundError(f"the input must hold files, the folder '{path}' holds none.")
        raise FileNotFoundError(f"the input must be a file, a folder or a pattern that matches files, got '{path}'.")
    items: list[dict] = []
    refusals = []
    number = -1
    for file, reason in tqdm(files, desc="reading headers", unit=" files", disable=not progress):
        number += not reason  # so that what is beside the images does not change their keys
        try:
            with one_line_errors(file):
                if reason:
                    raise SkippedFileError(reason)
                _check_link(file, None if allow_outside is True else root)
                header = read_header(file, limits, secret)
        except SkippedFileError as error:
            refusals.append(Refusal(file, "skipped", str(error)))
        except UnreadableImageError as error:
            refusals.append(Refusal(file, "failed", str(error)))
        else:
            for frame in chosen_frames(header.num_frames, frames):
                suffix = (f"#frame={frame}", f"_f{frame:04d}") if header.num_frames > 1 else ("", "")
                key = f"{number:06d}{suffix[1]}"
                items.append({"image": f"{file}{suffix[0]}", "key": key, "patient": header.subject})
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


def _files(path: Path, limits: Limits) -> Iterator[tuple[Path, str]]:
    """Yield the files and why each is no image, as far as its name says."""
    if path.is_dir():
        yield from files_below(path)
    elif path.is_file():
        listed = list(_referenced_files(path, limits)) if path.name.upper().startswith("DICOMDIR") else []
        yield from ((file, "") for file in listed or [path])
    else:
        root = _root(path) or Path()
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        yield from ((file, why_no_image(file, root)) for file in found)


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
