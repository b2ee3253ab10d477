# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The overlay as a DICOM secondary capture, for viewers that read nothing else."""

from __future__ import annotations

import os

import numpy as np
from highdicom.sc import SCImage
from PIL import Image
from pydicom.valuerep import DSfloat

from bundle.reading.dicom.quiet import quiet_dicom
from bundle.results.dicom.anatomy import copy_body_part, may_be_paired, pixel_steps
from bundle.results.dicom.own import MANUFACTURER
from bundle.results.dicom.save import save_dicom_result
from bundle.results.dicom.source import DicomSource
from bundle.results.overlays import draw_words, overlay_picture, words_fit
from bundle.results.records import NOTICE, ImageResult, NotWrittenError, remarks

__all__ = ["write_sc"]

_ANY_ORIENTATION = ("L", "F")  # highdicom asks for one and knows no oblique one; the source's takes its place

_COPIED = (
    "BurnedInAnnotation",
    # PS3.3 C.7.6.1.1.5: once lossy, always lossy
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)


def write_sc(
    path: str | os.PathLike,
    result: ImageResult,
    source: DicomSource,
    heat_range: tuple[float, float],
) -> None:
    """
    Write image, heat and boxes as one RGB picture of the source's size, with the words "research use only" in it.

    Where the words would not fit, every pixel of the source becomes a square of pixels, and the spacing follows.

    Args:
        path: file to write.
        result: with an image in the pixel grid of the source.
        source: the image it was found in.
        heat_range: values shown as no heat and as full heat.

    Raises:
        NotWrittenError: When there is no image of the source's size.
    """
    shape = (source.dataset.Rows, source.dataset.Columns)
    if result.image is None or result.image.shape[:2] != shape:
        got = None if result.image is None else result.image.shape[:2]
        raise NotWrittenError(f"a secondary capture needs the image with the source's {shape} pixels, got {got}.")
    picture = overlay_picture(result, heat_range)
    factor = 1
    while not words_fit(picture.width * factor, picture.height * factor, [NOTICE]):
        factor += 1
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    draw_words(picture, [NOTICE], top=False)
    spacing = pixel_steps(source.dataset)
    with quiet_dicom():
        capture = SCImage.from_ref_dataset(
            source.dataset,
            pixel_array=np.asarray(picture),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=_ANY_ORIENTATION,
            manufacturer=MANUFACTURER,
            **source.identity("SC"),
        )
        capture.copy_patient_and_study_information(source.dataset)  # which SR and SEG have, highdicom's SC leaves out
        copy_body_part(capture, source.dataset)
        if spacing is not None:
            capture.PixelSpacing = [DSfloat(step / factor, auto_format=True) for step in spacing]
        capture.PatientOrientation = source.dataset.PatientOrientation
        if source.dataset.get("ImageLaterality"):
            capture.ImageLaterality = source.dataset.ImageLaterality
        elif source.dataset.get("Laterality"):
            capture.Laterality = source.dataset.Laterality
        elif may_be_paired(source.dataset):  # PS3.3 C.7.3.1: empty where unknown, absent of an unpaired part
            capture.Laterality = ""
        made = f"Heat and regions found by {source.algorithm.name[:64]}. {NOTICE}"
        capture.DerivationDescription = " ".join([made, *remarks(result), *source.remarks()])[:1024]  # ST
        capture.SourceImageSequence = [source.reference()]
        for keyword in _COPIED:
            if source.dataset.get(keyword):
                setattr(capture, keyword, source.dataset[keyword].value)
        save_dicom_result(path, capture, "AI overlay", source)
