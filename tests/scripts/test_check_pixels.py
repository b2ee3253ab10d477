# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparison with independent programs finds a wrong display, and knows what it may differ by."""

from __future__ import annotations

import contextlib
import io
import runpy
import shutil
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.reading.reader import RadiologyReader
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/checks/check_pixels.py"
PROGRAMS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm", "ffmpeg")
RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
TWELVE = {"BitsStored": 12}


@unittest.skipUnless(all(map(shutil.which, PROGRAMS)), "needs dcmtk and ffmpeg")
class TestCheckPixels(FolderTestCase):
    def check(self, *paths):
        """Return the exit status and what was printed."""
        printed = io.StringIO()
        with (
            mock.patch("sys.argv", ["check_pixels.py", *map(str, paths or [self.folder])]),
            contextlib.redirect_stdout(printed),
            self.assertRaises(SystemExit) as ended,
        ):
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.exception.code, printed.getvalue()

    def test_one_file_of_each_program(self):
        for name in (
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_jp2klossless.dcm",
            "J2K_pixelrep_mismatch.dcm",
            "SC_rgb_jpeg_dcmtk.dcm",
            "SC_rgb_jpeg_gdcm.dcm",
            "rtplan.dcm",
        ):
            shutil.copy(get_testdata_file(name, download=False), self.folder)
        (self.folder / "notes.txt").write_text("no DICOM")
        status, printed = self.check()
        self.assertEqual(status, 0, printed)
        self.assertIn("not compared: rtplan.dcm: no image: RT Plan Storage holds no image.", printed)
        self.assertIn("8 files: 7 equal, 0 explained, 0 different, 1 not compared.", printed)

    def test_headers_drawn_at_random(self):
        # signs, byte orders, polarities, rescale, windows and tables in combination; dcmtk is the other implementation
        rng = np.random.default_rng(20)
        for i in range(40):
            save_dicom(self.folder / f"{i:02d}.dcm", **random_film(rng))
        status, printed = self.check()
        self.assertEqual(status, 0, printed)
        self.assertIn("0 different, 0 not compared", printed)

    def test_a_wrong_display_is_found(self):
        save_dicom(self.folder / "film.dcm", RAMP, **TWELVE)
        right = RadiologyReader.get_data

        def negative(reader, img):
            values, meta = right(reader, img)
            return 1 - values, meta

        with mock.patch.object(RadiologyReader, "get_data", negative):
            status, printed = self.check()
        self.assertEqual(status, 1)
        self.assertIn("different by up to 255.00 of 255 levels: film.dcm: frame 0, window", printed)

    def test_known_reasons_are_checked(self):
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [4096, 0, 16])
        item.add_new("LUTData", "US", list(range(4096)))
        save_dicom(self.folder / "modality.dcm", RAMP, **TWELVE, ModalityLUTSequence=[item])
        save_dicom(self.folder / "padding.dcm", RAMP, **TWELVE, PixelPaddingValue=4095)
        tiny = {"RescaleSlope": "0.00005", "RescaleIntercept": "0"}
        save_dicom(self.folder / "small.dcm", RAMP, **TWELVE, **tiny, WindowCenter="0.1", WindowWidth="0.2")
        status, printed = self.check()
        self.assertEqual(status, 0, printed)
        for words in ("modality.dcm: without a window", "padding.dcm: dcmtk shows padding", "small.dcm: dcmtk rounds"):
            self.assertIn(words, printed)
        self.assertIn("3 files: 0 equal, 3 explained", printed)

    def test_a_path_that_does_not_exist(self):
        status, _ = self.check(self.folder / "none")
        self.assertRegex(status, "none' must be a file or a folder, it does not exist")


def random_film(rng):
    """Return arguments of ``save_dicom``: a film whose elements agree, drawn from all combinations of them."""
    syntax = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)[rng.integers(3)]
    order, bits, signed = ">" if syntax == ExplicitVRBigEndian else "<", int(rng.integers(6, 17)), rng.random() < 0.3
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    pixels = rng.integers(low, high, (8, 10), endpoint=True).astype(f"{order}{'i' if signed else 'u'}{2 - (bits <= 8)}")
    elements = {"BitsStored": bits, "PhotometricInterpretation": f"MONOCHROME{rng.integers(1, 3)}"}
    elements["PresentationLUTShape"] = (None, "IDENTITY", "INVERSE")[rng.integers(3)]
    if rng.random() < 0.5:
        slope, intercept = int(rng.choice([1, 2, 3, -1, -2])), int(rng.integers(-2000, 2000))
        elements |= {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    kind = rng.choice(["plain", "window", "table"])
    if kind == "window":
        elements |= {"WindowCenter": int(rng.integers(low, high)), "WindowWidth": int(rng.integers(1, high - low))}
        elements["VOILUTFunction"] = (None, "LINEAR", "SIGMOID")[rng.integers(3)]
    if kind == "table":
        item, depth = Dataset(), int(rng.choice([8, 10, 12, 16]))
        words = rng.integers(0, 2**depth, min(high - low + 1, 20_000)).astype(f"{order}u2")
        item.add_new("LUTDescriptor", "SS" if low < 0 else "US", [len(words), max(low, -(2**15)), depth])
        item.add_new("LUTData", "OW", words.tobytes())
        elements["VOILUTSequence"] = [item]
    return {"pixels": pixels, "syntax": syntax, **elements}


if __name__ == "__main__":
    unittest.main()
