# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparison with independent programs finds a wrong display, and knows what it may differ by."""

from __future__ import annotations

import contextlib
import io
import runpy
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from bundle.data.readers import RadiologyReader
from tests.synthetic_dicom import save_dicom

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_pixels.py"
PROGRAMS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm", "ffmpeg")
RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
TWELVE = {"BitsStored": 12}


@unittest.skipUnless(all(map(shutil.which, PROGRAMS)), "needs dcmtk and ffmpeg")
class TestCheckPixels(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

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


if __name__ == "__main__":
    unittest.main()
