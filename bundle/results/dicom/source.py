# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What every DICOM result takes from its source image: patient, study, identity, and codes for what was found."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from highdicom._standard_utils import is_attribute_in_iod
from highdicom.sr import CodedConcept
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM

from bundle.files import atomic_path, file_sha256
from bundle.reading.dicom.geometry import pixel_spacing
from bundle.reading.dicom.header import frame_count, open_dicom
from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.limits import Limits
from bundle.results.records import Algorithm, NotWrittenError
from bundle.results.run_record import RunIdentity

__all__ = ["DicomSource", "finding_code", "load_source", "private_code", "save_dicom_result"]

MANUFACTURER = "attention-imaging-bundle"
NOT_FOR_DIAGNOSIS = "research use only, not for diagnosis"
SCHEME = "99AIBUNDLE"  # PS3.3 8.2: private coding schemes start with 99

_SERIES_NUMBERS = {"SR": 9001, "SEG": 9002, "HEAT": 9003, "SC": 9004}
# PS3.3 C.7: a result copies them from the source, where they must be present though they may be empty
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_SIDE = re.compile("[APRLHF]{1,3}")  # PS3.3 C.7.6.1.1.1
_CODES = {
    "anomaly": codes.DCM.FocalAbnormality,
    "cardiomegaly": codes.SCT.Cardiomegaly,
    "edema": codes.SCT.PulmonaryEdema,
    "effusion": codes.SCT.PleuralEffusion,
    "infiltration": codes.DCM.Infiltrate,
    "lesion": codes.SCT.Lesion,
    "mass": codes.SCT.Mass,
    "nodule": codes.SCT.Nodule,
    "opacity": codes.DCM.Opacity,
    "pneumothorax": codes.SCT.Pneumothorax,
}


