# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The one table of findings with a public code: code, where it was read, names, and where the finding is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

__all__ = ["CodedFinding", "coded_finding", "side_of"]

_DICOM = "PS3.16 as in pydicom 3.0.2"
# its targets were checked against SNOMED International 2025-07-01, as it says
_MII = "ConceptMap mii-cm-onko-nebenwirkung-meddra-sct, medizininformatik-initiative/kerndatensatzmodul-onkologie"
_STANFORD = "SNOMED codes of its labels, README of tte-pretraining (Huo et al., ICLR 2025)"
_LUNG, _PLEURA, _HEART = codes.SCT.Lung, codes.SCT.Pleura, codes.SCT.Heart
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right, "bilateral": codes.SCT.Bilateral}  # PS3.16 CID 244


@dataclass(frozen=True)
class CodedFinding:
    """
    A finding that a public scheme has a code for.

    Args:
        code: value, scheme and meaning.
        source: where the code was read.
        names: labels that mean it, in lower case with single spaces.
        site: the anatomy that it is found in, ``None`` where the name does not say.
    """

    code: Code
    source: str
    names: tuple[str, ...]
    site: Code | None = None


# Missing on purpose: of "pleural thickening" no code was found that two places agree on, and "hernia" does not say of
# what; they get private codes.
_FINDINGS = (
    CodedFinding(codes.DCM.FocalAbnormality, _DICOM, ("anomaly",)),
    CodedFinding(Code("46621007", "SCT", "Atelectasis"), _MII, ("atelectasis", "lung collapse"), _LUNG),
    # pydicom's Cardiomegaly, 287272002, is in SNOMED CT an enlarged septal foramen, as pydicom's next name of it says
    CodedFinding(Code("8186001", "SCT", "Cardiomegaly"), _STANFORD, ("cardiomegaly", "enlarged heart"), _HEART),
    CodedFinding(
        Code("95436008", "SCT", "Lung consolidation"),
        _STANFORD + "; OHDSI vocabulary, concept 4318404",
        ("consolidation", "lung consolidation", "airspace consolidation", "pulmonary consolidation"),
        _LUNG,
    ),
    CodedFinding(codes.SCT.PulmonaryEdema, _DICOM, ("edema", "oedema", "pulmonary edema", "pulmonary oedema"), _LUNG),
    CodedFinding(
        Code("87433001", "SCT", "Pulmonary emphysema"),
        "example of IncidentalFindingLtLung, a FHIR guide of lung screening",
        ("emphysema", "pulmonary emphysema"),
        _LUNG,
    ),
    CodedFinding(
        Code("51615001", "SCT", "Pulmonary fibrosis"), _MII, ("fibrosis", "pulmonary fibrosis", "lung fibrosis"), _LUNG
    ),
    CodedFinding(codes.DCM.Infiltrate, _DICOM, ("infiltration", "infiltrate", "infiltrates"), _LUNG),
    CodedFinding(codes.SCT.Lesion, _DICOM, ("lesion",)),
    CodedFinding(codes.SCT.Lesion, _DICOM, ("lung lesion",), _LUNG),
    CodedFinding(codes.SCT.Mass, _DICOM, ("mass",)),
    CodedFinding(codes.SCT.Mass, _DICOM, ("lung mass", "pulmonary mass"), _LUNG),
    CodedFinding(codes.SCT.Nodule, _DICOM, ("nodule",)),
    CodedFinding(codes.SCT.Nodule, _DICOM, ("lung nodule", "pulmonary nodule"), _LUNG),
    CodedFinding(codes.DCM.Opacity, _DICOM, ("opacity",)),
    CodedFinding(codes.DCM.Opacity, _DICOM, ("lung opacity", "pulmonary opacity", "airspace opacity"), _LUNG),
    CodedFinding(codes.SCT.PleuralEffusion, _DICOM, ("effusion", "pleural effusion"), _PLEURA),
    CodedFinding(
        Code("233604007", "SCT", "Pneumonia"),
        "Vocabulary/Wiki/phenotypes/Pneumonia.md, OHDSI/Covid-19",
        ("pneumonia",),
        _LUNG,
    ),
    CodedFinding(codes.SCT.Pneumothorax, _DICOM, ("pneumothorax",), _PLEURA),
)
_BY_NAME = {name: finding for finding in _FINDINGS for name in finding.names}


def _plain(label: str) -> str:
    return re.sub(r"[\W_]+", " ", label).strip().lower()


def side_of(label: str) -> Code | None:
    """
    Return the side that a label begins or ends with (PS3.16 CID 244), ``None`` where it names none.

    Args:
        label: name of a finding, in any case.

    Example:
        >>> side_of("Pleural_effusion left").meaning
        'Left'
    """
    words = _plain(label).split()
    return (_SIDES.get(words[-1]) or _SIDES.get(words[0])) if len(words) > 1 else None


def coded_finding(label: str) -> CodedFinding | None:
    """
    Return the finding that a label means, ``None`` where the table has none; its side is no part of it.

    Args:
        label: name of a finding, in any case, with spaces, underscores or hyphens between its words.

    Example:
        >>> coded_finding("Right pleural-effusion").code.value
        '60046008'
    """
    words = _plain(label).split()
    if len(words) > 1 and words[-1] in _SIDES:
        words.pop()
    elif len(words) > 1 and words[0] in _SIDES:
        words.pop(0)
    return _BY_NAME.get(" ".join(words))
