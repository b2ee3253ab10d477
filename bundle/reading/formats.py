# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Which format a file has, which frame of it is meant, and one line for whatever is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.errors import SkippedFileError, UnreadableImageError

__all__ = ["file_format", "format_of", "one_line_errors", "split_frame"]

_FRAME_SUFFIX = re.compile(r"#frame=(\d+)$")


def split_frame(name: str) -> tuple[Path, int]:
    """
    Return the file and the frame that a data list names.

    Args:
        name: a path, with ``#frame=N`` after it for frame N, counted from 0.

    Example:
        >>> split_frame("loop.dcm#frame=7")[1], split_frame("film.dcm")[1]
        (7, 0)
    """
    match = _FRAME_SUFFIX.search(name)
    if match is None or Path(name).exists():
        return Path(name), 0
    return Path(name[: match.start()]), int(match.group(1))


def file_format(path: Path) -> str:
    """
    Return :py:func:`format_of` a file.

    Args:
        path: file to look at.

    Raises:
        SkippedFileError: When it has none of the formats.
    """
    with path.open("rb") as file:
        return format_of(file)


def format_of(file: BinaryIO) -> str:
    """
    Return ``"dicom"``, ``"nifti"``, ``"itk"`` or ``"picture"`` by a file's content, then its name.

    Args:
        file: at its start, where it is left.

    Raises:
        SkippedFileError: When the file is none of them.
    """
    head, name = file.read(132), Path(file.name).name.lower()
    file.seek(0)
    if head[128:] == b"DICM":
        return "dicom"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")):
        return "picture"
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith(".mha") or head.startswith(b"NRRD"):
        return "itk"
    # a data set without preamble starts with group 0002 or 0008, in either byte order
    if name.endswith(".dcm") or head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return "dicom"
    raise SkippedFileError("this is no DICOM, PNG, JPEG, TIFF, BMP, NIfTI, MHA or NRRD file.")


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Name the file in every refusal, turn any other failure into one, and keep the file's text out of the logs."""
    try:
        with quiet_dicom():
            yield
    except (UnreadableImageError, SkippedFileError) as error:
        raise type(error)(f"{path.name}: {error}") from None
    except FileNotFoundError:
        raise UnreadableImageError(f"{path.name}: the file must exist, it does not.") from None
    except Exception as error:
        kind = type(error).__name__
        raise UnreadableImageError(f"{path.name}: the file must be whole, reading ended in {kind}.") from None
