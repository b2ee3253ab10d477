# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One way in for every image, whether it was sent, pulled or put into a folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

from bundle.reading.dicom.outline import check_length, read_outline
from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.formats import one_line_errors
from bundle.reading.limits import Limits
from bundle.results.dicom.own import is_own_result
from bundle.service.job_queue import JobQueue
from bundle.service.passing import check_room
from bundle.service.settings import Settings

__all__ = ["IMAGE_CLASSES", "Intake", "RefusedError"]

logger = logging.getLogger(__name__)

# PS3.4 B.5: computed and digital radiography, mammography, ultrasound, secondary capture
IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
)
_UID = re.compile(r"[0-9.]{1,64}")


class RefusedError(ValueError):
    """An object that will never be taken; one line without text from inside it."""


class Intake:
    """
    Take images into the queue, each once.

    Args:
        settings: of the service.
        queue: where images wait.

    Attributes:
        partial: folder for files that are not yet taken, on the same disk as those that are.
    """

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._settings, self._queue = settings, queue
        self.partial, self._images = settings.state_dir / "partial", settings.state_dir / "images"
        for folder in (self.partial, self._images):
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, path: Path, peer: str) -> bool:
        """
        Take a copy of a DICOM file into the queue; on return it survives a power cut.

        Args:
            path: the file, left where it is.
            peer: where it came from, for the page.

        Returns:
            whether it is new; one that was taken before, or is one of our own results, is not.

        Raises:
            RefusedError: When it is no image of an accepted class, lacks a UID, is too large, or its pixel data is too
                short for its frames.
            NoRoomError: When there is too little disk space.
        """
        size = path.stat().st_size
        if size > self._settings.max_object_bytes:
            raise RefusedError(f"an object must have at most {self._settings.max_object_bytes} bytes, got {size}.")
        check_room(self._images, self._settings.min_free_bytes, size)
        try:
            with one_line_errors(path):
                outline = read_outline(path, _KEYWORDS, Limits(file=self._settings.max_object_bytes))
                header = outline.header
                words = {name: str(header.get(name) or "") for name in ("SOPClassUID", "Modality")}
                own = is_own_result(header)
                uids = {name: str(header.get(name) or "") for name in _REQUIRED}
        except (UnreadableImageError, SkippedFileError):
            raise RefusedError("the object must be a whole DICOM image, its header cannot be read.") from None
        for name, uid in uids.items():
            if not _UID.fullmatch(uid):
                raise RefusedError(f"{name} must be a UID, it is not.")
        if words["SOPClassUID"] not in IMAGE_CLASSES:
            raise RefusedError("the object must be a CR, DX, MG, US or secondary capture image, it is not.")
        if own:  # an archive that sends on all it gets would have us run in circles
            logger.info("one of our own results came back from %s and is left out", peer)
            return False
        uid, study = uids["SOPInstanceUID"], uids["StudyInstanceUID"]
        try:
            with one_line_errors(path):
                check_length(outline)
        except UnreadableImageError as error:
            raise RefusedError(str(error).partition(": ")[2]) from None  # without the file's name
        if self._queue.knows(uid):
            return False
        file = self._store(path, uid)
        modality = re.sub(r"[^A-Z0-9_ ]", "", words["Modality"])[:16]
        return self._queue.add(uid, study, modality, file, peer)

    def _store(self, path: Path, uid: str) -> str:
        """Return the name below the folder of images under which the file now lies on disk."""
        digest = hashlib.sha256(uid.encode()).hexdigest()[:32]
        name = f"{digest[:2]}/{digest}.dcm"
        target = self._images / name
        target.parent.mkdir(exist_ok=True)
        partial = self.partial / f"{digest}-{os.urandom(4).hex()}"
        try:
            if path.parent == self.partial:
                os.link(path, partial)  # whoever wrote it here only removes its name
            else:
                shutil.copyfile(path, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return name


_REQUIRED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_OWN = ("Manufacturer", "SeriesDescription")
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation")
_KEYWORDS = ("SOPClassUID", "Modality", *_REQUIRED, *_OWN, *_SIZES)
