# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Write a result under its run's time and names, with its device and true references to its source."""

from __future__ import annotations

import os
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from bundle.files import atomic_path
from bundle.results.dicom.codes import declare_private_scheme
from bundle.results.dicom.equipment import state_equipment
from bundle.results.dicom.own import NOT_FOR_DIAGNOSIS
from bundle.results.dicom.source import DicomSource

__all__ = ["save_dicom_result"]


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
    state_equipment(dataset, source.algorithm)
    for equipment in dataset.ContributingEquipmentSequence:
        if equipment.get("ManufacturerModelName") in ("highdicom", dataset.ManufacturerModelName):
            equipment.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
    declare_private_scheme(dataset)
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
