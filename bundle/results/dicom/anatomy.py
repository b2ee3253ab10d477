# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Which part of the body an image shows, which side, and how large its pixels are, as its header says."""

from __future__ import annotations

import math

from highdicom._standard_utils import get_anatomic_region_map
from highdicom.sr import CodedConcept, FindingSite
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from bundle.results.dicom.findings import coded_finding, side_of

__all__ = ["copy_body_part", "finding_sites", "image_region", "image_side", "may_be_paired", "pixel_steps"]

_SIDES = {"L": codes.SCT.Left, "R": codes.SCT.Right, "B": codes.SCT.Bilateral}  # PS3.3 C.7.6.1 to PS3.16 CID 244
_PAIRED = {"39607008", "3120008"}  # lung, pleura


def image_region(dataset: Dataset) -> CodedConcept | None:
    """
    Return the anatomy of an image: its Anatomic Region, else its Body Part Examined by PS3.16 Annex L.

    Args:
        dataset: header of an image.

    Returns:
        code, ``None`` where the header has neither or a word that Annex L has not.
    """
    for item in dataset.get("AnatomicRegionSequence") or []:
        value, scheme, meaning = (item.get(word) for word in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
        if value and scheme and meaning:
            return CodedConcept(str(value), str(scheme), str(meaning))
    known = get_anatomic_region_map().get(str(dataset.get("BodyPartExamined") or "").strip().upper())
    return None if known is None else CodedConcept.from_code(known[0])


def image_side(dataset: Dataset) -> CodedConcept | None:
    """
    Return the side that an image shows, by Image Laterality or else Laterality, ``None`` where neither names one.

    Args:
        dataset: header of an image.
    """
    side = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper()
    return CodedConcept.from_code(_SIDES[side]) if side in _SIDES else None


def copy_body_part(result: Dataset, dataset: Dataset) -> None:
    """
    Give an image object the body part that its source names (General Series, PS3.3 C.7.3.1).

    Args:
        result: changed in place.
        dataset: header of the source.
    """
    if part := str(dataset.get("BodyPartExamined") or "").strip():
        result.BodyPartExamined = part[:16]  # CS


def finding_sites(label: str, dataset: Dataset) -> list[FindingSite]:
    """
    Return where a finding is, as far as its label and its image's header say.

    The side of the label goes with the site of the finding; that of the image with the part of the body it shows.

    Args:
        label: name of the finding; empty for the image as a whole.
        dataset: header of the image.

    Returns:
        one site, or none where nothing is known.
    """
    known, side = coded_finding(label), side_of(label)
    if known is not None and known.site is not None:
        return [FindingSite(known.site, side if known.site.value in _PAIRED else None)]
    region = image_region(dataset)
    return [] if region is None else [FindingSite(region, side or image_side(dataset))]


def may_be_paired(dataset: Dataset) -> bool:
    """
    Return whether an image may show one part of a pair: unless PS3.16 Annex L calls its body part unpaired.

    Args:
        dataset: header of an image.
    """
    known = get_anatomic_region_map().get(str(dataset.get("BodyPartExamined") or "").strip().upper())
    return known is None or bool(known[1])


def pixel_steps(dataset: Dataset) -> tuple[float, float] | None:
    """
    Return millimetres per row and per column, in the patient or else at the detector (PS3.3 10.7.1.3).

    Args:
        dataset: header of an image.

    Returns:
        both, positive; ``None`` where the header has neither.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            values = [float(step) for step in dataset.get(keyword) or ()]
        except (TypeError, ValueError):
            continue
        if len(values) == 2 and all(math.isfinite(step) and step > 0 for step in values):
            return values[0], values[1]
    return None
