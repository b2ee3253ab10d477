# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Decode one frame with a decoder that is fixed for each transfer syntax, and name the decoder."""

from __future__ import annotations

import struct
from importlib.metadata import version

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options, get_expected_length

from bundle.data.dicom_files import frame_count, number
from bundle.data.errors import UnreadableImageError
from bundle.data.isolated_decoding import decode_isolated

__all__ = ["codestream_size", "decode_frame"]

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
NO_SIZE = {0xC4, 0xC8, 0xCC}  # among the JPEG markers C0..CF: Huffman tables, reserved, arithmetic conditioning


def decode_frame(dataset: Dataset, index: int) -> tuple[np.ndarray, str, str]:
    """
    Return one frame as stored, what its samples mean, and who decoded it.

    Signs and unused bits are corrected; YBR becomes RGB (PS3.3 C.7.6.3.1.2); both planar configurations come out with
    samples last.

    Args:
        dataset: data set with pixel data.
        index: frame, from 0.

    Returns:
        stored values, shape ``(H, W)`` or ``(H, W, 3)``; the photometric interpretation that now holds; the decoder
        and its version, for example ``pillow 13.0.0``.

    Raises:
        UnreadableImageError: When no permitted decoder reads the transfer syntax, the compressed image has another
            size than the header says, or the decoder fails.
    """
    if "PixelData" not in dataset:
        raise UnreadableImageError("PixelData (7FE0,0010) must be present, it is not.")
    meta = getattr(dataset, "file_meta", {})
    syntax = uid.UID(str(meta.get("TransferSyntaxUID", "")))
    if syntax not in DECODERS:
        raise UnreadableImageError("TransferSyntaxUID (0002,0010) must be one for images, got another or none.")
    plugin, package = DECODERS[syntax]
    decoder = get_decoder(syntax)
    if syntax == uid.JPEGExtended12Bit and number(dataset, "BitsStored") != 8:
        plugin, package = "pylibjpeg", "pylibjpeg-libjpeg"
        if plugin not in decoder.available_plugins:
            raise UnreadableImageError("12-bit JPEG Extended needs the GPL-3.0 extra 'jpeg12' (pylibjpeg-libjpeg).")
    try:
        if syntax.is_encapsulated:
            frame = get_frame(dataset.PixelData, index, number_of_frames=frame_count(dataset))
            _check_codestream(dataset, frame)
            if plugin == "gdcm":
                options = {**as_pixel_options(dataset), "number_of_frames": 1}
                options = {name: value for name, value in options.items() if isinstance(value, (int, str))}
                stored, now = decode_isolated(str(syntax), plugin, frame, options)
                return stored, now, f"{package} {version(package)}"
        elif len(dataset.PixelData) < get_expected_length(dataset):
            raise UnreadableImageError(
                f"PixelData must hold {get_expected_length(dataset)} bytes, got {len(dataset.PixelData)}."
            )
        stored, properties = decoder.as_array(dataset, index=index, decoding_plugin=plugin)
    except (UnreadableImageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in pylibjpeg-rle, which is Rust, is no Exception
        raise UnreadableImageError(
            f"the pixel data must decode as {syntax.name}, {package} ended in {type(error).__name__}."
        ) from None
    return stored, str(properties["photometric_interpretation"]), f"{package} {version(package)}"


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """
    Return rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream states, ``None`` where it is none of them.

    Args:
        frame: compressed frame.

    Example:
        >>> codestream_size(bytes.fromhex("ffd8 ffc0 0011 08 0010 0020 03"))
        (16, 32)
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 256)  # behind the boxes of a JP2 header, where there is one
    if start >= 0 and len(frame) >= start + 24:  # ISO/IEC 15444-1 A.5.1
        width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
        return height - top, width - left
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame) and frame[place] == 0xFF:  # ISO/IEC 10918-1 B.2.2
        marker = frame[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in NO_SIZE):
            return struct.unpack_from(">2H", frame, place + 5)
        # a fill byte stands alone, a segment carries its length
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return None


def _check_codestream(dataset: Dataset, frame: bytes) -> None:
    """Refuse a compressed frame of another size than the header's, before a decoder allocates it."""
    size = codestream_size(frame)
    stated = int(number(dataset, "Rows")), int(number(dataset, "Columns"))
    if size is not None and size != stated:
        raise UnreadableImageError(f"Rows and Columns must be those of the codestream {size}, got {stated}.")
