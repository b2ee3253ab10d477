# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""VOI LUTs and windows of a DICOM file (PS3.3 C.11.2): hints for the display, chosen by what the user wants."""

from __future__ import annotations

import math

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from scipy.special import expit

from bundle.reading.dicom.header import code_word
from bundle.reading.dicom.luts import read_lut
from bundle.reading.errors import UnreadableImageError

__all__ = ["as_floats", "voi_values"]

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # of the VOI LUT, PS3.3 C.11.2
LARGEST = 1e30  # of a window's numbers, so that float32 holds what is made of them


def as_floats(values: np.ndarray) -> np.ndarray:
    """
    Return 16-bit integers as float32, which holds them exactly in half the memory, and 32-bit ones as float64.

    Args:
        values: of any shape; floating point numbers are returned as they are.
    """
    if values.dtype.kind == "f":
        return values
    return values.astype(np.float32) if values.itemsize <= 2 else values.astype(np.float64)


def voi_values(
    header: Dataset, modality: np.ndarray, low: float, high: float, window: str | None
) -> tuple[np.ndarray, str]:
    """
    Return values 0..1 by the chosen VOI LUT or window (PS3.3 C.11.2), by ``low..high`` where there is none, and a note.

    A window is a hint for the display, so one that cannot be applied never refuses the image.

    Args:
        header: header of the frame.
        modality: modality values, shape ``(H, W)``.
        low: smallest value that the file can hold.
        high: largest value that the file can hold.
        window: see :py:func:`bundle.reading.dicom.pixels.display_values`.

    Raises:
        UnreadableImageError: When the file has no window of that explanation.
    """
    luts = [item for item in header.get("VOILUTSequence") or [] if item.get("LUTData")]
    is_lut, index = _choice(window, [str(item.get("LUTExplanation") or "") for item in luts], _windows(header))
    note = ""
    if index >= 0:
        try:
            if is_lut:
                values, note = _by_lut(luts[index], header, modality, low, high)
            else:
                values = _by_window(header, modality, index)
            if values.min() == values.max() and modality.min() < modality.max():
                note = "the window lies outside the values: every pixel has one gray"
            return values, note
        except UnreadableImageError as error:
            name = "VOI LUT" if is_lut else "window"
            note = f"{name} not applied, shown over the full range: {str(error).rstrip('.')}"
    return np.clip((as_floats(modality) - low) / ((high - low) or 1), 0, 1), note


def _by_lut(item: Dataset, header: Dataset, modality: np.ndarray, low: float, high: float) -> tuple[np.ndarray, str]:
    lut = read_lut(item, header, low, high)
    if lut is None:
        raise UnreadableImageError("LUTData must be present, it is not.")
    return lut(modality).astype(np.float32) / np.float32(lut.top), lut.doubt


def _by_window(header: Dataset, modality: np.ndarray, index: int) -> np.ndarray:
    centers, widths = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    if len(centers) != len(widths):
        raise UnreadableImageError(
            f"WindowCenter and WindowWidth must be as many, got {len(centers)} and {len(widths)}."
        )
    center, width = centers[index], widths[index]
    function = code_word(header, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        raise UnreadableImageError("VOILUTFunction must be LINEAR, LINEAR_EXACT or SIGMOID, it is not.")
    if not (abs(center) < LARGEST and abs(width) < LARGEST):
        raise UnreadableImageError("WindowCenter and WindowWidth must be finite numbers, they are not.")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise UnreadableImageError(
            f"WindowWidth must be {'at least 1' if function == 'LINEAR' else 'above 0'}, got {width:g}."
        )
    values = as_floats(modality)
    if function == "SIGMOID":
        return expit((values - center) * (4 / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, np.float32(1), np.float32(0))
    return np.clip((values - center) / width + 0.5, 0, 1)


def _choice(window: str | None, luts: list[str], windows: list[str]) -> tuple[bool, int]:
    """Return whether a LUT or a window is meant, and which; index -1 is the whole range."""
    if window is None or (window == "first" and not luts and not windows):
        return False, -1
    if window == "first":
        return bool(luts), 0
    if window in luts:
        return True, luts.index(window)
    if window in windows:
        return False, windows.index(window)
    raise UnreadableImageError(
        f"window must be 'first', None or one of {len(luts) + len(windows)} explanations in the file, got {window!r}."
    )


def _windows(header: Dataset) -> list[str]:
    """Return the explanation of each window, empty where it has none."""
    count = max(len(_numbers(header, "WindowCenter")), len(_numbers(header, "WindowWidth")))
    explanations = header.get("WindowCenterWidthExplanation") or ""
    words = list(explanations) if isinstance(explanations, MultiValue) else [explanations]
    return [str(words[i]) if i < len(words) else "" for i in range(count)]


def _numbers(header: Dataset, keyword: str) -> list[float]:
    """Return the values of an element, not-a-number for what is none, nothing for an absent or empty one."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom's own conversion, of many kinds
        return [math.nan]
    return (
        [_number(v) for v in value]
        if isinstance(value, MultiValue)
        else []
        if value in (None, "")
        else [_number(value)]
    )


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan
