# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import tempfile
import tracemalloc
import unittest
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_fragments
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit

from bundle.reading.dicom.outline import check_length, read_outline
from bundle.reading.errors import UnreadableImageError
from bundle.reading.limits import Limits
from tests.synthetic_dicom import save_dicom

KEYWORDS = ("SOPInstanceUID", "Modality", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
KEYWORDS = (*KEYWORDS, "PhotometricInterpretation")
# of pydicom, one of each encoding: implicit, explicit, big endian, deflated, fragments
FILES = ("rtdose.dcm", "CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "examples_jpeg2k.dcm")
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
SEQUENCE = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)


class TestOutline(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def image(self, **elements) -> Path:
        return save_dicom(self.folder / "a.dcm", np.zeros((8, 6), np.uint8), **elements)

    def with_bytes(self, inserted: bytes, deflated: bool = False) -> Path:
        """Return an image with bytes before its first element."""
        path = self.image()
        whole = path.read_bytes()
        start = read_outline(path, KEYWORDS, Limits()).start
        syntax, body = ExplicitVRLittleEndian, inserted + whole[start:]
        if deflated:
            deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
            syntax, body = DeflatedExplicitVRLittleEndian, deflater.compress(body) + deflater.flush()
        words = (syntax + "\0" * (len(syntax) % 2)).encode()
        head = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(words)) + words
        path.write_bytes(head + body)
        return path

    def test_what_pydicom_reads(self):
        for name in FILES:
            path = Path(get_testdata_file(name))
            with self.subTest(name), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole, outline = pydicom.dcmread(path), read_outline(path, KEYWORDS, Limits())
                for keyword in KEYWORDS:
                    self.assertEqual(outline.header.get(keyword), whole.get(keyword))
                self.assertEqual(outline.header.file_meta.TransferSyntaxUID, whole.file_meta.TransferSyntaxUID)
                value = whole.PixelData
                if outline.fragments is None:
                    self.assertEqual(outline.length, len(value))
                else:
                    _, *fragments = generate_fragments(value)
                    self.assertEqual((outline.fragments, outline.length), (len(fragments), sum(map(len, fragments))))
                if outline.start != outline.pixels:  # not deflated
                    number = path.read_bytes()[outline.pixels :][:4]
                    self.assertIn(number, (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10"))
                check_length(outline)

    def test_sequences_within_one_another(self):
        path = self.with_bytes((SEQUENCE + ITEM) * 31)
        with self.assertRaisesRegex(UnreadableImageError, "ends within its header"):
            read_outline(path, KEYWORDS, Limits())
        with self.assertRaisesRegex(UnreadableImageError, "at most 32 within one another"):
            read_outline(self.with_bytes((SEQUENCE + ITEM) * 40), KEYWORDS, Limits())
        ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        outline = read_outline(self.with_bytes((SEQUENCE + ITEM) * 31 + ends * 31), KEYWORDS, Limits())
        self.assertEqual((outline.header.Rows, outline.length), (8, 48))

    def test_many_elements_need_time_but_no_memory(self):
        items = SEQUENCE + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (2**21)  # 16 MiB in 16 kB
        path = self.with_bytes(items, deflated=True)
        self.assertLess(path.stat().st_size, 2**16)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaisesRegex(UnreadableImageError, "at most 1048576 elements and items, there are more"):
            read_outline(path, KEYWORDS, Limits())
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**20)

    def test_a_long_value_is_passed_over_up_to_a_limit(self):
        value = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 2**24) + bytes(2**24)
        path = self.with_bytes(value, deflated=True)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(read_outline(path, KEYWORDS, Limits()).length, 48)
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**20)
        with self.assertRaisesRegex(UnreadableImageError, "must hold at most 1048576 bytes, it holds more"):
            read_outline(path, KEYWORDS, Limits(file=2**20))
        long = self.image(Modality="X" * 5000)
        with self.assertRaisesRegex(UnreadableImageError, "at most 4096 bytes, got 5000"):
            read_outline(long, KEYWORDS, Limits())

    def test_files_that_end_early_or_hold_no_image(self):
        whole = self.image().read_bytes()
        for end, message in ((-1, "48 bytes reaches beyond its end"), (-60, "within its header"), (200, "within")):
            (self.folder / "b.dcm").write_bytes(whole[:end])
            with self.subTest(end), self.assertRaisesRegex(UnreadableImageError, message):
                read_outline(self.folder / "b.dcm", KEYWORDS, Limits())
        after = struct.pack("<HH2sHL", 0x7FE1, 0x1001, b"OB", 0, 0)
        with self.assertRaisesRegex(UnreadableImageError, "PixelData .* must be present"):
            read_outline(self.with_bytes(after), KEYWORDS, Limits())

    def test_lengths(self):
        def check(**elements: object) -> None:
            check_length(read_outline(self.image(**elements), KEYWORDS, Limits()))

        check()
        for elements, message in (
            ({"Rows": 9}, "must hold 54 bytes, got 48"),
            ({"NumberOfFrames": 2}, "must hold 96 bytes, got 48"),
            ({"NumberOfFrames": 0}, "must be a positive whole number, got 0"),
            ({"Columns": None}, "Rows, Columns and the other sizes"),
        ):
            with self.subTest(elements), self.assertRaisesRegex(UnreadableImageError, message):
                check(**elements)
        compressed = Path(get_testdata_file("examples_jpeg2k.dcm"))
        outline = read_outline(compressed, KEYWORDS, Limits())
        outline.header.NumberOfFrames = outline.fragments + 1
        message = f"must have {outline.fragments + 1} fragments or more, got {outline.fragments}"
        with self.assertRaisesRegex(UnreadableImageError, message):
            check_length(outline)
        outline = read_outline(self.image(), KEYWORDS, Limits())
        outline.header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        with self.assertRaisesRegex(UnreadableImageError, "in fragments where it is compressed"):
            check_length(outline)


if __name__ == "__main__":
    unittest.main()
