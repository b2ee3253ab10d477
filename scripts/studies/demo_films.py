# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Wrap the films of the demo patients as DICOM objects: ``models/demo_films``.

    python scripts/studies/demo_films.py DATA --output_dir models/demo_films

The JPEG of each film of ``models/demo_patients.csv`` goes into a CR object as it is (JPEG Baseline, lossy). Names and
numbers of patients are invented; sex, age and view are those of the manifest. Where the film comes from stands in
Derivation Description.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ComputedRadiographyImageStorage, JPEGBaseline8Bit, generate_uid

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "NIH ChestX-ray14 {0}, NIH Clinical Center; Wang et al., CVPR 2017; resampled to 512 x 512, JPEG 90"


def cr_object(row: dict[str, str], jpeg: bytes) -> FileDataset:
    """Return a CR object around the JPEG of a film, whose identity is invented, the same each time."""
    name = Path(row["image"]).stem
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name, "instance"])
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (
        generate_uid(entropy_srcs=[name, word]) for word in ("study", "series")
    )
    ds.PatientName, ds.PatientID = f"Demo^{row['patient']}", f"DEMO-{row['patient']}"
    ds.PatientSex, ds.PatientAge, ds.PatientBirthDate = row["sex"], f"{int(row['age']):03d}Y", ""
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.Manufacturer = "CR", 1, 1, ""
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CHEST", row["view"], ["L", "F"]
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = SOURCE.format(row["image"])
    with Image.open(io.BytesIO(jpeg)) as picture:
        if picture.format != "JPEG" or picture.mode != "L":
            raise SystemExit(f"error: '{row['image']}' must be a gray JPEG, got {picture.format} {picture.mode}")
        ds.Columns, ds.Rows = picture.size
        ratio = picture.size[0] * picture.size[1] / len(jpeg)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", f"{ratio:.2f}"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.PixelData = encapsulate([jpeg])
    ds["PixelData"].is_undefined_length = True
    return ds


def main() -> None:
    """Parse the command line and write the objects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with nih_part")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "models/demo_films")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with (ROOT / "models/demo_patients.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            jpeg = (args.data / "nih_part/images" / row["image"]).read_bytes()
            path = args.output_dir / f"{Path(row['image']).stem}.dcm"
            cr_object(row, jpeg).save_as(path, enforce_file_format=True)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
