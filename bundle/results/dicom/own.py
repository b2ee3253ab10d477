# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How a DICOM result of ours is known."""

from __future__ import annotations

from pydicom.dataset import Dataset

__all__ = ["is_own_result"]

MANUFACTURER = "attention-imaging-bundle"
NOT_FOR_DIAGNOSIS = "research use only, not for diagnosis"  # how the name of its series ends


def is_own_result(header: Dataset) -> bool:
    """
    Return whether this package wrote an object, which must not be taken for an image to look at.

    Args:
        header: of the object.
    """
    return header.get("Manufacturer") == MANUFACTURER and NOT_FOR_DIAGNOSIS in str(header.get("SeriesDescription"))
