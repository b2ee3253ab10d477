# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Decode one frame with a decoder that is fixed for each transfer syntax, and name the decoder."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options, get_expected_length

from bundle.reading.dicom.codestreams import codestream_size, ends_of_jpegls
from bundle.reading.dicom.header import code_word, number
from bundle.reading.dicom.isolated import decode_isolated
from bundle.reading.dicom.opened import Pixels
from bundle.reading.errors import UnreadableImageError

__all__ = ["decode_frame"]

# decoders differ by up to 3 levels on lossy JPEG, so one is fixed for each transfer syntax: (pydicom plugin, package)
DECODERS = {
    uid.ImplicitVRLittleEndian: ("", "pydicom"),
    uid.ExplicitVRLittleEndian: ("", "pydicom"),
    uid.DeflatedExplicitVRLittleEndian: ("", "pydicom"),
    uid.ExplicitVRBigEndian: ("", "pydicom"),
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


def decode_frame(dataset: Dataset, index: int, pixels: Pixels) -> tuple[np.ndarray, str, str]:
    """
    Return one frame as stored, what its samples mean, and who decoded it.

    Signs and unused bits are corrected; YBR becomes RGB (PS3.3 C.7.6.3.1.2); samples come out last, whatever Planar
    Configuration says, which means nothing in a compressed frame (PS3.3 C.7.6.3.1.3, PS3.5 8.2).

    Args:
        dataset: header of the file.
        index: frame, from 0.
        pixels: where the pixel data lies.

    Returns:
        stored values, shape ``(H, W)`` or ``(H, W, 3)``; the photometric interpretation that now holds; the decoder
        and its version, for example ``pillow 13.0.0``.

    Raises:
        UnreadableImageError: When no permitted decoder reads the transfer syntax, the compressed image has another
            size than the header says, or the decoder fails.
    """
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    if syntax not in DECODERS:
        raise UnreadableImageError("TransferSyntaxUID (0002,0010) must be one for images, got another or none.")
    plugin, package = DECODERS[syntax]
    if syntax == uid.JPEGExtended12Bit and number(dataset, "BitsStored") != 8:
        plugin, package = "pylibjpeg", "pylibjpeg-libjpeg"
        if plugin not in get_decoder(syntax).available_plugins:
            raise UnreadableImageError("12-bit JPEG Extended needs the GPL-3.0 extra 'jpeg12' (pylibjpeg-libjpeg).")
    photometric = code_word(dataset, "PhotometricInterpretation")
    if not photometric:
        raise UnreadableImageError("PhotometricInterpretation must be present, it is not.")
    try:
        options = as_pixel_options(dataset, photometric_interpretation=photometric, pixel_keyword="PixelData")
        if syntax.is_encapsulated:
            stored, now = _compressed(dataset, index, pixels, options, plugin)
        else:
            stored, now = _uncompressed(dataset, index, pixels, options)
    except (UnreadableImageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in pylibjpeg-rle, which is Rust, is no Exception
        raise UnreadableImageError(
            f"the pixel data must decode as {syntax.name}, {package} ended in {type(error).__name__}."
        ) from None
    return stored, now, f"{package} {version(package)}"


def _uncompressed(dataset: Dataset, index: int, pixels: Pixels, options: dict[str, Any]) -> tuple[np.ndarray, str]:
    if options["samples_per_pixel"] > 1 and options.get("planar_configuration") not in (0, 1):
        raise UnreadableImageError("PlanarConfiguration must be 0 or 1 in uncompressed color, it is not.")
    expected = get_expected_length(dataset)
    if pixels.length is None or pixels.length < expected:
        got = "fragments" if pixels.length is None else pixels.length
        raise UnreadableImageError(f"PixelData must hold {expected} bytes, got {got}.")
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    stored, properties = decoder.as_array(pixels.stream, index=index, **{**options, "pixel_vr": pixels.vr})
    return stored, str(properties["photometric_interpretation"])


def _compressed(
    dataset: Dataset, index: int, pixels: Pixels, options: dict[str, Any], plugin: str
) -> tuple[np.ndarray, str]:
    syntax = uid.UID(dataset.file_meta.TransferSyntaxUID)
    offsets = options.pop("extended_offsets", None)
    frame = get_frame(pixels.stream, index, number_of_frames=options["number_of_frames"], extended_offsets=offsets)
    _check_codestream(dataset, frame)
    options = {**options, "number_of_frames": 1, "planar_configuration": 0}
    try:
        return _decoded(syntax, plugin, frame, options)
    except Exception:
        for shorter in ends_of_jpegls(frame) if syntax in uid.JPEGLSTransferSyntaxes else []:
            with suppress(Exception):
                return _decoded(syntax, plugin, shorter, options)
        raise


def _decoded(syntax: uid.UID, plugin: str, frame: bytes, options: dict[str, Any]) -> tuple[np.ndarray, str]:
    if plugin == "gdcm":
        return decode_isolated(str(syntax), plugin, frame, options)
    stored, properties = get_decoder(syntax).as_array(encapsulate([frame]), index=0, decoding_plugin=plugin, **options)
    return stored, str(properties["photometric_interpretation"])


def _check_codestream(dataset: Dataset, frame: bytes) -> None:
    """Refuse a compressed frame of another size than the header's, before a decoder allocates it."""
    size = codestream_size(frame)
    stated = int(number(dataset, "Rows")), int(number(dataset, "Columns"))
    if size is not None and size != stated:
        raise UnreadableImageError(f"Rows and Columns must be those of the codestream {size}, got {stated}.")
