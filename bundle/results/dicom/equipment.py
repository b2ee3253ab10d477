# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The one device that made a result, as every DICOM object of ours states it."""

from __future__ import annotations

from highdicom import ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from bundle.results.dicom.own import MANUFACTURER
from bundle.results.records import Algorithm

__all__ = ["device_serial_number", "device_uid", "state_equipment"]


def device_serial_number(algorithm: Algorithm) -> str:
    """
    Return what tells this device from others of its model: the digest of its weights, in at most 64 characters (LO).

    Args:
        algorithm: what made the results.
    """
    return (algorithm.weights_sha256 or "no weights")[:64]


def device_uid(algorithm: Algorithm) -> str:
    """
    Return the UID of the device: one for a method and its weights, whatever image, run or setting.

    Rev. 1.1 of IHE's AI Results, 6.5.3.1, wants another one each time that a model is modified, by training too.

    Args:
        algorithm: what made the results.

    Example:
        >>> device_uid(Algorithm("ADFA", "1.0")) == device_uid(Algorithm("ADFA", "1.1", parameters={"k": 3}))
        True
    """
    return generate_uid(
        entropy_srcs=["\\".join(("device", MANUFACTURER, algorithm.name, algorithm.weights_sha256 or ""))]
    )


def state_equipment(dataset: Dataset, algorithm: Algorithm) -> None:
    """
    Write the device into an object: as its equipment (PS3.3 C.7.5.1), and as contributing equipment (C.12.1.1.5).

    The purpose of the contribution is Processing Equipment of PS3.16 CID 7005.

    Args:
        dataset: changed in place; what highdicom has written of itself stays.
        algorithm: what made the results.
    """
    device = {
        "manufacturer_model_name": algorithm.name[:64],
        "software_versions": algorithm.version[:64],
        "device_serial_number": device_serial_number(algorithm),
    }
    item = ContributingEquipment(
        MANUFACTURER,
        codes.DCM.ProcessingEquipment,
        contribution_description="Found what this object holds in its source image.",
        **device,
    )
    item.DeviceUID = device_uid(algorithm)
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, item.ManufacturerModelName
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = item.SoftwareVersions, item.DeviceSerialNumber
    dataset.DeviceUID = item.DeviceUID
    dataset.ContributingEquipmentSequence = [item, *(dataset.get("ContributingEquipmentSequence") or [])]
