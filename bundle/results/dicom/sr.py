# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Findings as a DICOM structured report: TID 1500 in a Comprehensive 3D SR with 2-D regions (PS3.16, PS3.3 A.35.13)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
    srread,
)
from pydicom.sr.codedict import codes

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.results.dicom.codes import derived_code, finding_code, private_code
from bundle.results.dicom.equipment import device_serial_number, device_uid
from bundle.results.dicom.own import MANUFACTURER
from bundle.results.dicom.save import save_dicom_result
from bundle.results.dicom.source import DicomSource
from bundle.results.records import Box, ImageResult, remarks

__all__ = ["read_boxes_from_sr", "write_sr"]

_MAP_HEIGHT = private_code("MAP_HEIGHT", "Height of the stretched map in the region")  # no probability
_BOX_SCORE = private_code("BOX_SCORE", "Calibrated probability of the region")
_PRESENCE = {True: codes.SCT.Present, False: codes.SCT.Absent, None: codes.SCT.Undetermined}  # PS3.16 CID 240
_OPERATING_POINT = private_code("OPERATING_POINT", "Probability from which it is present")


def write_sr(path: str | os.PathLike, result: ImageResult, source: DicomSource, threshold: float | None = None) -> None:
    """
    Write scores, verdict, findings and boxes of one frame.

    A finding is called present or absent (PS3.16 CID 240) where its operating point is known, with its probability and
    that point beside it; otherwise its presence is undetermined, and only the probability is given. So it is in an
    image that is not assessed, with the reason as a comment.

    A box becomes a closed polyline with its finding. Its coordinates are those of :py:class:`Box`: PS3.3 C.18.6.1.1
    also puts 0, 0 into the upper left corner of the upper left pixel. A box of a finding that is absent is left out,
    and one of a finding that is called neither is a region of its map. Without a reference to its frame a box would be
    shown on another one, so it is left out too.

    Args:
        path: file to write.
        result: what was found; a box is cut at the border of the image.
        source: the image it was found in.
        threshold: score from which the image is called abnormal.
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
        boxes = [box for box in result.boxes if _may_be_drawn(box, result)] if source.says_which_frame() else []
        groups: list[Any] = [
            *_image_groups(result, source, threshold),
            *(_box_group(box, number, result, source) for number, box in enumerate(boxes, start=1)),
        ]
        report = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=observer),
            procedure_reported=codes.SCT.ImagingProcedure,
            title=codes.DCM.ImagingMeasurementReport,
            imaging_measurements=groups,
        )
        document = Comprehensive3DSR(
            evidence=[source.dataset],
            content=report,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            **source.identity("SR"),
        )
        save_dicom_result(path, document, "AI findings", source)


def read_boxes_from_sr(path: str | os.PathLike) -> list[Box]:
    """
    Return the boxes of a report as they were given to :py:func:`write_sr`, with the codes' meanings as labels.

    Args:
        path: DICOM SR file with TID 1500; regions of any other shape come back as the box around them.

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
        if isinstance(group.roi, ImageRegion):
            corners = np.asarray(group.roi.value, dtype=float)
            (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            found = group.get_measurements(name=_MAP_HEIGHT)
            height = float(found[0].value) if found else float("nan")
            scored = group.get_measurements(name=_BOX_SCORE)
            score = float(scored[0].value) if scored else None
            label = "" if group.finding_type is None else str(group.finding_type.meaning)
            boxes.append(Box(label, x0, y0, x1 - x0, y1 - y0, height, score))
    return boxes


def _image_groups(
    result: ImageResult, source: DicomSource, threshold: float | None
) -> list[MeasurementsAndQualitativeEvaluations]:
    """Return what is said of the image as a whole: one group for score and verdict, one for each finding by name."""
    groups = []
    numbers = {
        ("ANOMALY_SCORE", "Anomaly score"): result.anomaly_score,
        ("P_VALUE", "P-value"): result.p_value,
        ("THRESHOLD", "Threshold of the anomaly score"): None if result.abnormal is None else threshold,
    }
    measurements = [_measurement(private_code(*words), value) for words, value in numbers.items() if value is not None]
    verdict = []
    if result.abnormal is not None:
        name = private_code("ABOVE_THRESHOLD", "Anomaly score above threshold")
        if result.anomaly_score is None:
            name = private_code("FINDING_PRESENT", "A finding is at or above its operating point")
        verdict.append(QualitativeEvaluation(name, codes.SCT.Yes if result.abnormal else codes.SCT.No))
    comments = [*remarks(result), *source.remarks()]
    if measurements or verdict or comments:
        finding = private_code("ANOMALY", "Anomaly")
        groups.append(_image_group("image", finding, source, measurements, verdict, comments))
    for label, probability in result.probabilities.items():
        measurements, present = [_measurement(codes.DCM.Probability, probability)], result.presence(label)
        point = result.operating_points.get(label)
        if present is not None and point is not None:
            measurements.append(_measurement(_OPERATING_POINT, point))
        # without it a reader would take the finding that the group is about for one that was found
        verdict = [QualitativeEvaluation(codes.DCM.PresenceOfProperty, _PRESENCE[present])]
        groups.append(_image_group(f"image, {label}", finding_code(label), source, measurements, verdict))
    return groups


def _may_be_drawn(box: Box, result: ImageResult) -> bool:
    """Return whether a box may be drawn: not in an image without a verdict, and not of what is called absent."""
    if result.not_assessed is not None:
        return False
    named = box.label in result.probabilities
    return result.presence(box.label) is not False if named else result.abnormal is not False


def _image_group(
    identifier: str,
    finding: CodedConcept,
    source: DicomSource,
    measurements: list[Measurement],
    verdict: list[QualitativeEvaluation],
    comments: Sequence[str] = (),
) -> MeasurementsAndQualitativeEvaluations:
    image = SourceImageForMeasurementGroup(
        source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, referenced_frame_numbers=_frame_numbers(source)
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=source.uid("SR", identifier), identifier=identifier),
        finding_type=finding,
        algorithm_id=_algorithm(source),
        measurements=measurements,
        qualitative_evaluations=verdict,
        source_images=[image],
    )
    group[0].ContentSequence.extend(
        TextContentItem(codes.DCM.Comment, comment, RelationshipTypeValues.CONTAINS) for comment in comments
    )
    return group


