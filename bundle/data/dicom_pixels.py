# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From stored pixels to display values 0..1, in the order of PS3.4 N.2; docs/pixels.md is the long form."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder
from pydicom.pixels.processing import apply_voi

from bundle.data.dicom_files import number
from bundle.data.errors import UnreadableImageError

__all__ = ["decode_frame", "display_values"]

# decoders differ by up to 3 levels on lossy JPEG, so one is fixed for each transfer syntax: (pydicom plugin, package)
DECODERS = {
    uid.JPEGBaseline8Bit: ("pillow", "pillow"),
    uid.JPEGExtended12Bit: ("pillow", "pillow"),
    uid.JPEGLossless: ("gdcm", "python-gdcm"),
    uid.JPEGLosslessSV1: ("gdcm", "python-gdcm"),
    uid.JPEGLSLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEGLSNearLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEG2000Lossless: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.JPEG2000: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2KLossless: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2K: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.RLELossless: ("pylibjpeg", "pylibjpeg-rle"),
}
NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
}
GRAY = ("MONOCHROME1", "MONOCHROME2")


def decode_frame(dataset: Dataset, index: int) -> tuple[np.ndarray, str, str]:
    """
    Return one frame as stored, what its samples mean, and who decoded it.

    Signs and unused bits are corrected; YBR becomes RGB; both planar configurations come out as samples last.

    Args:
        dataset: data set with pixel data.
        index: frame, from 0.

    Returns:
        stored values, shape ``(H, W)`` or ``(H, W, 3)``; the photometric interpretation that now holds; the decoder
        and its version, for example ``pillow 13.0.0``.

    Raises:
        UnreadableImageError: When no permitted decoder reads the transfer syntax, or the decoder fails.
    """
    meta = getattr(dataset, "file_meta", {})
    syntax = uid.UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax in NATIVE:
        plugin, package = "", "pydicom"
    elif syntax in DECODERS:
        plugin, package = DECODERS[syntax]
    else:
        raise UnreadableImageError("TransferSyntaxUID (0002,0010) must be one for images, got another or none.")
    decoder = get_decoder(syntax)
    if syntax == uid.JPEGExtended12Bit and number(dataset, "BitsStored") != 8:
        plugin, package = "pylibjpeg", "pylibjpeg-libjpeg"
        if plugin not in decoder.available_plugins:
            raise UnreadableImageError("12-bit JPEG Extended needs the GPL-3.0 extra 'jpeg12' (pylibjpeg-libjpeg).")
    try:
        stored, properties = decoder.as_array(dataset, index=index, decoding_plugin=plugin)
    except Exception as error:
        raise UnreadableImageError(
            f"the pixel data must decode as {syntax.name}, {package} failed with {type(error).__name__}."
        ) from None
    return stored, str(properties["photometric_interpretation"]), f"{package} {version(package)}"


def display_values(dataset: Dataset, stored: np.ndarray, photometric: str, window: str | None) -> np.ndarray:
    """
    Return display values 0..1: 0 black, 1 white.

    Args:
        dataset: data set that the frame comes from.
        stored: stored values, shape ``(H, W)`` or ``(H, W, 3)``.
        photometric: what they mean, as :py:func:`decode_frame` returns it.
        window: ``"first"`` for the first VOI LUT or window, the explanation of another one, or ``None`` for the
            whole range of the values that the file can hold.

    Returns:
        float32, shape ``(C, H, W)`` with C = 1 or 3.

    Raises:
        UnreadableImageError: When the photometric interpretation is unknown or a step has impossible values.
    """
    if photometric == "PALETTE COLOR":  # PS3.3 C.7.6.3.1.5
        colors = apply_color_lut(stored, dataset)[..., :3]
        return np.moveaxis(colors.astype(np.float32) / np.iinfo(colors.dtype).max, -1, 0)
    if photometric == "RGB":
        return np.moveaxis(stored.astype(np.float32) / (2 ** number(dataset, "BitsStored") - 1), -1, 0)
    if photometric not in GRAY:
        raise UnreadableImageError(f"PhotometricInterpretation must be RGB, PALETTE COLOR, YBR or one of {GRAY}.")
    low, high = stored_range(dataset)
    if dataset.get("ModalityLUTSequence"):  # PS3.3 C.11.1
        modality = apply_modality_lut(stored, dataset)
        low, high = 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        slope, intercept = number(dataset, "RescaleSlope", 1), number(dataset, "RescaleIntercept", 0)
        if slope == 0:
            raise UnreadableImageError("RescaleSlope must not be 0.")
        modality = stored if (slope, intercept) == (1, 0) else stored * np.float64(slope) + intercept
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    values = voi_values(dataset, modality, low, high, window)
    inverse = str(dataset.get("PresentationLUTShape", "")).upper() == "INVERSE"  # PS3.3 C.11.6
    if (photometric == "MONOCHROME1") != inverse:
        values = 1 - values
    return values[None].astype(np.float32)


def stored_range(dataset: Dataset) -> tuple[float, float]:
    """Return the smallest and largest stored value that Bits Stored allows (PS3.3 C.7.6.3)."""
    bits = int(number(dataset, "BitsStored"))
    if number(dataset, "PixelRepresentation", 0) == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def voi_values(dataset: Dataset, modality: np.ndarray, low: float, high: float, window: str | None) -> np.ndarray:
    """Return modality values as 0..1 by the VOI LUT or window (PS3.3 C.11.2), else by ``low..high``."""
    if window is not None and dataset.get("VOILUTSequence"):
        top = 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
        return apply_voi(modality, dataset).astype(np.float64) / top
    if window is None or "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        return (modality - low) / (high - low)
    center, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (modality - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((modality - center) / max(width, 1e-9) + 0.5, 0, 1)


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]
