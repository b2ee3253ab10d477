# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What every DICOM result takes from its source image: patient, study and identity."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from highdicom._standard_utils import is_attribute_in_iod
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from bundle.files import file_state, stream_sha256
from bundle.reading.dicom.header import frame_count
from bundle.reading.dicom.opened import read_to_pixels
from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.limits import Limits
from bundle.results.dicom.equipment import device_serial_number
from bundle.results.dicom.own import MANUFACTURER
from bundle.results.dicom.stand_in import become_stand_in
from bundle.results.records import Algorithm, NotWrittenError
from bundle.results.run_record import RunIdentity

__all__ = ["DicomSource", "load_source"]

_SERIES_NUMBERS = {"SR": 9001, "SEG": 9002, "HEAT": 9003, "SC": 9004}
_RETIRED_OF_ONE_FRAME = ("1.2.840.10008.5.1.4.1.1.6",)  # Ultrasound Image Storage (Retired)


@dataclass(frozen=True)
class DicomSource:
    """
    Header of a source image, and what identifies the results made from it.

    Args:
        dataset: header without pixel data, as of a single frame of a class that highdicom knows.
        sop_class_uid: the class that the source really has.
        frames: number of frames of the file.
        sha256: of the source file, which may change under the same SOP Instance UID.
        frame: index of the frame within the file, from 0.
        algorithm: what made the results.
        run: when they were made, and by which run.
    """

    dataset: Dataset
    sop_class_uid: str
    frames: int
    sha256: str
    frame: int
    algorithm: Algorithm
    run: RunIdentity

    def uid(self, *words: str) -> str:
        """Return a UID that belongs to this frame, file and run, and to ``words``."""
        return self._uid(str(self.dataset.SOPInstanceUID), self.sha256, str(self.frame), *words)

    def frame_number(self) -> int | None:
        """
        Return the number that a reference states, ``None`` where it must state none.

        Frames count from 1 (PS3.3 10.3). An object of one frame is referenced as a whole, and so is one of a class that
        has no frames, whatever the object says of itself.
        """
        return self.frame + 1 if self.frames > 1 and self._class_has_frames() else None

    def says_which_frame(self) -> bool:
        """Return whether a reference to the source leaves no doubt which of its frames is meant."""
        return self.frames == 1 or self.frame_number() is not None

    def remarks(self) -> list[str]:
        """Return what a reader of a result must know about its reference to the source."""
        if self.says_which_frame():
            return []
        return [
            f"This is of frame {self.frame + 1} of {self.frames}; the source's SOP class has no frames to refer to."
        ]

    def reference(self) -> Dataset:
        """Return an item that refers to the source."""
        reference = Dataset()
        reference.ReferencedSOPClassUID = self.dataset.SOPClassUID
        reference.ReferencedSOPInstanceUID = self.dataset.SOPInstanceUID
        if (number := self.frame_number()) is not None:
            reference.ReferencedFrameNumber = number
        return reference

    def _class_has_frames(self) -> bool:
        try:
            return is_attribute_in_iod("NumberOfFrames", self.sop_class_uid)
        except KeyError:  # retired or private, so the object knows best
            return self.sop_class_uid not in _RETIRED_OF_ONE_FRAME

    def identity(self, role: str) -> dict[str, Any]:
        """
        Return UIDs and numbers of the result with this role; each source series gets one result series a role and run.

        Args:
            role: ``"SR"``, ``"SEG"``, ``"HEAT"`` or ``"SC"``.
        """
        number = str(self.dataset.get("InstanceNumber") or "")
        instance = int(number) if number.isdigit() and 0 < int(number) < 2**20 else 1
        return {
            "series_instance_uid": self._uid(str(self.dataset.SeriesInstanceUID), role),
            "series_number": _SERIES_NUMBERS[role],
            "sop_instance_uid": self.uid(role),
            "instance_number": (instance - 1) * self.frames + self.frame + 1,
        }

    def equipment(self) -> dict[str, Any]:
        """Return what highdicom asks of the device when it makes a SEG."""
        return {
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.algorithm.name[:64],
            "software_versions": self.algorithm.version[:64],
            "device_serial_number": device_serial_number(self.algorithm),
        }

    def algorithm_sequence(self) -> AlgorithmIdentificationSequence:
        """Return the algorithm as an image object states it, without the parameters, which the SR lists."""
        return AlgorithmIdentificationSequence(
            name=self.algorithm.name[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=self.algorithm.version[:64],
            source=MANUFACTURER,
        )

    def _uid(self, *words: str) -> str:
        return generate_uid(entropy_srcs=["\\".join((self.run.identity, *words))])


def load_source(
    path: str | os.PathLike, frame: int, algorithm: Algorithm, run: RunIdentity, state: str | None = None
) -> DicomSource:
    """
    Return the header of a DICOM image with what results need of it; the file is opened once for all of its frames.

    Args:
        path: DICOM file.
        frame: index of the frame within the file, from 0.
        algorithm: what made the results.
        run: when they are made, and by which run: the same run and source give the same UIDs.
        state: :py:func:`bundle.files.file_state` of the file when its image was read; ``None`` takes it as it is now.

    Raises:
        NotWrittenError: When the file has changed since, or lacks a UID that a result must refer to.
    """
    path = Path(path)
    return DicomSource(*_known(path, state or file_state(path.stat())), frame, algorithm, run)


@lru_cache(maxsize=2)
def _known(path: Path, state: str) -> tuple[Dataset, str, int, str]:
    """Return header, class, number of frames and digest of a file, which is asked for once for each frame."""
    with quiet_dicom(), path.open("rb") as file:
        if file_state(os.fstat(file.fileno())) != state:
            raise NotWrittenError("a DICOM result refers to its source, which has changed since its image was read.")
        dataset = read_to_pixels(file, Limits()).dataset
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not dataset.get(keyword):
                raise NotWrittenError(f"a DICOM result refers to its source by {keyword}, the source has none.")
        frames, sop_class_uid = frame_count(dataset), str(dataset.SOPClassUID)
        become_stand_in(dataset)
        file.seek(0)
        return dataset, sop_class_uid, frames, stream_sha256(file)
