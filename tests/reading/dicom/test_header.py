# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import hmac
import struct
import tempfile
import tracemalloc
import unittest
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from bundle.lists.find import find_images
from bundle.reading.dicom.header import check_is_image, frame_count, number
from bundle.reading.dicom.opened import open_dicom
from bundle.reading.errors import SkippedFileError, UnreadableImageError
from bundle.reading.limits import Limits
from bundle.reading.pseudonym import pseudonym
from bundle.reading.reader import RadiologyReader
from tests.folders import FolderTestCase
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
            RadiologyReader(limits=Limits(file=1000)).get_data([str(self.path)])

    def test_a_deflated_file_is_never_held_as_a_whole(self):
        # a few kilobytes that inflate to 100 MB: a long loop is read frame by frame, one huge element is refused
        loop = np.zeros((100, 1024, 1024), np.uint8)
        loop[99] = 51
        save_dicom(self.path, loop, syntax=DeflatedExplicitVRLittleEndian)
        del loop
        self.assertLess(self.path.stat().st_size, 2**18)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(len(find_images(self.path)[0]), 100)
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 * 2**20)
        values = RadiologyReader().get_data([f"{self.path}#frame=99"])[0]
        self.assertEqual(np.unique(values).tolist(), [np.float32(0.2)])
        self.assertLess(tracemalloc.get_traced_memory()[1], 32 * 2**20)
        tracemalloc.stop()
        bomb = bytes(100 * 2**20)
        save_dicom(self.path, loop_of_one(), syntax=DeflatedExplicitVRLittleEndian, EncapsulatedDocument=bomb)
        tracemalloc.start()
        with self.assertRaisesRegex(UnreadableImageError, "element of a deflated data set must hold at most 67108864"):
            RadiologyReader().get_data([str(self.path)])
        self.assertEqual(find_images(self.path)[1][0].status, "failed")
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 * 2**20)

    def test_what_a_deflated_loop_inflates_to_is_limited(self):
        save_dicom(self.path, np.zeros((8, 256, 256), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
        with self.assertRaisesRegex(UnreadableImageError, "all frames 300000, got 8 of 65536 bytes"):
            RadiologyReader(limits=Limits(file=300_000)).get_data([str(self.path)])

    def test_a_long_loop_is_read_frame_by_frame(self):
        # over the limit of a file that is unpacked as a whole, uncompressed and compressed
        loop = np.zeros((40, 16, 16), np.uint8)
        loop[39] = 51
        limits = Limits(frame=256, file=1000)
        save_dicom(self.path, loop)
        self.check_last_frame(limits)
        dataset = pydicom.dcmread(self.path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(self.path)
        self.check_last_frame(limits)
        with self.assertRaisesRegex(UnreadableImageError, "a frame must hold at most 255 bytes"):
            RadiologyReader(limits=Limits(frame=255)).get_data([str(self.path)])

    def check_last_frame(self, limits):
        self.assertEqual(len(find_images(self.path, limits=limits)[0]), 40)
        values, meta = RadiologyReader(limits=limits).get_data([f"{self.path}#frame=39"])
        self.assertEqual((np.unique(values).tolist(), meta["num_frames"]), ([np.float32(0.2)], 40))
        self.assertEqual(RadiologyReader(limits=limits).get_data([f"{self.path}#frame=38"])[0].max(), 0)

    def test_uncompressed_syntaxes_agree(self):
        pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300
        for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
            words = pixels.astype(">u2") if syntax == ExplicitVRBigEndian else pixels
            save_dicom(self.path, words, syntax=syntax)
            values, meta = RadiologyReader().get_data([str(self.path)])
            np.testing.assert_allclose(values[0], pixels / 65535, atol=1e-6)
            self.assertTrue(meta["decoder"].startswith("pydicom "))


def loop_of_one():
    return np.zeros((1, 4, 4), np.uint8)


class TestWithoutStatedSyntax(FolderTestCase):
    """Data sets as some devices and research folders keep them: no preamble, no file meta information, or neither."""

    def setUp(self):
        super().setUp()
        self.pixels = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) * 12

    def check(self, content, expected=None):
        """Read the file whole, then its data set alone, under either kind of name."""
        whole = self.folder / "whole.dcm"
        whole.write_bytes(content)
        reader = RadiologyReader(secret="")
        expected = reader.get_data([str(whole)])[0] if expected is None else expected
        length = struct.unpack_from("<I", content, 140)[0]  # PS3.10 7.1: counts from its own end
        data_set = content[144 + length :]
        for name in ("IM0001", "film.dcm"):
            for bare in (data_set, content[:132] + data_set, content[132:]):
                path = self.folder / name
                path.write_bytes(bare)
                self.assertEqual([item["image"] for item in find_images(path)[0]][:1], [str(path)])
                np.testing.assert_array_equal(reader.get_data([str(path)])[0], expected)

    def test_uncompressed(self):
        for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian):
            with self.subTest(syntax.name):
                words = self.pixels.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2")
                path = save_dicom(self.folder / "made.dcm", words, syntax=syntax)
                self.check(path.read_bytes(), np.float32(self.pixels / 65535)[None])

    def test_implicit_big_endian_of_old_scanners(self):
        dataset = pydicom.dcmread(save_dicom(self.folder / "made.dcm", self.pixels))
        dataset.PixelData = self.pixels.astype(">u2").tobytes()
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = False, True
        write_dataset(stream, dataset)
        (self.folder / "IM0001").write_bytes(stream.getvalue())
        values = RadiologyReader().get_data([str(self.folder / "IM0001")])[0]
        np.testing.assert_array_equal(values, np.float32(self.pixels / 65535)[None])

    def test_an_implicit_length_that_reads_like_a_value_representation(self):
        pixels = np.full((1, 0x5344), 51, np.uint8)  # 44 53 is "DS"
        path = save_dicom(self.folder / "made.dcm", pixels, syntax=ImplicitVRLittleEndian)
        self.check(path.read_bytes(), np.full((1, 1, 0x5344), np.float32(0.2)))

    def test_compressed(self):
        for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            with self.subTest(syntax.name):
                dataset = pydicom.dcmread(save_dicom(self.folder / "made.dcm", self.pixels))
                dataset.compress(syntax, generate_instance_uid=False)
                dataset.save_as(self.folder / "made.dcm")
                self.check((self.folder / "made.dcm").read_bytes(), np.float32(self.pixels / 65535)[None])
        for name in ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_jpeg2k.dcm", "GDCMJ2K_TextGBR.dcm"):
            with self.subTest(name):
                self.check(Path(get_testdata_file(name, download=False)).read_bytes())

    def test_what_its_bytes_do_not_show(self):
        dataset = pydicom.dcmread(save_dicom(self.folder / "made.dcm", self.pixels))
        dataset.PixelData = encapsulate([b"neither of them " * 8])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.save_as(self.folder / "made.dcm")
        path = self.folder / "bare.dcm"
        path.write_bytes((self.folder / "made.dcm").read_bytes()[132:].split(b"1.2.840.10008.1.2.5\0")[1])
        with self.assertRaisesRegex(UnreadableImageError, "must be stated or shown by the pixel data"):
            RadiologyReader().get_data([str(path)])


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
