# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The measurement groups of a report: what is said of the image, of each finding, and of each region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage
from scipy import ndimage

from bundle.results.dicom.anatomy import finding_sites
from bundle.results.dicom.codes import derived_code, finding_code, private_code
from bundle.results.dicom.source import DicomSource
from bundle.results.records import Box, ImageResult, remarks

__all__ = ["BOX_SCORE", "MAP_HEIGHT", "MAP_PEAK", "box_groups", "image_groups", "map_groups"]

MAP_HEIGHT = private_code("MAP_HEIGHT", "Height of the stretched map in the region")  # no probability
BOX_SCORE = private_code("BOX_SCORE", "Calibrated probability of the region")
MAP_PEAK = private_code("MAP_PEAK", "Largest value of the map in the region")
_PRESENCE = {True: codes.SCT.Present, False: codes.SCT.Absent, None: codes.SCT.Undetermined}  # PS3.16 CID 240
_OPERATING_POINT = private_code("OPERATING_POINT", "Probability from which it is present")
_MOST_REGIONS = 10  # of a map; the segmentation has all


def image_groups(
    result: ImageResult, source: DicomSource, threshold: float | None
) -> list[MeasurementsAndQualitativeEvaluations]:
    """
    Return what is said of the image as a whole: one group for score and verdict, one for each finding by name.

    Args:
        result: what was found.
        source: the image it was found in.
        threshold: score from which the image is called abnormal.
    """
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
        sites = finding_sites("", source.dataset)
        groups.append(_image_group("image", finding, source, measurements, verdict, sites, comments))
    for label, probability in result.probabilities.items():
        measurements, present = [_measurement(codes.DCM.Probability, probability)], result.presence(label)
        point = result.operating_points.get(label)
        if present is not None and point is not None:
            measurements.append(_measurement(_OPERATING_POINT, point))
        # without it a reader would take the finding that the group is about for one that was found
        verdict = [QualitativeEvaluation(codes.DCM.PresenceOfProperty, _PRESENCE[present])]
        sites = finding_sites(label, source.dataset)
        groups.append(_image_group(f"image, {label}", finding_code(label), source, measurements, verdict, sites))
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
    sites: list[FindingSite],
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
        finding_sites=sites,
        source_images=[image],
    )
    group[0].ContentSequence.extend(
        TextContentItem(codes.DCM.Comment, comment, RelationshipTypeValues.CONTAINS) for comment in comments
    )
    return group


def box_groups(result: ImageResult, source: DicomSource) -> list[PlanarROIMeasurementsAndQualitativeEvaluations]:
    """
    Return one region for each box that may be drawn, cut at the border of the image.

    Args:
        result: what was found.
        source: the image it was found in; where a reference cannot name its frame, there are no regions.
    """
    boxes = [box for box in result.boxes if _may_be_drawn(box, result)] if source.says_which_frame() else []
    groups = []
    for number, box in enumerate(boxes, start=1):
        corners = (box.x, box.y, box.x + box.width, box.y + box.height)
        known = ((MAP_HEIGHT, box.map_height), (BOX_SCORE, box.score))
        numbers = [_measurement(name, value) for name, value in known if value is not None]
        finding, sites = _region_code(box.label, result), finding_sites(box.label, source.dataset)
        groups.append(_region_group(f"region {number}", corners, finding, numbers, sites, source))
    return groups


def map_groups(
    result: ImageResult, source: DicomSource, threshold: float | None, segmented: bool
) -> list[PlanarROIMeasurementsAndQualitativeEvaluations]:
    """
    Return where the map of an anomaly detector lies above its threshold.

    In an image that is called abnormal, and has no boxes, each connected part gives a rectangle around it, those with
    the largest values first and ten at most. The mask itself is in the segmentation, which is referred to where it
    has a pixel: as a focal abnormality in an abnormal image, else as a selected region and no finding.

    Args:
        result: what was found.
        source: the image it was found in; where a reference cannot name its frame, there are no regions.
        threshold: heat above which a pixel belongs to the mask.
        segmented: whether the mask was written as a segmentation.
    """
    if threshold is None or result.heatmap is None or not source.says_which_frame():
        return []
    heat = np.nan_to_num(np.asarray(result.heatmap, dtype=np.float64), nan=-np.inf)
    mask, groups = heat > threshold, []
    if not mask.any():
        return []
    if segmented:
        groups.append(_segment_group(result, source, threshold))
    if result.abnormal and result.anomaly_score is not None and not result.boxes:
        parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
        found = zip(ndimage.maximum(heat, parts, range(1, count + 1)), ndimage.find_objects(parts), strict=True)
        hottest = sorted(found, key=lambda part: -part[0])[:_MOST_REGIONS]
        for number, (peak, (rows, columns)) in enumerate(hottest, start=1):
            corners = (columns.start, rows.start, columns.stop, rows.stop)
            finding, numbers = finding_code("anomaly"), [_measurement(MAP_PEAK, peak)]
            sites = finding_sites("anomaly", source.dataset)
            groups.append(_region_group(f"map region {number}", corners, finding, numbers, sites, source))
    return groups


def _segment_group(
    result: ImageResult, source: DicomSource, threshold: float
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    image = SourceImageForSegmentation(
        source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, referenced_frame_numbers=_frame_numbers(source)
    )
    frame = ReferencedSegmentationFrame(SegmentationStorage, source.uid("SEG"), 1, 1, image)
    # PS3.3 C.17.3.5: a reference names frames or segments; ours has one of each
    del frame[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    identifier = f"heat above {threshold:.4g}"
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        # the segment's own, so that the two are known as one
        tracking_identifier=TrackingIdentifier(uid=source.uid("SEG", "segment"), identifier=identifier),
        referenced_segment=frame,
        finding_type=codes.DCM.FocalAbnormality if result.abnormal else codes.DCM.SelectedRegion,
        algorithm_id=_algorithm(source),
        finding_sites=finding_sites("", source.dataset),
    )


def _region_group(
    identifier: str,
    corners: tuple[float, float, float, float],
    finding: CodedConcept,
    measurements: list[Measurement],
    sites: list[FindingSite],
    source: DicomSource,
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    x0, x1 = np.clip([corners[0], corners[2]], 0, source.dataset.Columns)
    y0, y1 = np.clip([corners[1], corners[3]], 0, source.dataset.Rows)
    region = ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]),
        source_image=SourceImageForRegion(
            source.dataset.SOPClassUID, source.dataset.SOPInstanceUID, referenced_frame_numbers=_frame_numbers(source)
        ),
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=source.uid("SR", identifier), identifier=identifier),
        referenced_region=region,
        finding_type=finding,
        algorithm_id=_algorithm(source),
        finding_sites=sites,
        measurements=measurements,
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
