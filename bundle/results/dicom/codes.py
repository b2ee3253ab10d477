# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Codes for what was found: public ones from one table, else private ones that cannot collide."""

from __future__ import annotations

import base64
import hashlib

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from bundle.results.dicom.findings import coded_finding

__all__ = ["declare_private_scheme", "derived_code", "finding_code", "private_code"]

SCHEME = "99AIBUNDLE"  # PS3.3 8.2: private coding schemes start with 99
_LENGTH = 16  # of a code value (SH)


def finding_code(label: str) -> CodedConcept:
    """
    Return the code of a finding: SNOMED CT or DICOM where the table has one, else a private one of this label alone.

    Args:
        label: name of the finding, in any case.

    Example:
        >>> finding_code("Nodule").value, finding_code("Under bus").value
        ('27925004', '62AM4PAEVSK7IKJ2')
    """
    known = coded_finding(label)
    return derived_code("finding", label, label) if known is None else CodedConcept.from_code(known.code)


def derived_code(kind: str, label: str, meaning: str) -> CodedConcept:
    """
    Return a private code that no other kind or label has: 16 characters, the first 80 bits of a SHA-256 in base 32.

    Args:
        kind: what is named, such as ``"finding"``.
        label: its name; labels that differ in anything are different.
        meaning: in words; cut to 64 characters.
    """
    digest = hashlib.sha256("\\".join((kind, label)).encode("utf-8", "surrogatepass")).digest()
    return CodedConcept(base64.b32encode(digest[:10]).decode(), SCHEME, meaning[:64] or "unnamed")


def private_code(value: str, meaning: str) -> CodedConcept:
    """
    Return a fixed code of this project. It is shorter than a derived one, so the two never meet.

    Args:
        value: upper case letters and underscores, fewer than 16.
        meaning: in words, at most 64 characters.

    Raises:
        ValueError: When the value is too long.
    """
    if not len(value) < _LENGTH:
        raise ValueError(f"a fixed code must be shorter than {_LENGTH} characters, got '{value}'.")
    return CodedConcept(value, SCHEME, meaning)


def declare_private_scheme(dataset: Dataset) -> None:
    """
    Say whose the private scheme is (PS3.3 C.12.1.1.1), in an object that has a code of it.

    Args:
        dataset: changed in place.
    """
    if all(e.value != SCHEME for e in dataset.iterall() if e.keyword == "CodingSchemeDesignator"):
        return
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "attention-imaging-bundle: findings without a public code, and its own measurements"
    scheme.CodingSchemeResponsibleOrganization = "attention-imaging-bundle contributors"
    dataset.CodingSchemeIdentificationSequence = [scheme]
