# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Codes for what was found."""

from __future__ import annotations

import re

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

__all__ = ["finding_code", "private_code"]

SCHEME = "99AIBUNDLE"  # PS3.3 8.2: private coding schemes start with 99
_CODES = {
    "anomaly": codes.DCM.FocalAbnormality,
    "cardiomegaly": codes.SCT.Cardiomegaly,
    "edema": codes.SCT.PulmonaryEdema,
    "effusion": codes.SCT.PleuralEffusion,
    "infiltration": codes.DCM.Infiltrate,
    "lesion": codes.SCT.Lesion,
    "mass": codes.SCT.Mass,
    "nodule": codes.SCT.Nodule,
    "opacity": codes.DCM.Opacity,
    "pneumothorax": codes.SCT.Pneumothorax,
}


def finding_code(label: str) -> CodedConcept:
    """
    Return the code of a finding: SNOMED CT or DICOM where the DICOM Standard has one for it, else a private one.

    Args:
        label: name of the finding, in any case.

    Example:
        >>> finding_code("Nodule").value, finding_code("Pleural_Thickening").value
        ('27925004', 'PLEURAL_THICKENI')
    """
    known = _CODES.get(label.strip().lower())
    return private_code(label, label) if known is None else CodedConcept.from_code(known)


def private_code(value: str, meaning: str) -> CodedConcept:
    """
    Return a code of this project.

    Args:
        value: made upper case and cut to 16 characters, which is what a code value (SH) can hold.
        meaning: in words; cut to 64 characters.
    """
    return CodedConcept(re.sub(r"\W+", "_", value).upper()[:16] or "UNNAMED", SCHEME, meaning[:64] or "unnamed")
