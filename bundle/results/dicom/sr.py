# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Findings as a DICOM structured report: TID 1500 in a Comprehensive 3D SR with 2-D regions (PS3.16, PS3.3 A.35.13)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from highdicom.sr import (
    Comprehensive3DSR,
    ContainerContentItem,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    srread,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.results.dicom.equipment import device_serial_number, device_uid
from bundle.results.dicom.image_library import image_library
from bundle.results.dicom.own import MANUFACTURER
from bundle.results.dicom.save import save_dicom_result
from bundle.results.dicom.source import DicomSource
from bundle.results.dicom.sr_groups import BOX_SCORE, MAP_HEIGHT, MAP_PEAK, box_groups, image_groups, map_groups
from bundle.results.records import Box, ImageResult

__all__ = ["read_boxes_from_sr", "write_sr"]


def write_sr(
    path: str | os.PathLike,
    result: ImageResult,
    source: DicomSource,
    threshold: float | None = None,
    segmented: bool = False,
) -> None:
    """
    Write scores, verdict, findings and boxes of one frame.

    A finding is called present or absent (PS3.16 CID 240) where its operating point is known, with its probability and
    that point beside it; otherwise its presence is undetermined, and only the probability is given. So it is in an
    image that is not assessed, with the reason as a comment.

    A box becomes a closed polyline with its finding. Its coordinates are those of :py:class:`Box`: PS3.3 C.18.6.1.1
    also puts 0, 0 into the upper left corner of the upper left pixel. A box of a finding that is absent is left out,
    and one of a finding that is called neither is a region of its map. Without a reference to its frame a box would be
    shown on another one, so it is left out too. An anomaly detector's regions are those of its map above the threshold.

    Args:
        path: file to write.
        result: what was found; a box is cut at the border of the image.
        source: the image it was found in.
        threshold: score from which the image is called abnormal.
        segmented: whether the mask above the threshold was written as a segmentation, which the report then refers to.
    """
    with quiet_dicom():
        observer = ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                uid=device_uid(source.algorithm),
                name=source.algorithm.name[:64],
                manufacturer_name=MANUFACTURER,
                model_name=source.algorithm.name[:64],
                serial_number=device_serial_number(source.algorithm),
            ),
        )
        groups: list[Any] = [
            *image_groups(result, source, threshold),
            *box_groups(result, source),
            *(regions := map_groups(result, source, threshold, segmented)),
        ]
        report = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=observer),
            procedure_reported=codes.SCT.ImagingProcedure,
            title=codes.DCM.ImagingMeasurementReport,
            imaging_measurements=groups,
        )
        report[0].ContentSequence.insert(-1, image_library(source))  # TID 1500: before the measurements
        _separate(report[0])
        document = Comprehensive3DSR(
            evidence=[source.dataset, *([_segmentation(source)] if regions and segmented else [])],
            content=report,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            **source.identity("SR"),
        )
        save_dicom_result(path, document, "AI findings", source)


def _segmentation(source: DicomSource) -> Dataset:
    """Return what the evidence states of the segmentation (PS3.3 C.17.2)."""
    names, segmentation = source.identity("SEG"), Dataset()
    segmentation.StudyInstanceUID = source.dataset.StudyInstanceUID
    segmentation.SeriesInstanceUID = names["series_instance_uid"]
    segmentation.SOPClassUID, segmentation.SOPInstanceUID = SegmentationStorage, names["sop_instance_uid"]
    return segmentation


def _separate(item: Dataset) -> None:
    """Say that the items of each container are apart from each other, so that viewers show their names."""
    if isinstance(item, ContainerContentItem):
        item.ContinuityOfContent = "SEPARATE"  # PS3.3 C.18.8; highdicom writes CONTINUOUS, which is running text
    for child in item.get("ContentSequence") or []:
        _separate(child)


def read_boxes_from_sr(path: str | os.PathLike) -> list[Box]:
    """
    Return the boxes of a report as they were given to :py:func:`write_sr`, with the codes' meanings as labels.

    Args:
        path: DICOM SR file with TID 1500; regions of any other shape come back as the box around them,
            those of an anomaly detector's map do not.

    Returns:
        boxes in pixels of the source frame; their height of the map is not-a-number where the report has none.

    Raises:
        ValueError: When the report follows another template.
    """
    boxes = []
    report = srread(path).content
    if not isinstance(report, MeasurementReport):
        raise ValueError(f"regions are read from a TID 1500 measurement report, got {type(report).__name__}.")
    for group in report.get_planar_roi_measurement_groups():
        if isinstance(group.roi, ImageRegion) and not group.get_measurements(name=MAP_PEAK):
            corners = np.asarray(group.roi.value, dtype=float)
            (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            found = group.get_measurements(name=MAP_HEIGHT)
            height = float(found[0].value) if found else float("nan")
            scored = group.get_measurements(name=BOX_SCORE)
            score = float(scored[0].value) if scored else None
            label = "" if group.finding_type is None else str(group.finding_type.meaning)
            boxes.append(Box(label, x0, y0, x1 - x0, y1 - y0, height, score))
    return boxes
