# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import tempfile
import unittest
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.data.codestreams import codestream_size
from bundle.data.errors import UnreadableImageError
from bundle.data.readers import RadiologyReader
from tests.synthetic_dicom import save_dicom

RAMP = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) * 12


def jpeg(rows, columns):
    """Return a JPEG codestream of a gray picture."""
    stream = io.BytesIO()
    Image.new("L", (columns, rows), 77).save(stream, format="jpeg")
    return stream.getvalue()


class TestDecodeFrame(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "film.dcm"

    def test_lossless_syntaxes_agree_and_name_their_decoder(self):
        packages = {RLELossless: "pylibjpeg-rle", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg-openjpeg"}
        for syntax, decoder in packages.items():
            with self.subTest(syntax.name):
                dataset = pydicom.dcmread(save_dicom(self.path, RAMP))
                dataset.compress(syntax, generate_instance_uid=False)
                dataset.save_as(self.path)
                values, meta = RadiologyReader().get_data([str(self.path)])
                np.testing.assert_allclose(values[0], RAMP / 65535, atol=1e-6)
                self.assertEqual(meta["decoder"].split()[0], decoder)

    def test_a_codestream_of_another_size_is_refused_before_decoding(self):
        dataset = pydicom.dcmread(save_dicom(self.path, np.zeros((20, 30), np.uint8)))
        dataset.PixelData = encapsulate([jpeg(40, 30)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.save_as(self.path)
        with self.assertRaisesRegex(UnreadableImageError, r"of the codestream \(40, 30\), got \(20, 30\)"):
            RadiologyReader().get_data([str(self.path)])

    def test_a_panic_in_a_decoder_is_a_refusal(self):
        dataset = pydicom.dcmread(save_dicom(self.path, np.zeros((4, 4), np.uint16)))
        segment = b"\x81\x00" * 40  # 40 runs of 128 zeros, where 16 pixels have room
        header = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13)
        dataset.PixelData = encapsulate([header + 2 * segment])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.save_as(self.path)
        with self.assertRaisesRegex(UnreadableImageError, "decode as RLE Lossless, pylibjpeg-rle ended in PanicExcept"):
            RadiologyReader().get_data([str(self.path)])

    def test_a_decoder_that_dies_takes_only_its_own_process_along(self):
        healthy = Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))
        content = healthy.read_bytes()
        tables = content.index(b"\xff\xc4", content.index(b"\xff\xc3"))  # without its marker GDCM aborts
        self.path.write_bytes(content[:tables] + b"\x44" + content[tables + 1 :])
        with self.assertRaisesRegex(UnreadableImageError, "python-gdcm ended in DecoderEndedError"):
            RadiologyReader().get_data([str(self.path)])
        self.assertEqual(RadiologyReader().get_data([str(healthy)])[0].shape, (3, 100, 100))

    @unittest.skipIf(find_spec("libjpeg"), "the extra jpeg12 is installed")
    def test_twelve_bit_jpeg_names_the_extra(self):
        with self.assertRaisesRegex(UnreadableImageError, "needs the GPL-3.0 extra 'jpeg12'"):
            RadiologyReader().get_data([get_testdata_file("JPGExtended.dcm", download=False)])


class TestCodestreamSize(unittest.TestCase):
    def test_sizes(self):
        self.assertEqual(codestream_size(jpeg(21, 33)), (21, 33))
        stream = io.BytesIO()
        Image.new("L", (33, 21)).save(stream, format="jpeg2000")
        self.assertEqual(codestream_size(stream.getvalue()), (21, 33))
        self.assertIsNone(codestream_size(b"neither"))
        self.assertIsNone(codestream_size(jpeg(21, 33)[:12]))


if __name__ == "__main__":
    unittest.main()
