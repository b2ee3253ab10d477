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
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from bundle.reading.dicom.codestreams import codestream_size
from bundle.reading.errors import UnreadableImageError
from bundle.reading.reader import RadiologyReader
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

    def write_compressed(self, source, frame, **elements):
        dataset = pydicom.dcmread(source)
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
        for keyword, value in elements.items():
            dataset.pop(keyword, None)
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.save_as(self.path)

    def test_planar_configuration_means_nothing_in_a_compressed_frame(self):
        # PS3.3 C.7.6.3.1.3: "Planar Configuration (0028,0006) is not meaningful when a compression Transfer Syntax is
        # used that involves reorganization of sample components in the compressed bit stream"
        for name in (
            "SC_rgb_jpeg_dcmtk.dcm",  # JPEG Baseline
            "SC_rgb_jpeg_gdcm.dcm",  # JPEG Lossless
            "SC_rgb_jls_lossy_line.dcm",
            "SC_rgb_jls_lossy_sample.dcm",
            "GDCMJ2K_TextGBR.dcm",
            "SC_rgb_rle.dcm",
        ):
            source = get_testdata_file(name, download=False)
            expected = RadiologyReader().get_data([source])[0]
            frame = get_frame(pydicom.dcmread(source).PixelData, 0, number_of_frames=1)
            for planar in (0, 1, None):
                with self.subTest(name, planar=planar):
                    self.write_compressed(source, frame, PlanarConfiguration=planar)
                    np.testing.assert_array_equal(RadiologyReader().get_data([str(self.path)])[0], expected)

    def test_padding_of_a_frame_is_no_part_of_it(self):
        # ISO/IEC 10918-1 B.1.1.2: any marker may be preceded by fill bytes FF; zero bytes before the end of a
        # JPEG-LS image, and anything behind an end marker, are what writers really leave there
        for name, ends in (
            ("MR_small_jpeg_ls_lossless.dcm", (b"\0", b"\0\0", bytes(1000), b"\xff")),
            ("JPEGLSNearLossless_08.dcm", (b"\0", b"\0\0", bytes(1000), b"\xff")),
            ("SC_rgb_jls_lossy_sample.dcm", (b"\0", bytes(7))),
            ("SC_rgb_jpeg_dcmtk.dcm", (b"\0", bytes(7), b"\xff")),
            ("SC_rgb_jpeg_gdcm.dcm", (b"\0", bytes(7), b"\xff")),
            ("MR_small_jp2klossless.dcm", ()),
        ):
            source = get_testdata_file(name, download=False)
            expected = RadiologyReader().get_data([source])[0]
            frame = get_frame(pydicom.dcmread(source).PixelData, 0, number_of_frames=1).rstrip(b"\0")
            padded = [frame[:-2] + end + frame[-2:] for end in ends]
            padded += [frame + end for end in (b"\0", bytes(1000), b"junk")]
            for i, codestream in enumerate(padded):
                with self.subTest(name, i=i):
                    self.write_compressed(source, codestream)
                    np.testing.assert_array_equal(RadiologyReader().get_data([str(self.path)])[0], expected)

    def test_a_file_that_was_cut_off_is_refused_whatever_its_decoder_makes_of_it(self):
        for name in ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm"):
            content = Path(get_testdata_file(name, download=False)).read_bytes()
            for part in (0.95, 0.7):
                self.path.write_bytes(content[: int(part * len(content))])
                with self.subTest(name, part=part), self.assertRaisesRegex(UnreadableImageError, "must be whole"):
                    RadiologyReader().get_data([str(self.path)])

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
