# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Print the table of docs/pixels.md: every file with pixels that pydicom ships, as the reader and as plain pydicom see it.

Usage: python scripts/checks/pixel_table.py [more DICOM files ...] [--output docs/pixels.md]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.reader import RadiologyReader

BEGIN, END = "<!-- pixel table: begin -->", "<!-- pixel table: end -->"


def shipped_files() -> list[Path]:
    """Return the files inside the installed pydicom, without those it would download."""
    root = Path(pydicom.data.__file__).parent / "test_files"
    return sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.name.lower())


def has_pixels(path: Path) -> bool:
    """Return whether pydicom finds pixel data in a file."""
    try:
        return "PixelData" in pydicom.dcmread(path, force=True)
    except Exception:
        return False


def plain_pydicom(path: Path) -> np.ndarray:
    """Return the first frame as display values by a few lines of pydicom, with its own choice of decoder."""
    ds = pydicom.dcmread(path)
    stored = pixel_array(ds, index=0)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colors = apply_color_lut(stored, ds)
        return np.moveaxis(colors / np.iinfo(colors.dtype).max, -1, 0)
    if ds.SamplesPerPixel == 3:
        return np.moveaxis(stored / (2.0**ds.BitsStored - 1), -1, 0)
    low, high = (
        (-(2.0 ** (ds.BitsStored - 1)), 2.0 ** (ds.BitsStored - 1) - 1)
        if ds.PixelRepresentation
        else (0.0, 2.0**ds.BitsStored - 1)
    )
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    windowed = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(float)
    values = (windowed - (low * slope + intercept)) / ((high - low) * slope)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        values = 1 - values
    if "PixelPaddingValue" in ds:
        values[stored == ds.PixelPaddingValue] = 0
    return values[None]


def row(path: Path) -> tuple[str, str, str]:
    """Return the file's name, what the reader makes of it, and how that compares or why it is refused."""
    reader = RadiologyReader()
    try:
        values, meta = reader.get_data(reader.read(path))
    except (SkippedFileError, UnreadableImageError) as error:
        word = "skipped" if isinstance(error, SkippedFileError) else "refused"
        return path.name, word, str(error).removeprefix(f"{path.name}: ")
    difference = np.abs(values - plain_pydicom(path)).max() * 255
    frames = f", {meta['num_frames']} frames" if meta["num_frames"] > 1 else ""
    result = f"{meta['photometric']} {'x'.join(map(str, values.shape))}{frames} by {meta['decoder'].split()[0]}"
    return path.name, result, "equal" if difference < 0.01 else f"up to {difference:.2f} of 255 levels off"


def table(files: list[Path]) -> str:
    """Return the Markdown table of the given files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [row(path) for path in files if has_pixels(path)]
    counts = [sum(cells[1] == word for cells in rows) for word in ("skipped", "refused")]
    lines = ["| file | read as | against plain pydicom, or the reason |", "|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    summary = (
        f"{len(rows)} files with pixels: {len(rows) - sum(counts)} read, {counts[0]} skipped, {counts[1]} refused."
    )
    return "\n".join([*lines, "", summary])


def main() -> None:
    """Print the table, or put it between the marks of a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="DICOM files to add")
    parser.add_argument("--output", type=Path, help="document with the marks of the table")
    args = parser.parse_args()
    text = table(shipped_files() + args.files)
    if args.output is None:
        print(text)
        return
    document = args.output.read_text()
    before, after = document.split(BEGIN)[0], document.split(END)[1]
    args.output.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
