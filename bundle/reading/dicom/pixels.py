# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From stored pixels to display values 0..1, in the order of PS3.4 N.2; docs/pixels.md is the long form."""

from __future__ import annotations

import math

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from scipy.special import expit

from bundle.reading.dicom.header import code_word, number
from bundle.reading.dicom.luts import read_lut, read_palette
from bundle.reading.errors import UnreadableImageError

__all__ = ["GRAY", "display_values", "stored_range"]

CONTRADICTION = "contradicts"  # in the note on an image that two elements would show as negatives of each other
GRAY = ("MONOCHROME1", "MONOCHROME2")
SHAPES = ("IDENTITY", "INVERSE")  # of the Presentation LUT, PS3.3 C.7.6.1, C.8.11.3, C.11.6
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # of the VOI LUT, PS3.3 C.11.2
LARGEST = 1e30  # of a window's numbers, so that float32 holds what is made of them


def display_values(
    header: Dataset, stored: np.ndarray, photometric: str, window: str | None, override: str | None = None
) -> tuple[np.ndarray, str]:
    """
    Return display values 0..1, 0 black and 1 white, and what was done about a hint that could not be applied.

    Args:
        header: header of the frame.
        stored: stored values, shape ``(H, W)`` or ``(H, W, 3)``.
        photometric: what they mean: MONOCHROME1, MONOCHROME2, PALETTE COLOR or RGB.
        window: ``"first"`` for the first VOI LUT, else the first window; the explanation of another one; ``None`` for
            the whole range of values that the file can hold.
        override: MONOCHROME1 or MONOCHROME2 in place of all that a gray file says of its polarity.

    Returns:
        float32, shape ``(C, H, W)`` with C = 1 or 3; one short sentence, empty where everything was applied.

    Raises:
        UnreadableImageError: When the photometric interpretation is unknown or a step has impossible values.
    """
    low, high = stored_range(header)
    if stored.min() < low or stored.max() > high:
        raise UnreadableImageError(
            f"BitsStored must cover the stored values {low:g}..{high:g}, got {stored.min()}..{stored.max()}."
        )
    if photometric == "PALETTE COLOR" and stored.ndim == 2:
        return _palette_values(header, stored)
    if photometric == "RGB" and stored.ndim == 3:
        return np.moveaxis(stored.astype(np.float32) / np.float32(high), -1, 0), ""
    if photometric not in GRAY or stored.ndim != 2:
        raise UnreadableImageError(
            "PhotometricInterpretation must be MONOCHROME1, MONOCHROME2 or PALETTE COLOR with one sample, "
            f"RGB or YBR with three; it is not, with {1 if stored.ndim == 2 else stored.shape[-1]}."
        )
    padding = _padding(header, stored, low, high)
    modality, low, high = _modality_values(header, stored, low, high)
    values, voi_note = _voi_values(header, modality, low, high, window)
    inverted, shape_note = _inverted(header, photometric, override)
    if inverted:
        values = 1 - values
    if padding is not None:
        values[padding] = 0
    notes = (voi_note, shape_note, _supplemental_note(header))
    return values[None].astype(np.float32, copy=False), "; ".join(note for note in notes if note)


def stored_range(header: Dataset) -> tuple[float, float]:
    """
    Return the smallest and largest stored value that Bits Stored and Pixel Representation allow (PS3.3 C.7.6.3).

    Args:
        header: header of the frame.
    """
    bits = int(number(header, "BitsStored"))
    if number(header, "PixelRepresentation", 0) == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _inverted(header: Dataset, photometric: str, override: str | None) -> tuple[bool, str]:
    """
    Return whether the smallest value is white, which is said once or twice (PS3.3 C.7.6.3.1.2, C.7.6.1, C.8.11.3).

    Photometric Interpretation MONOCHROME1 and Presentation LUT Shape INVERSE state one inversion: the Standard requires
    the pair. Where the two contradict one another the shape holds, which says what the output of all steps is (C.11.6),
    and the note says so. Whoever overrides the file's word overrides both.
    """
    if override is not None:
        return override == "MONOCHROME1", ""
    shape, white = code_word(header, "PresentationLUTShape"), photometric == "MONOCHROME1"
    if shape not in SHAPES:
        return white, ""
    if (shape == "INVERSE") == white:
        return white, ""
    return not white, f"Presentation LUT Shape {shape} {CONTRADICTION} {photometric}: shown by the shape"


def _supplemental_note(header: Dataset) -> str:
    """Return a note where some gray values stand for colors (PS3.3 C.7.6.19), which is not applied."""
    color = code_word(header, "PixelPresentation") in ("COLOR", "MIXED")
    return "supplemental palette not applied: shown gray" if color else ""


def _palette_values(header: Dataset, stored: np.ndarray) -> tuple[np.ndarray, str]:
    """Return colors 0..1 by the palette (PS3.3 C.7.6.3.1.5), all three by the range of the widest, and a note."""
    luts = read_palette(header, *stored_range(header))
    widest = max(luts, key=lambda lut: int(lut.entries.max()))
    top = np.float32(max(lut.top for lut in luts))
    return np.stack([lut(stored).astype(np.float32) / top for lut in luts]), widest.doubt


def _padding(header: Dataset, stored: np.ndarray, low: float, high: float) -> np.ndarray | None:
    """Return where pixels are no part of the image: Pixel Padding Value to its Range Limit (PS3.3 C.7.5.1.1.2)."""
    if header.get("PixelPaddingValue") is None:
        return None
    first = number(header, "PixelPaddingValue")
    last = number(header, "PixelPaddingRangeLimit", first)
    # the value representation is ambiguous, so a signed value may have been read as an unsigned one
    first, last = sorted(value - 2**16 if low < 0 and value > high else value for value in (first, last))
    return (stored >= first) & (stored <= last)


def _modality_values(header: Dataset, stored: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, float]:
    """Return modality values and the range they can have, by LUT or by rescale (PS3.3 C.11.1)."""
    for item in header.get("ModalityLUTSequence") or []:
        lut = read_lut(item, header, low, high)
        if lut is not None:
            # descriptors often promise more bits than the entries use, and there may be no window to make up for it
            reached = lut(np.arange(low, high + 1)) if high - low < 2**16 else lut.entries
            return lut(stored), float(reached.min()), float(reached.max())
    slope, intercept = number(header, "RescaleSlope", 1), number(header, "RescaleIntercept", 0)
    if slope == 0:
        raise UnreadableImageError("RescaleSlope must not be 0, got 0.")
    if (slope, intercept) == (1, 0):
        return stored, low, high
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return _floats(stored) * slope + intercept, low, high


def _voi_values(
    header: Dataset, modality: np.ndarray, low: float, high: float, window: str | None
) -> tuple[np.ndarray, str]:
    """
    Return values 0..1 by the chosen VOI LUT or window (PS3.3 C.11.2), by ``low..high`` where there is none, and a note.

    A window is a hint for the display, so one that cannot be applied never refuses the image.
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
    return np.clip((_floats(modality) - low) / ((high - low) or 1), 0, 1), note


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
    values = _floats(modality)
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


def _floats(values: np.ndarray) -> np.ndarray:
    """Return 16-bit integers as float32, which holds them exactly in half the memory, and 32-bit ones as float64."""
    if values.dtype.kind == "f":
        return values
    return values.astype(np.float32) if values.itemsize <= 2 else values.astype(np.float64)


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
