# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What counts as one kind of image."""

from __future__ import annotations

__all__ = ["modality_family"]

RADIOGRAPH = "radiograph"
_RADIOGRAPHS = ("CR", "DX", "DR", "RG", "XR")  # PS3.3 C.7.3.1.1.1; DR and XR are what some systems write


def modality_family(modality: str) -> str:
    """
    Return what a modality (0008,0060) counts as: all radiographs are one family.

    Args:
        modality: as the file says.

    Example:
        >>> modality_family("CR"), modality_family("DX "), modality_family("US")
        ('radiograph', 'radiograph', 'US')
    """
    word = modality.strip().upper()
    return RADIOGRAPH if word in _RADIOGRAPHS else word
