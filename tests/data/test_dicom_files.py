# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import hmac
import tempfile
import unittest
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from bundle.data.dicom_files import check_is_image, frame_count, number, open_dicom, pseudonym
from bundle.data.errors import SkippedFileError, UnreadableImageError
from bundle.data.limits import Limits
from bundle.data.readers import RadiologyReader
from tests.synthetic_dicom import save_dicom


class TestOpenDicom(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "film.dcm"

    def test_deflated_file_within_and_beyond_the_limit(self):
        pixels = np.zeros((400, 500), np.uint16)
        save_dicom(self.path, pixels, syntax=DeflatedExplicitVRLittleEndian)
        self.assertLess(self.path.stat().st_size, 4000)
        self.assertEqual(open_dicom(self.path, Limits()).Rows, 400)
        reader = RadiologyReader()
        self.assertEqual(reader.get_data([str(self.path)])[0].shape, (1, 400, 500))
        with self.assertRaisesRegex(UnreadableImageError, "must hold at most 1000 bytes, it holds more"):
            open_dicom(self.path, Limits(file=1000))

    def test_uncompressed_syntaxes_agree(self):
        pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
        for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
            words = pixels.astype(">u2") if syntax == ExplicitVRBigEndian else pixels
            save_dicom(self.path, words, syntax=syntax)
            values, meta = RadiologyReader().get_data([str(self.path)])
            np.testing.assert_allclose(values[0], pixels / 65535, atol=1e-6)
            self.assertTrue(meta["decoder"].startswith("pydicom "))


class TestHeader(unittest.TestCase):
    def test_what_is_no_image(self):
        dose = Dataset()
        dose.SOPClassUID, dose.Rows, dose.Columns = "1.2.840.10008.5.1.4.1.1.481.2", 2, 2
        with self.assertRaisesRegex(SkippedFileError, "RT Dose is not an image"):
            check_is_image(dose)
        report = Dataset()
        report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
        with self.assertRaisesRegex(SkippedFileError, "Comprehensive SR Storage holds no image"):
            check_is_image(report)
        report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        with self.assertRaisesRegex(UnreadableImageError, "Rows and Columns must be present in Digital X-Ray Image"):
            check_is_image(report)
        report.SOPClassUID = "DOE^JANE"
        with self.assertRaisesRegex(SkippedFileError, "this DICOM file holds no image"):
            check_is_image(report)

    def test_numbers(self):
        header = Dataset()
        self.assertEqual(frame_count(header), 1)
        header.NumberOfFrames = 30
        self.assertEqual(frame_count(header), 30)
        with self.assertRaisesRegex(UnreadableImageError, "Rows must be present"):
            number(header, "Rows")


class TestLimits(unittest.TestCase):
    def test_frames_count(self):
        limits = Limits(frame=100, file=250)
        limits.check(100, 2)
        with self.assertRaisesRegex(UnreadableImageError, "at most 100 bytes and all frames 250, got 3 of 100 bytes"):
            limits.check(100, 3)


class TestPseudonym(unittest.TestCase):
    def test_is_a_keyed_hash(self):
        expected = hmac.new(b"key", b"4711", hashlib.sha256).hexdigest()[:16]
        self.assertEqual(pseudonym(" 4711 ", "key"), expected)
        self.assertNotEqual(pseudonym("4711", "other"), expected)
        self.assertEqual(pseudonym(" ", "key"), "")


if __name__ == "__main__":
    unittest.main()
