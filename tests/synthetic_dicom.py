# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Small DICOM files for the tests; every one is synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def save_dicom(
    path: Path, pixels: np.ndarray, color: bool = False, syntax: str = ExplicitVRLittleEndian, **elements: object
) -> Path:
    """Write ``pixels``, shape ``([frames,] H, W[, 3])``, with the elements given on top of the usual ones."""
    samples, plane = (3, pixels.shape[:-1]) if color else (1, pixels.shape)
    bits = pixels.itemsize * 8
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    usual = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SOPInstanceUID": generate_uid(entropy_srcs=[str(path)]),
        "Modality": "DX",
        "Rows": plane[-2],
        "Columns": plane[-1],
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": "RGB" if color else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if color:
        usual["PlanarConfiguration"] = 0
    if len(plane) == 3:
        usual["NumberOfFrames"] = plane[0]
    for keyword, value in {**usual, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "HighBit" not in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path
