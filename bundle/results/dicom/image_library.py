# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The image library of a report (PS3.16 TID 1600): the source, with what a reader needs to choose its display."""

from __future__ import annotations

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle.results.dicom.anatomy import image_region, image_side, pixel_steps
from bundle.results.dicom.source import DicomSource

__all__ = ["image_library"]

_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT
_PIXELS = CodedConcept("{pixels}", "UCUM", "Pixels")
_MODALITIES = {getattr(codes.cid29, name).value: getattr(codes.cid29, name) for name in codes.cid29.dir()}


def image_library(source: DicomSource) -> ContainerContentItem:
    """
    Return the library of one source. highdicom's own refuses radiographs without orientation or imager pixel spacing.

    Args:
        source: the image that the report is about.
    """
    number = source.frame_number()
    image = ImageContentItem(
        CodedConcept("260753009", "SCT", "Source"),
        source.dataset.SOPClassUID,
        source.dataset.SOPInstanceUID,
        referenced_frame_numbers=None if number is None else [number],
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    image.ContentSequence = ContentSequence(_descriptors(source.dataset))
    group = ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=RelationshipTypeValues.CONTAINS)
    group.ContentSequence = ContentSequence([image])
    library = ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=RelationshipTypeValues.CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _descriptors(dataset: Dataset) -> list[ContentItem]:
    """Return what TID 1602 and 1603 describe an image by, as far as its header says."""
    answers = {
        codes.DCM.Modality: _MODALITIES.get(str(dataset.get("Modality") or "")),
        codes.DCM.TargetRegion: image_region(dataset),
        codes.DCM.ImageLaterality: image_side(dataset),
    }
    items: list[ContentItem] = [
        CodeContentItem(name, value, _CONTEXT) for name, value in answers.items() if value is not None
    ]
    items += [
        NumContentItem(codes.DCM.PixelDataRows, int(dataset.Rows), _PIXELS, relationship_type=_CONTEXT),
        NumContentItem(codes.DCM.PixelDataColumns, int(dataset.Columns), _PIXELS, relationship_type=_CONTEXT),
    ]
    sides = dataset.get("PatientOrientation")
    if sides:
        items += [
            TextContentItem(codes.DCM.PatientOrientationRow, str(sides[0]), _CONTEXT),
            TextContentItem(codes.DCM.PatientOrientationColumn, str(sides[1]), _CONTEXT),
        ]
    if (spacing := pixel_steps(dataset)) is not None:
        items += [
            NumContentItem(
                codes.DCM.HorizontalPixelSpacing, spacing[1], codes.UCUM.Millimeter, relationship_type=_CONTEXT
            ),
            NumContentItem(
                codes.DCM.VerticalPixelSpacing, spacing[0], codes.UCUM.Millimeter, relationship_type=_CONTEXT
            ),
        ]
    return items
