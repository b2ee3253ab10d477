# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a file before its pixels are read: one small value, made where the file is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset

from bundle.files import file_state
from bundle.reading.dicom.header import check_is_image, check_size, frame_count
from bundle.reading.dicom.opened import OpenedDicom, read_to_pixels
from bundle.reading.formats import format_of
from bundle.reading.limits import Limits
from bundle.reading.pictures import picture_frames
from bundle.reading.pseudonym import pseudonym
from bundle.reading.volumes import volume_frames

__all__ = ["Header", "header_of", "read_header"]


@dataclass(frozen=True)
class Header:
    """
    What is known of a file before its pixels are read, without identity.

    The reader lays the fields into the image's metadata, where they batch, since they are words and numbers; whoever
    writes results takes them from there, see :py:meth:`from_metadata`. Unknown is an empty word.

    Args:
        format: ``"dicom"``, ``"nifti"``, ``"itk"`` or ``"picture"``.
        file_state: size and time of change, see :py:func:`bundle.files.file_state`.
        num_frames: frames, pages or slices.
        modality: (0008,0060), as all below a code of the Standard or empty.
        view_position: (0018,5101).
        laterality: (0020,0062) or (0020,0060).
        photometric: (0028,0004).
        presentation_intent: (0008,0068).
        burned_in_annotation: (0028,0301).
        sop_class_uid: (0008,0016).
        sop_instance_uid: (0008,0018).
        subject: pseudonym of the patient, see :py:func:`bundle.reading.pseudonym.pseudonym`.
    """

    format: str
    file_state: str
    num_frames: int
    modality: str = ""
    view_position: str = ""
    laterality: str = ""
    photometric: str = ""
    presentation_intent: str = ""
    burned_in_annotation: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    subject: str = ""

    @classmethod
    def from_metadata(cls, meta: Mapping[str, Any]) -> Header | None:
        """
        Return the header that the reader laid into an image's metadata, ``None`` for an image that it did not read.

        Args:
            meta: of one image, also after it was part of a batch.

        Example:
            >>> header = Header("picture", "4096 17", 1)
            >>> Header.from_metadata(vars(header)) == header, Header.from_metadata({})
            (True, None)
        """
        if "file_state" not in meta:
            return None
        values = {field.name: meta[field.name] for field in fields(cls)}
        return cls(**{**values, "num_frames": int(values["num_frames"])})


def read_header(path: Path, limits: Limits, secret: str = "") -> Header:
    """
    Return the header of a file after the checks that need no pixels; the file is opened once.

    Args:
        path: file to look at.
        limits: what fits.
        secret: key of the patient's pseudonym, an empty one for none.

    Raises:
        UnreadableImageError: When the header contradicts itself or a limit is exceeded.
        SkippedFileError: When the file is no image.
    """
    with path.open("rb") as file:
        return header_of(file, limits, secret)[0]


def header_of(file: BinaryIO, limits: Limits, secret: str = "") -> tuple[Header, OpenedDicom | None]:
    """
    Return :py:func:`read_header` of an open file, and of a DICOM file what else was read, so that reading goes on.

    Args:
        file: at its start.
        limits: see there.
        secret: see there.
    """
    kind, status = format_of(file), os.fstat(file.fileno())
    if kind == "dicom":
        opened = read_to_pixels(file, limits)
        check_is_image(opened.dataset)
        check_size(opened.dataset, limits, status.st_size)
        return _dicom_header(opened.dataset, file_state(status), secret), opened
    frames = picture_frames(file, limits) if kind == "picture" else volume_frames(Path(file.name), kind, limits)
    return Header(kind, file_state(status), frames), None


def _dicom_header(dataset: Dataset, state: str, secret: str) -> Header:
    return Header(
        format="dicom",
        file_state=state,
        num_frames=frame_count(dataset),
        modality=_code(dataset, "Modality"),
        view_position=_code(dataset, "ViewPosition"),
        laterality=_code(dataset, "ImageLaterality") or _code(dataset, "Laterality"),
        photometric=_code(dataset, "PhotometricInterpretation"),
        presentation_intent=_code(dataset, "PresentationIntentType"),
        burned_in_annotation=_code(dataset, "BurnedInAnnotation"),
        sop_class_uid=str(dataset.get("SOPClassUID") or ""),
        sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
        subject=pseudonym(str(dataset.get("PatientID") or ""), secret),
    )


def _code(dataset: Dataset, keyword: str) -> str:
    """Return a code string (PS3.5 6.2), empty where the file holds other text, which could be anything."""
    value = str(dataset.get(keyword) or "").strip()
    return value if re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else ""
