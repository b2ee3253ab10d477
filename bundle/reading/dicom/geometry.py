# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Millimetres per pixel and the scanned region of an ultrasound frame, as the file states them, never guessed."""

from __future__ import annotations

import math

import numpy as np
from pydicom.dataset import Dataset

from bundle.reading.dicom.header import number
from bundle.reading.errors import UnreadableImageError

__all__ = ["pixel_spacing", "scanned_region"]

CENTIMETRES = 3  # Physical Units, PS3.3 C.8.5.5.1.15


def pixel_spacing(header: Dataset) -> tuple[np.ndarray, str, float]:
    """
    Return the spacing, where it comes from, and the magnification that was taken out.

    In this order: Pixel Spacing (PS3.3 10.7.1.1); Imager Pixel Spacing (C.8.11.4), which holds at the detector and is
    divided by Estimated Radiographic Magnification Factor where that is known; Physical Delta of the scanned region
    (C.8.5.5); nothing.

    Args:
        header: header of the frame.

    Returns:
        millimetres per row and per column, shape ``(2,)``, not-a-number where unknown; the element's name, empty where
        unknown; the factor, 1.0 where none was applied.
    """
    spacing = _positive_pair(header, "PixelSpacing")
    if spacing is not None:
        return spacing, "PixelSpacing", 1.0
    spacing = _positive_pair(header, "ImagerPixelSpacing")
    if spacing is not None:
        factor = _number_or_nan(header, "EstimatedRadiographicMagnificationFactor")
        if factor >= 1:
            return spacing / factor, "ImagerPixelSpacing", factor
        return spacing, "ImagerPixelSpacing", 1.0
    region = _largest_region(header)
    if region is not None:
        units = [_number_or_nan(region, f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [abs(_number_or_nan(region, f"PhysicalDelta{axis}")) for axis in "YX"]
        if units == [CENTIMETRES, CENTIMETRES] and min(deltas) > 0:
            return 10 * np.array(deltas), "SequenceOfUltrasoundRegions", 1.0
    return np.full(2, np.nan), "", 1.0


def scanned_region(header: Dataset) -> np.ndarray:
    """
    Return the largest 2-D region of an ultrasound frame, the whole frame where none is stated (PS3.3 C.8.5.5).

    A region that reaches out of the frame was stated for another pixel grid (files that were scaled or cut afterwards
    keep it), so neither its place nor its spacing holds, and it is left alone.

    Args:
        header: header of the frame.

    Returns:
        first row, first column, row after the last, column after the last; int64, shape ``(4,)``, within the frame.
    """
    region = _largest_region(header)
    if region is None:
        return np.array([0, 0, int(number(header, "Rows")), int(number(header, "Columns"))])
    return np.array(_bounds(region, header))


def _largest_region(header: Dataset) -> Dataset | None:
    best, best_area = None, 0
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        if _number_or_nan(region, "RegionSpatialFormat") != 1:  # 2-D; spectra and graphs have other numbers
            continue
        top, left, bottom, right = _bounds(region, header)
        area = max(bottom - top, 0) * max(right - left, 0)
        if area > best_area:
            best, best_area = region, area
    return best


def _bounds(region: Dataset, header: Dataset) -> tuple[int, int, int, int]:
    """Return the region's rectangle, empty where it is not within the frame; its corners are inclusive."""
    values = [_number_or_nan(region, f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
    rows, columns = int(number(header, "Rows")), int(number(header, "Columns"))
    # some files state the corner behind the last pixel
    if any(math.isnan(value) for value in values) or values[2] > rows or values[3] > columns or min(values) < 0:
        return 0, 0, 0, 0
    top, left, bottom, right = (int(value) for value in values)
    return top, left, min(bottom + 1, rows), min(right + 1, columns)


def _positive_pair(header: Dataset, keyword: str) -> np.ndarray | None:
    try:
        pair = np.array([float(value) for value in header.get(keyword) or []])
    except (TypeError, ValueError):
        return None
    return pair if pair.shape == (2,) and np.isfinite(pair).all() and (pair > 0).all() else None


def _number_or_nan(dataset: Dataset, keyword: str) -> float:
    try:
        return number(dataset, keyword)
    except UnreadableImageError:
        return math.nan
