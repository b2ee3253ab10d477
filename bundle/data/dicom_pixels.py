# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From stored pixels to display values 0..1, in the order of PS3.4 N.2; docs/pixels.md is the long form."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.pixels.processing import apply_voi
from scipy.special import expit

from bundle.data.dicom_files import number
from bundle.data.errors import UnreadableImageError

__all__ = ["GRAY", "display_values", "stored_range"]

GRAY = ("MONOCHROME1", "MONOCHROME2")


def display_values(header: Dataset, stored: np.ndarray, photometric: str, window: str | None) -> np.ndarray:
    """
    Return display values 0..1: 0 black, 1 white.

    Args:
        header: header of the frame.
        stored: stored values, shape ``(H, W)`` or ``(H, W, 3)``.
        photometric: what they mean: MONOCHROME1, MONOCHROME2, PALETTE COLOR or RGB.
        window: ``"first"`` for the first VOI LUT, else the first window; the explanation of another one; ``None`` for
            the whole range of values that the file can hold.

    Returns:
        float32, shape ``(C, H, W)`` with C = 1 or 3.

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
        return np.moveaxis(stored.astype(np.float32) / np.float32(high), -1, 0)
    if photometric not in GRAY or stored.ndim != 2:
        raise UnreadableImageError(
            "PhotometricInterpretation must be MONOCHROME1, MONOCHROME2 or PALETTE COLOR with one sample, "
            f"RGB or YBR with three; it is not, with {1 if stored.ndim == 2 else stored.shape[-1]}."
        )
    padding = _padding(header, stored, low, high)
    modality, low, high = _modality_values(header, stored, low, high)
    values = _voi_values(header, modality, low, high, window)
    inverse = str(header.get("PresentationLUTShape") or "").upper() == "INVERSE"  # PS3.3 C.11.6, C.8.11.3
    if (photometric == "MONOCHROME1") != inverse:
        values = 1 - values
    values[padding] = 0
    return values[None].astype(np.float32, copy=False)


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


def _palette_values(header: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return colors 0..1 by the palette, whose entries have 8 or 16 bits (PS3.3 C.7.6.3.1.5)."""
    for color in ("Red", "Green", "Blue"):
        segments = header.get(f"Segmented{color}PaletteColorLookupTableData")
        if segments and "RedPaletteColorLookupTableData" not in header:
            _check_segments(segments, header)
    colors = apply_color_lut(stored, header)[..., :3]
    bits = header.RedPaletteColorLookupTableDescriptor[2]
    top = 2**bits - 1 if colors.max() < 2**bits else np.iinfo(colors.dtype).max
    return np.moveaxis(colors.astype(np.float32) / np.float32(top), -1, 0)


def _check_segments(data: bytes, header: Dataset) -> None:
    """Refuse a segmented palette that expands beyond 65536 entries: a few bytes can stand for millions (C.7.9.2)."""
    syntax = header.file_meta.TransferSyntaxUID
    width = "B" if header.RedPaletteColorLookupTableDescriptor[2] == 8 else "H"
    words = np.frombuffer(data[: len(data) // 2 * 2], dtype=("<" if syntax.is_little_endian else ">") + width)
    place, entries = 0, 0
    while place + 1 < len(words):
        kind, length = int(words[place]), int(words[place + 1])
        if kind not in (0, 1):
            raise UnreadableImageError(f"palette segments must be discrete or linear, got kind {kind}.")
        entries += length
        place += 2 + (length if kind == 0 else 1)
    if entries > 2**16:
        raise UnreadableImageError(f"a palette must have at most 65536 entries, got {entries}.")


def _padding(header: Dataset, stored: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return where pixels are no part of the image: Pixel Padding Value to its Range Limit (PS3.3 C.7.5.1.1.2)."""
    if header.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=bool)
    first = number(header, "PixelPaddingValue")
    last = number(header, "PixelPaddingRangeLimit", first)
    # the value representation is ambiguous, so a signed value may have been read as an unsigned one
    first, last = sorted(value - 2**16 if low < 0 and value > high else value for value in (first, last))
    return (stored >= first) & (stored <= last)


def _modality_values(header: Dataset, stored: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, float]:
    """Return modality values and the range they can have, by LUT or by rescale (PS3.3 C.11.1)."""
    if header.get("ModalityLUTSequence"):
        top = 2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        return apply_modality_lut(stored, header), 0, top
    slope, intercept = number(header, "RescaleSlope", 1), number(header, "RescaleIntercept", 0)
    if slope == 0:
        raise UnreadableImageError("RescaleSlope must not be 0, got 0.")
    if (slope, intercept) == (1, 0):
        return stored, low, high
    low, high = sorted((low * slope + intercept, high * slope + intercept))
    return _floats(stored) * slope + intercept, low, high


def _voi_values(header: Dataset, modality: np.ndarray, low: float, high: float, window: str | None) -> np.ndarray:
    """Return values 0..1 by the chosen VOI LUT or window (PS3.3 C.11.2), by ``low..high`` where there is none."""
    luts = list(header.get("VOILUTSequence") or [])
    lut, index = _choice(window, [str(item.get("LUTExplanation") or "") for item in luts], _windows(header))
    if lut:
        whole = modality if modality.dtype.kind in "iu" else np.rint(modality).astype(np.int64)
        top = 2 ** int(luts[index].LUTDescriptor[2]) - 1
        return apply_voi(whole, header, index).astype(np.float32) / np.float32(top)
    values = _floats(modality)
    if index < 0:
        return (values - low) / (high - low)
    center, width = (_numbers(header, name)[index] for name in ("WindowCenter", "WindowWidth"))
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableImageError("VOILUTFunction must be LINEAR, LINEAR_EXACT or SIGMOID, it is not.")
    smallest = 1 if function == "LINEAR" else 0
    if width < smallest or width == 0:
        raise UnreadableImageError(f"WindowWidth must be at least 1, or above 0 unless LINEAR, got {width:g}.")
    if function == "SIGMOID":
        return expit((values - center) * (4 / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 1.0, 0.0)
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
    centers, widths = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    if len(centers) != len(widths):
        raise UnreadableImageError(
            f"WindowCenter and WindowWidth must be as many, got {len(centers)} and {len(widths)}."
        )
    explanations = header.get("WindowCenterWidthExplanation") or ""
    words = list(explanations) if isinstance(explanations, MultiValue) else [explanations]
    return [str(words[i]) if i < len(words) else "" for i in range(len(centers))]


def _floats(values: np.ndarray) -> np.ndarray:
    """Return 16-bit integers as float32, which holds them exactly in half the memory, and 32-bit ones as float64."""
    if values.dtype.kind == "f":
        return values
    return values.astype(np.float32) if values.itemsize <= 2 else values.astype(np.float64)


def _numbers(header: Dataset, keyword: str) -> list[float]:
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return []
        numbers = [float(v) for v in (value if isinstance(value, MultiValue) else [value])]
    except (TypeError, ValueError):
        raise UnreadableImageError(f"{keyword} must be numbers, it is not.") from None
    if not np.isfinite(numbers).all():
        raise UnreadableImageError(f"{keyword} must be finite, got {numbers}.")
    return numbers
