# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What every DICOM result takes from its source image: patient, study, identity, and codes for what was found."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pydicom.valuerep import DA, TM

from bundle.data.dicom_files import frame_count, open_dicom
from bundle.data.dicom_geometry import pixel_spacing
from bundle.data.files import atomic_path
from bundle.data.limits import Limits
from bundle.data.quiet import quiet_dicom
from bundle.results.records import Algorithm, NotWrittenError

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


@dataclass(frozen=True)
class DicomSource:
    """
    Header of a source image, and what identifies the results made from it.

    Args:
        dataset: header without pixel data.
        frame: index of the frame within the file, from 0.
        frames: number of frames of the file.
        algorithm: what made the results.
        seed: the same seed, source and algorithm give the same UIDs.
    """

    dataset: Dataset
    frame: int
    frames: int
    algorithm: Algorithm
    seed: str

    def uid(self, *words: str) -> str:
        """Return a UID that belongs to this frame, algorithm and seed, and to ``words``."""
        return self._uid(str(self.dataset.SOPInstanceUID), str(self.frame), *words)

    def identity(self, role: str) -> dict[str, Any]:
        """
        Return UIDs and numbers of the result with this role; each source series gets one result series a role.

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
        made_by = json.dumps(vars(self.algorithm), sort_keys=True, default=str)
        return generate_uid(entropy_srcs=["\\".join((self.seed, made_by, *words))])


def load_source(path: str | os.PathLike, frame: int, algorithm: Algorithm, seed: str) -> DicomSource:
    """
    Return the header of a DICOM image with what results need of it.

    Args:
        path: DICOM file.
        frame: index of the frame within the file, from 0.
        algorithm: what made the results.
        seed: the same seed, source and algorithm give the same UIDs.

    Raises:
        NotWrittenError: When the file lacks a UID that a result must refer to.
    """
    with quiet_dicom():
        dataset = open_dicom(Path(path), Limits(), header_only=True)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if not dataset.get(keyword):
                raise NotWrittenError(f"a DICOM result refers to its source by {keyword}, the source has none.")
        dataset.pop("PerFrameFunctionalGroupsSequence", None)  # long, and no result says anything of it
        _decode(dataset)
        dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: holds the source's text and the words of any label
        _empty_what_is_not_valid(dataset)
        return DicomSource(dataset, frame, frame_count(dataset), algorithm, seed)


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


def save_dicom_result(path: str | os.PathLike, dataset: Dataset, description: str) -> None:
    """
    Write a result, its series named as what it is.

    Args:
        path: file to write.
        dataset: the result.
        description: words before "research use only, not for diagnosis"; 64 characters together.
    """
    dataset.SeriesDescription = f"{description}, {NOT_FOR_DIAGNOSIS}"
    with atomic_path(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


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