# What highdicom takes a source for. It knows neither retired nor private classes, and asks of others what a projection
# or a loop of one frame has not; of patient and study it copies the same from all. References are put right at the end.
_STAND_IN_CLASS = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage
_RETIRED_OF_ONE_FRAME = ("1.2.840.10008.5.1.4.1.1.6",)  # Ultrasound Image Storage (Retired)
# what makes an image one of several frames, or one of a slide
_OF_OTHER_CLASSES = (
    "NumberOfFrames",
    "FrameIncrementPointer",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ImageOrientationSlide",
    "ImageCenterPointCoordinatesSequence",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
)
# PS3.3 C.7.6.1: type 1C, so absent rather than empty
_NEVER_EMPTY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True)
class DicomSource:
    """
    Header of a source image, and what identifies the results made from it.

    Args:
        dataset: header without pixel data, as of a single frame of a class that highdicom knows.
        sop_class_uid: the class that the source really has.
        frame: index of the frame within the file, from 0.
        frames: number of frames of the file.
        algorithm: what made the results.
        run: when they were made, and by which run.
        sha256: of the source file, which may change under the same SOP Instance UID.
    """

    dataset: Dataset
    sop_class_uid: str
    frame: int
    frames: int
    algorithm: Algorithm
    run: RunIdentity
    sha256: str

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
        """Return what SEG and SR say of the device that made them."""
        return {
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.algorithm.name[:64],
            "software_versions": self.algorithm.version[:64],
            "device_serial_number": (self.algorithm.weights_sha256 or "no weights")[:64],
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


def load_source(path: str | os.PathLike, frame: int, algorithm: Algorithm, run: RunIdentity) -> DicomSource:
    """
    Return the header of a DICOM image with what results need of it.

    Args:
        path: DICOM file.
        frame: index of the frame within the file, from 0.
        algorithm: what made the results.
        run: when they are made, and by which run: the same run and source give the same UIDs.

    Raises:
        NotWrittenError: When the file lacks a UID that a result must refer to.
    """
    with quiet_dicom():
        dataset = open_dicom(Path(path), Limits(), header_only=True)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not dataset.get(keyword):
                raise NotWrittenError(f"a DICOM result refers to its source by {keyword}, the source has none.")
        frames, sop_class_uid = frame_count(dataset), str(dataset.SOPClassUID)
        for keyword in _OF_OTHER_CLASSES:
            dataset.pop(keyword, None)
        dataset.SOPClassUID = _STAND_IN_CLASS
        _decode(dataset)
        dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: holds the source's text and the words of any label
        _empty_what_is_not_valid(dataset)
        return DicomSource(dataset, sop_class_uid, frame, frames, algorithm, run, _sha256(Path(path)))


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_once(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _sha256_once(path: Path, changed: int, size: int) -> str:
    """Return the digest of a file that is asked for once for each of its frames."""
    return file_sha256(path)


def _decode(dataset: Dataset) -> None:
    """Turn bytes into values and text, and leave out what cannot be: results need little of a header."""
    for tag in tuple(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # of many kinds, for the file may hold anything
            del dataset[tag]
            continue
        if element.VR == "SQ":
            for item in element.value:
                _decode(item)
                item.pop("SpecificCharacterSet", None)  # that of the whole holds for it too


def _empty_what_is_not_valid(dataset: Dataset) -> None:
    """Leave empty what highdicom would refuse, which also adds what must be present though it may be empty."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset or dataset[keyword].VM > 1:
            setattr(dataset, keyword, None)
    for keyword, kind in _DATES.items():
        try:
            kind(str(dataset.get(keyword) or ""))
        except ValueError:
            setattr(dataset, keyword, None)
    sex = str(dataset.PatientSex or "").strip().upper()
    dataset.PatientSex = sex if sex in ("M", "F", "O") else None
    sides = dataset.get("PatientOrientation")
    if not isinstance(sides, MultiValue) or len(sides) != 2 or not all(map(_SIDE.fullmatch, sides)):
        dataset.PatientOrientation = None
    if pixel_spacing(dataset)[1] != "PixelSpacing":
        dataset.pop("PixelSpacing", None)
    if not _has_a_place(dataset):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
            dataset.pop(keyword, None)
    elif "SliceThickness" not in dataset:
        dataset.SliceThickness = None  # type 2 where it belongs (PS3.3 C.7.6.2); highdicom reads it with every place
    if not dataset.get("FrameOfReferenceUID"):
        dataset.pop("FrameOfReferenceUID", None)
    for keyword in _NEVER_EMPTY:
        if dataset.get(keyword) in (None, ""):
            dataset.pop(keyword, None)


def _has_a_place(dataset: Dataset) -> bool:
    """Return whether position, orientation and spacing are all there; a segmentation is placed by all or by none."""
    needed = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    try:
        values = [[float(v) for v in dataset.get(keyword) or ()] for keyword in needed]
    except (TypeError, ValueError):
        return False
    return [len(v) for v in values] == list(needed.values()) and all(math.isfinite(n) for v in values for n in v)


def save_dicom_result(path: str | os.PathLike, dataset: Dataset, description: str, source: DicomSource) -> None:
    """
    Write a result, its series named as what it is, with the time of its run and true references to its source.

    A run that is continued keeps what it has stored under the same UID: an archive may hold it already.

    Args:
        path: file to write.
        dataset: the result.
        description: words before "research use only, not for diagnosis"; 64 characters together.
        source: what the result was made from.
    """
    if source.run.continued and _is_stored(Path(path), str(dataset.SOPInstanceUID)):
        return
    dataset.SeriesDescription = f"{description}, {NOT_FOR_DIAGNOSIS}"
    moment = source.run.started.astimezone()
    for start in ("InstanceCreation", "Content", "Series"):  # highdicom writes the present moment
        if f"{start}Date" in dataset:
            setattr(dataset, f"{start}Date", moment.strftime("%Y%m%d"))
        if f"{start}Time" in dataset:
            setattr(dataset, f"{start}Time", moment.strftime("%H%M%S.%f"))
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture = moment.strftime("%Y%m%d")
        dataset.TimeOfSecondaryCapture = moment.strftime("%H%M%S.%f")
    for equipment in dataset.get("ContributingEquipmentSequence") or []:
        if equipment.get("ManufacturerModelName") == "highdicom":
            equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
    _name_the_class(dataset, source)
    with atomic_path(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def _is_stored(path: Path, uid: str) -> bool:
    try:
        return str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) == uid
    except (OSError, InvalidDicomError, AttributeError):
        return False


def _name_the_class(dataset: Dataset, source: DicomSource) -> None:
    """Give references to the source its own SOP class in place of the one that stood in for it."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _name_the_class(item, source)
    if dataset.get("ReferencedSOPInstanceUID") == source.dataset.SOPInstanceUID:
        dataset.ReferencedSOPClassUID = source.sop_class_uid


def finding_code(label: str) -> CodedConcept:
    """
    Return the code of a finding: SNOMED CT or DICOM where the DICOM Standard has one for it, else a private one.

    Args:
        label: name of the finding, in any case.

    Example:
        >>> finding_code("Nodule").value, finding_code("Pleural_Thickening").value
        ('27925004', 'PLEURAL_THICKENI')
    """
    known = _CODES.get(label.strip().lower())
    return private_code(label, label) if known is None else CodedConcept.from_code(known)


def private_code(value: str, meaning: str) -> CodedConcept:
    """
    Return a code of this project.

    Args:
        value: made upper case and cut to 16 characters, which is what a code value (SH) can hold.
        meaning: in words; cut to 64 characters.
    """
    return CodedConcept(re.sub(r"\W+", "_", value).upper()[:16] or "UNNAMED", SCHEME, meaning[:64] or "unnamed")