def _box_group(
    box: Box, number: int, result: ImageResult, source: DicomSource
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    rows, columns = source.dataset.Rows, source.dataset.Columns
    x0, x1 = np.clip([box.x, box.x + box.width], 0, columns)
    y0, y1 = np.clip([box.y, box.y + box.height], 0, rows)
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]),
        source_image=SourceImageForRegion(
            source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, referenced_frame_numbers=_frame_numbers(source)
        ),
    )
    identifier = f"region {number}"
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=source.uid("SR", identifier), identifier=identifier),
        referenced_region=region,
        finding_type=_region_code(box.label, result),
        algorithm_id=_algorithm(source),
        measurements=[
            _measurement(name, value)
            for name, value in ((_MAP_HEIGHT, box.map_height), (_BOX_SCORE, box.score))
            if value is not None
        ],
    )


def _region_code(label: str, result: ImageResult) -> CodedConcept:
    """Return the finding, or where it is called neither present nor absent a word for a region of its map."""
    if label in result.probabilities and result.presence(label) is None:
        return derived_code("map", label, f"Region of the map of {label}")
    return finding_code(label)


def _algorithm(source: DicomSource) -> AlgorithmIdentification:
    parameters = [f"{name}={value}" for name, value in source.algorithm.parameters.items()]
    if source.algorithm.weights_sha256 is not None:
        parameters.append(f"weights_sha256={source.algorithm.weights_sha256}")
    return AlgorithmIdentification(
        name=source.algorithm.name,
        version=source.algorithm.version,
        parameters=parameters or None,
        family=codes.DCM.ArtificialIntelligence,
    )


def _measurement(name: CodedConcept, value: float) -> Measurement:
    # a decimal string (DS) holds 16 characters
    return Measurement(name=name, value=float(f"{value:.6g}"), unit=codes.UCUM.NoUnits)


def _frame_numbers(source: DicomSource) -> list[int] | None:
    number = source.frame_number()
    return None if number is None else [number]
