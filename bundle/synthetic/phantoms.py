# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Write synthetic radiographs and ultrasound images as DICOM files that say everywhere that they are synthetic."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    PYDICOM_ROOT_UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundImageStorage,
    generate_uid,
)

from bundle import __version__
from bundle.synthetic.inserted_lesions import INSERTED_KINDS
from bundle.synthetic.radiograph_phantoms import RADIOGRAPH_SPACING, make_radiograph
from bundle.synthetic.ultrasound_phantoms import ULTRASOUND_LESIONS, ULTRASOUND_SPACING, fan_bounds, make_ultrasound

__all__ = ["PHANTOM_KINDS", "write_phantom", "write_phantoms"]

PHANTOM_KINDS = ("cr", "us")
_TEXT = "Synthetic phantom made by software. No patient."
_MAKERS = {"cr": (make_radiograph, INSERTED_KINDS), "us": (make_ultrasound, ULTRASOUND_LESIONS)}


def write_phantoms(
    folder: str | Path,
    kinds: Sequence[str] = PHANTOM_KINDS,
    training: int = 20,
    normal: int = 10,
    lesion: int = 10,
    seed: int = 0,
) -> None:
    """
    Write a data set of phantoms: ``train/good``, ``test/good``, ``test/lesion``, and ``lesion_boxes.csv``.

    The table has a row a lesion: file, label, and the box's left, upper, right and lower edge in pixels.

    Args:
        folder: made if missing.
        kinds: some of ``"cr"``, chest radiographs of 12 bits, every fourth MONOCHROME1; and ``"us"``, ultrasound of 8.
        training: number of normal images to train with, of each kind.
        normal: number of normal images to test with, of each kind.
        lesion: number of images with a lesion to test with, of each kind.
        seed: of all images and identifiers: the same seed gives the same files.

    Raises:
        ValueError: When a kind is unknown.
    """
    if unknown := sorted(set(kinds) - set(PHANTOM_KINDS)):
        raise ValueError(f"kinds must be some of {list(PHANTOM_KINDS)}, got {unknown}.")
    root = Path(folder)
    places = ["train/good"] * training + ["test/good"] * normal + ["test/lesion"] * lesion
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lesion_boxes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "left", "upper", "right", "lower"])
        for kind, (number, place) in product(kinds, enumerate(places, start=1)):
            (root / place).mkdir(parents=True, exist_ok=True)
            name = f"{place}/synthetic_{kind}_{number:04d}.dcm"
            labels = _MAKERS[kind][1]
            label = labels[number % len(labels)] if place == "test/lesion" else None
            box = write_phantom(root / name, kind, number, label, seed)
            if box is not None:
                table.writerow([name, label, *(int(edge) for edge in box)])


def write_phantom(
    path: str | Path, kind: str, number: int, lesion: str | None = None, seed: int = 0
) -> np.ndarray | None:
    """
    Write one phantom as a DICOM file.

    Args:
        path: file to write.
        kind: one of :py:data:`PHANTOM_KINDS`.
        number: of the patient, who does not exist; each has one image.
        lesion: see :py:func:`make_radiograph` and :py:func:`make_ultrasound`.
        seed: image and identifiers come from seed, kind and number alone.

    Returns:
        the lesion's box as left, upper, right, lower edge in pixels, shape ``(4,)``, or ``None``.
    """
    rng = np.random.default_rng([seed, PHANTOM_KINDS.index(kind), number])
    image, box = _MAKERS[kind][0](rng, lesion)
    dataset = _header(kind, number, seed)
    if kind == "cr":
        _add_radiograph(dataset, _marked(image, (12, 8)), inverted=number % 4 == 0)
    else:
        _add_ultrasound(dataset, _marked(image, (12, image.shape[0] - 28)))
    dataset.save_as(path, enforce_file_format=True)
    return box


def _marked(image: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """Return the image with the word SYNTHETIC in it, as a lead marker would be."""
    picture = Image.new("L", image.shape[::-1])
    ImageDraw.Draw(picture).text(corner, "SYNTHETIC", fill=200, font=ImageFont.load_default(size=18))
    return np.maximum(image, np.asarray(picture, np.float32) / 255)


def _header(kind: str, number: int, seed: int) -> Dataset:
    """Return what both kinds of image say of patient, study, series and equipment (PS3.3 A.2 and A.6)."""

    def uid(level: str) -> str:
        return generate_uid(PYDICOM_ROOT_UID, entropy_srcs=[f"synthetic phantom {seed} {kind} {number} {level}"])

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = ComputedRadiographyImageStorage if kind == "cr" else UltrasoundImageStorage
    dataset.SOPInstanceUID = uid("image")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
    dataset.PatientName = "SYNTHETIC^PHANTOM"
    dataset.PatientID = f"SYNTHETIC-{kind.upper()}-{number:04d}"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate = dataset.ContentDate = "20000101"  # of no examination
    dataset.StudyTime = dataset.ContentTime = "120000"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = str(number), 1, 1
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = dataset.SeriesDescription = "SYNTHETIC phantom"
    dataset.Modality = kind.upper()
    dataset.Manufacturer = "attention-imaging-bundle"
    dataset.ManufacturerModelName = "Synthetic phantom"
    dataset.SoftwareVersions = __version__
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = dataset.ImageComments = _TEXT
    dataset.BurnedInAnnotation = "NO"  # the word SYNTHETIC identifies nobody
    dataset.LossyImageCompression = "00"
    return dataset


def _add_pixels(dataset: Dataset, stored: np.ndarray, bits: int, photometric: str) -> None:
    """Add the Image Pixel module (PS3.3 C.7.6.3)."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = stored.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def _add_radiograph(dataset: Dataset, image: np.ndarray, inverted: bool) -> None:
    """Add a 12-bit CR image with a window; an inverted one stores white as small values."""
    stored = np.rint(200 + 3600 * image).astype(np.uint16)
    center = 2000
    if inverted:
        stored, center = 4095 - stored, 4095 - center
    _add_pixels(dataset, stored, 12, "MONOCHROME1" if inverted else "MONOCHROME2")
    dataset.WindowCenter, dataset.WindowWidth = center, 3600
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [10 * RADIOGRAPH_SPACING] * 2  # mm


def _add_ultrasound(dataset: Dataset, image: np.ndarray) -> None:
    """Add an 8-bit ultrasound image with its one calibrated region (PS3.3 C.8.5.5)."""
    _add_pixels(dataset, np.rint(255 * image).astype(np.uint8), 8, "MONOCHROME2")
    dataset.ImageType = ["DERIVED", "PRIMARY", "BREAST", "0001"]  # 2-D imaging
    dataset.BodyPartExamined, dataset.Laterality, dataset.PatientOrientation = "BREAST", "R", ""
    dataset.UltrasoundColorDataPresent = 0
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0  # 2-D, tissue
    (
        region.RegionLocationMinY0,
        region.RegionLocationMinX0,
        region.RegionLocationMaxY1,
        region.RegionLocationMaxX1,
    ) = fan_bounds()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    region.PhysicalDeltaX = region.PhysicalDeltaY = ULTRASOUND_SPACING
    dataset.SequenceOfUltrasoundRegions = [region]
