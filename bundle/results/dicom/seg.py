# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Heat as DICOM segmentations: a binary one above a threshold, and a fractional one of the heat itself."""

from __future__ import annotations

import os

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.results.dicom.anatomy import copy_body_part, image_region
from bundle.results.dicom.save import save_dicom_result
from bundle.results.dicom.source import DicomSource
from bundle.results.overlays import check_heat_range
from bundle.results.records import ImageResult, NotWrittenError, remarks

__all__ = ["write_binary_seg", "write_heat_seg"]

_COLOR = CIELabColor(54.3, 80.8, 69.9)  # red, as sRGB 255, 0, 0 (D50)


def write_binary_seg(path: str | os.PathLike, result: ImageResult, source: DicomSource, map_threshold: float) -> None:
    """
    Write where the heat lies above a threshold; a mask without a pixel is written too, for it is a result.

    In an image that is not assessed the mask is one of a selected region, and of no finding.

    Args:
        path: file to write.
        result: with a heatmap in the pixel grid of the source.
        source: the image it was found in.
        map_threshold: in the unit of the heat.

    Raises:
        NotWrittenError: When there is no heatmap of the source's size, or the source has several frames: without a
            frame of reference and positions, which a loop has not, a segmentation cannot say which frame is meant.
    """
    heatmap = _heatmap(result, source)
    label = f"heat above {map_threshold:.4g}"
    # what was not looked at is not-a-number, and not above
    _write(path, heatmap > map_threshold, "BINARY", label, result, source, "SEG", "AI mask")


def write_heat_seg(
    path: str | os.PathLike, result: ImageResult, source: DicomSource, heat_range: tuple[float, float]
) -> None:
    """
    Write the heat itself, from no heat (0) to full heat (255), for programs: viewers show binary segments alone.

    DICOM has two kinds of fractions. The heat is no probability, so it is given as the other one, occupancy: the share
    of the heat range that a pixel reaches.

    Args:
        path: file to write.
        result: with a heatmap in the pixel grid of the source.
        source: the image it was found in.
        heat_range: values written as no heat and as full heat.

    Raises:
        NotWrittenError: As for :py:func:`write_binary_seg`.
    """
    heatmap = _heatmap(result, source)
    low, high = check_heat_range(heat_range)
    label = f"heat from {low:.4g} to {high:.4g}, no probability"
    fraction = np.clip((np.nan_to_num(heatmap, nan=low) - low) / (high - low), 0, 1)
    _write(path, fraction, "FRACTIONAL", label, result, source, "HEAT", "AI heatmap")


def _heatmap(result: ImageResult, source: DicomSource) -> np.ndarray:
    if result.heatmap is None:
        raise NotWrittenError("a segmentation needs a heatmap, the result has none.")
    if source.frames > 1:
        raise NotWrittenError(f"a segmentation needs a source of a single frame, this one has {source.frames} frames.")
    shape = (source.dataset.Rows, source.dataset.Columns)
    if result.heatmap.shape != shape:
        raise NotWrittenError(f"the heatmap must have the source's {shape} pixels, got {result.heatmap.shape}.")
    return np.asarray(result.heatmap, dtype=np.float64)


def _write(
    path: str | os.PathLike,
    pixels: np.ndarray,
    kind: str,
    label: str,
    result: ImageResult,
    source: DicomSource,
    role: str,
    description: str,
) -> None:
    words = ". ".join([label, *remarks(result)])
    region = image_region(source.dataset)
    # a region of an image without a verdict is one of the picture (CID 7150), and no finding
    assessed = result.not_assessed is None
    with quiet_dicom():
        segment = SegmentDescription(
            segment_number=1,
            segment_label=label if assessed else f"{label}, not assessed"[:64],
            segmented_property_category=(
                codes.SCT.MorphologicallyAbnormalStructure if assessed else codes.SCT.SpatialAndRelationalConcept
            ),
            segmented_property_type=codes.DCM.FocalAbnormality if assessed else codes.DCM.SelectedRegion,
            algorithm_type="AUTOMATIC",
            algorithm_identification=source.algorithm_sequence(),
            tracking_uid=source.uid(role, "segment"),
            tracking_id=label,
            anatomic_regions=None if region is None else [region],
            display_color=_COLOR,
        )
        segmentation = Segmentation(
            source_images=[source.dataset],
            pixel_array=pixels[None],
            segmentation_type=kind,
            fractional_type="OCCUPANCY",
            segment_descriptions=[segment],
            omit_empty_frames=False,
            content_label=role,
            content_description=label,
            **source.identity(role),
            **source.equipment(),
        )
        # highdicom leaves it out, and without a frame of reference it is the only word on which side is which;
        # PS3.3 C.7.6.1 has it empty where unknown
        segmentation.PatientOrientation = source.dataset.PatientOrientation
        copy_body_part(segmentation, source.dataset)
        segmentation.SegmentSequence[0].SegmentDescription = words[:1024]  # ST
        organization = source.uid(role, "dimensions")  # where highdicom draws one
        for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
            item.DimensionOrganizationUID = organization
        # PS3.3 A.51.5: not needed beside a derivation image, and without a slice thickness, which a projection has not,
        # highdicom writes it but does not open it again
        shared = segmentation.SharedFunctionalGroupsSequence[0]
        measures = shared.get("PixelMeasuresSequence")
        if measures and "SliceThickness" not in measures[0]:
            del shared.PixelMeasuresSequence
        save_dicom_result(path, segmentation, description, source)
