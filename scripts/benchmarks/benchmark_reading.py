# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Print images per second from DICOM to network input, for this project's chain and for MONAI's default readers.

Both chains read the same files in one run, in turns, with one thread: synthetic radiographs of 2048 x 2048 pixels and
12 bits in four transfer syntaxes, and the files given. Both end in a tensor (1, 224, 224) with the aspect kept.

Usage: python scripts/benchmarks/benchmark_reading.py [DICOM files ...] [--repeats 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import torch
from monai.transforms import (
    Compose,
    LoadImaged,
    Resized,
    ScaleIntensityRangePercentilesd,
    SpatialPadd,
    SqueezeDimd,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid
from scipy.ndimage import gaussian_filter

from bundle.preprocessing.dictionary import DictTransform
from bundle.preprocessing.geometry import ResizeAndPadd
from bundle.preprocessing.intensity import ScaleForeground
from bundle.reading.reader import RadiologyReader

SIZE = 224


def our_chain() -> Compose:
    """Return reading, percentile scaling and the fit into the grid as this project does it."""
    return Compose(
        [
            LoadImaged("image", reader=RadiologyReader(channels=1), image_only=True, ensure_channel_first=True),
            DictTransform("image", ScaleForeground()),
            ResizeAndPadd("image", SIZE),
        ]
    )


def default_chain() -> Compose:
    """Return the same steps with MONAI's own readers and transforms, at their defaults where they have them."""
    return Compose(
        [
            LoadImaged("image", image_only=True, ensure_channel_first=True),
            SqueezeDimd("image", dim=-1),  # ITK gives a 2-D file a third axis
            ScaleIntensityRangePercentilesd("image", lower=0.5, upper=99.5, b_min=0, b_max=1, clip=True),
            Resized("image", spatial_size=SIZE, size_mode="longest"),
            SpatialPadd("image", (SIZE, SIZE)),
        ]
    )


def synthetic_radiographs(folder: Path) -> list[Path]:
    """Return files with one smooth synthetic picture of 12 bits in several transfer syntaxes."""
    rng = np.random.default_rng(0)
    picture = gaussian_filter(rng.standard_normal((2048, 2048)), 30)
    picture = (picture - picture.min()) / np.ptp(picture) * 4000 + rng.integers(0, 90, picture.shape)
    paths = []
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
        dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 2048, 2048, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = picture.astype(np.uint16).tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, generate_instance_uid=False)
        path = folder / f"{syntax.name.split(',')[0].replace(' ', '-')}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def seconds(chain: Callable, path: Path) -> float:
    """Return how long one image takes."""
    started = time.perf_counter()
    image = chain({"image": str(path)})["image"]
    elapsed = time.perf_counter() - started
    if tuple(image.shape) != (1, SIZE, SIZE):
        raise RuntimeError(f"{path.name} came out as {tuple(image.shape)}.")
    return elapsed


def main() -> None:
    """Time both chains in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="single-frame gray DICOM files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    chains = {"ours": our_chain(), "MONAI default": default_chain()}
    print("| file | transfer syntax | ours, images/s | MONAI default, images/s | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in synthetic_radiographs(Path(folder)) + args.files:
            times: dict[str, list[float]] = {name: [] for name in chains}
            for repeat in range(args.repeats + 1):
                for name, chain in chains.items():
                    elapsed = seconds(chain, path)
                    if repeat:  # the first turn warms the file cache and the imports
                        times[name].append(elapsed)
            ours, default = (1 / float(np.median(times[name])) for name in chains)
            syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.name
            print(f"| {path.name} | {syntax} | {ours:.1f} | {default:.1f} | {ours / default:.2f} |")


if __name__ == "__main__":
    main()
