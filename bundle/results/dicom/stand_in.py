# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A source's header in a shape that highdicom takes, whatever the file holds."""

from __future__ import annotations

import math
import re

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

from bundle.reading.dicom.geometry import pixel_spacing

__all__ = ["become_stand_in"]

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
# What highdicom takes a source for. It knows neither retired nor private classes, and asks of others what a projection
# or a loop of one frame has not; of patient and study it copies the same from all. References are put right at the end.
_STAND_IN_CLASS = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage
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


def become_stand_in(dataset: Dataset) -> None:
    """
    Make a header one of a single frame of a class that highdicom knows, with what it may refuse left empty.

    Args:
        dataset: header of a source, changed in place.
    """
    for keyword in _OF_OTHER_CLASSES:
        dataset.pop(keyword, None)
    dataset.SOPClassUID = _STAND_IN_CLASS
    _decode(dataset)
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: holds the source's text and the words of any label
    _empty_what_is_not_valid(dataset)


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
