# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One way in for every image, whether it was sent, pulled or put into a folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundle.reading.dicom.outline import Outline, check_length, read_outline
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
        partial: name of the folder for files that are not yet taken; each process needs its own.

    Attributes:
        partial: folder for files that are not yet taken, on the same disk as those that are.
    """

    def __init__(self, settings: Settings, queue: JobQueue, partial: str = "partial") -> None:
        self._settings, self._queue = settings, queue
        self.partial, self._images = settings.state_dir / partial, settings.state_dir / "images"
        self._coming: set[str] = set()
        self._changed = threading.Condition()
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
            RefusedError: When it is no image of an accepted class, lacks a UID, is too large, its pixel data is too
                short for its frames, or its SOP Instance UID is known with another patient, study or pixels.
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
        content = _content(path, outline, study)
        with self._one_at_a_time(uid):
            if (known := self._queue.content(uid)) is not None:
                _compare(content, known, peer)
                return False
            file = self._store(path, uid)
            modality = re.sub(r"[^A-Z0-9_ ]", "", words["Modality"])[:16]
            return self._queue.add(uid, study, modality, file, peer, content)

    @contextmanager
    def _one_at_a_time(self, uid: str) -> Iterator[None]:
        """Let nobody else take an image of the same UID meanwhile, whose file would have the same name."""
        with self._changed:
            self._changed.wait_for(lambda: uid not in self._coming)
            self._coming.add(uid)
        try:
            yield
        finally:
            with self._changed:
                self._coming.remove(uid)
                self._changed.notify_all()

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


def _content(path: Path, outline: Outline, study: str) -> tuple[str, str, str, str]:
    """Return digest of patient and study, transfer syntax, digests of the bytes before and from Pixel Data on."""
    header, digests = outline.header, []
    patient = hashlib.sha256("\n".join([study, *(str(header.get(name) or "").strip() for name in _PATIENT)]).encode())
    with path.open("rb") as file:
        file.seek(outline.start)
        for end in (outline.pixels, path.stat().st_size):
            digest = hashlib.sha256()
            while piece := file.read(min(2**20, end - file.tell())):
                digest.update(piece)
            digests.append(digest.hexdigest())
    return patient.hexdigest(), str(header.file_meta.get("TransferSyntaxUID") or ""), digests[0], digests[1]


def _compare(content: Sequence[str], known: Sequence[str], peer: str) -> None:
    """Refuse another image under a known UID (PS3.5 9): the first is kept, and whoever sent the other must know."""
    if not known[0]:  # of an older version
        return
    if content[0] != known[0]:
        raise RefusedError("an image with this SOP Instance UID is known, of another patient or study.")
    if content[1] == known[1] and content[3] != known[3]:
        raise RefusedError("an image with this SOP Instance UID is known, with other pixels.")
    if content[1] == known[1] and content[2] != known[2]:
        logger.warning("an image from %s is known with another header; the first is kept", peer)


_REQUIRED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PATIENT = ("PatientID", "IssuerOfPatientID")
_OWN = ("Manufacturer", "SeriesDescription")
_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation")
_KEYWORDS = ("SOPClassUID", "Modality", *_REQUIRED, *_PATIENT, *_OWN, *_SIZES)
