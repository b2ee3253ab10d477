# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What kinds of images a list holds: modality and gray or color, so that a model is not trained on a mixture unseen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bundle.data.dicom_files import open_dicom
from bundle.data.dicom_pixels import GRAY
from bundle.data.errors import SkippedFileError, UnreadableImageError
from bundle.data.limits import Limits
from bundle.data.readers import count_frames, file_format, one_line_errors, split_frame

__all__ = ["RADIOGRAPH", "is_colored", "kind_of", "kinds_of", "modality_family"]

RADIOGRAPH = "radiograph"
_RADIOGRAPHS = ("CR", "DX", "DR", "RG", "XR")  # PS3.3 C.7.3.1.1.1; DR and XR are what some systems write


def kinds_of(items: Sequence[dict[str, Any]]) -> dict[str, Counter[str]]:
    """
    Return how many files of a list are of each modality and of each photometric family.

    DICOM files are asked for their header, pictures with three channels for their colors. Files that cannot be read are
    not counted; the frames of a file count once.

    Args:
        items: with an ``image`` path.

    Returns:
        ``modality``: see :py:func:`modality_family`, an empty word for files that are no DICOM; ``photometric``:
        ``monochrome`` or ``color``.

    Example:
        >>> kinds_of([])
        {'modality': Counter(), 'photometric': Counter()}
    """
    files = dict.fromkeys(split_frame(str(item["image"]))[0] for item in items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [kind for kind in pool.map(kind_of, files) if kind is not None]
    return {
        "modality": Counter(modality for modality, _ in found),
        "photometric": Counter(family for _, family in found),
    }


def kind_of(path: Path) -> tuple[str, str] | None:
    """
    Return modality and photometric family of a file, ``None`` where it cannot be read.

    Args:
        path: of the file.
    """
    limits = Limits()
    try:
        with one_line_errors(path):
            kind = file_format(path)
            if kind == "dicom":
                header = open_dicom(path, limits, header_only=True)
                gray = str(header.get("PhotometricInterpretation") or "").strip() in GRAY
                return modality_family(str(header.get("Modality") or "")), "monochrome" if gray else "color"
            count_frames(path, kind, limits)
            return "", "color" if kind == "picture" and is_colored(path) else "monochrome"
    except (UnreadableImageError, SkippedFileError):
        return None


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


def is_colored(path: Path) -> bool:
    """
    Return whether a picture shows color: a tenth of it or more, by a tenth of the full range between its channels.

    Gray pictures are often saved with three equal channels, a slight tint, or colored marks.

    Args:
        path: a picture that Pillow reads.
    """
    with Image.open(path) as image:
        if len(image.getbands()) < 3 and image.mode not in ("P", "PA"):
            return False
        image.draft("RGB", (128, 128))
        small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX), dtype=np.int16)
    return bool((np.ptp(small, axis=-1) > 25).mean() >= 0.1)
