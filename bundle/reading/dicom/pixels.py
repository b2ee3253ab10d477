# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From stored pixels to display values 0..1, in the order of PS3.4 N.2; docs/pixels.md is the long form."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from bundle.reading.dicom.header import code_word, number
from bundle.reading.dicom.luts import read_lut, read_palette
from bundle.reading.dicom.windows import as_floats, voi_values
from bundle.reading.errors import UnreadableImageError

__all__ = ["GRAY", "display_values", "stored_range"]

CONTRADICTION = "contradicts"  # in the note on an image that two elements would show as negatives of each other
GRAY = ("MONOCHROME1", "MONOCHROME2")
SHAPES = ("IDENTITY", "INVERSE")  # of the Presentation LUT, PS3.3 C.7.6.1, C.8.11.3, C.11.6


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
    values, voi_note = voi_values(header, modality, low, high, window)
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
    return as_floats(stored) * slope + intercept, low, high
