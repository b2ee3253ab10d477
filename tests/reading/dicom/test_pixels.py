# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing

from bundle.reading.errors import UnreadableImageError
from bundle.reading.reader import RadiologyReader
from tests.synthetic_dicom import save_dicom

RAMP = np.array([[0, 1000, 2000], [3000, 4000, 4095]], dtype=np.uint16)
TWELVE = {"BitsStored": 12}


def lut(first, entries, bits, explanation=None):
    """Return a LUT item; entries are 16-bit words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", list(entries))
    if explanation:
        item.LUTExplanation = explanation
    return item


class DicomCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "film.dcm"

    def read(self, pixels=RAMP, window="first", photometric=None, **elements):
        save_dicom(self.path, pixels, **elements)
        reader = RadiologyReader(window=window, photometric=photometric)
        return reader.get_data(reader.read(self.path))[0]

    def assert_values(self, values, expected, atol=1e-6):
        np.testing.assert_allclose(values, np.asarray(expected, dtype=np.float64), atol=atol)


class TestGray(DicomCase):
    def test_whole_range_without_window(self):
        self.assert_values(self.read(**TWELVE), [RAMP / 4095])
        signed = np.array([[-2048, 0, 2047]], dtype=np.int16)
        self.assert_values(self.read(signed, **TWELVE), [[[0, 2048 / 4095, 1]]])

    def test_monochrome1_turns_over_after_the_window(self):
        # a window of 1000..3000 in modality values: 0 and 1000 are black before, white after turning over
        window = {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}
        expected = np.array([[[0, 0, 0.5], [1, 1, 1]]])
        self.assert_values(self.read(**TWELVE, **window), expected)
        self.assert_values(self.read(**TWELVE, **window, PhotometricInterpretation="MONOCHROME1"), 1 - expected)
        wrong_tag = self.read(**TWELVE, photometric="MONOCHROME2", PhotometricInterpretation="MONOCHROME1")
        self.assert_values(wrong_tag, [RAMP / 4095])

    def test_the_two_polarities_of_one_film_look_the_same(self):
        film = self.read(**TWELVE)
        negative = self.read((4095 - RAMP).astype(np.uint16), **TWELVE, PhotometricInterpretation="MONOCHROME1")
        self.assert_values(film, negative)

    def test_windows_match_pydicom(self):
        for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            elements = {
                **TWELVE,
                "RescaleSlope": "0.5",
                "RescaleIntercept": "-100",
                "WindowCenter": 900,
                "WindowWidth": 1500,
                "VOILUTFunction": function,
            }
            values = self.read(**elements)
            ds = pydicom.dcmread(self.path)
            low, high = -100, 4095 * 0.5 - 100
            expected = (apply_windowing(apply_modality_lut(RAMP, ds), ds) - low) / (high - low)
            self.assert_values(values, [expected])

    def test_named_window(self):
        elements = {
            **TWELVE,
            "WindowCenter": [1000, 3000],
            "WindowWidth": [1, 1],
            "WindowCenterWidthExplanation": ["SOFT", "BONE"],
        }
        self.assert_values(self.read(**elements, window="BONE"), [[[0, 0, 0], [1, 1, 1]]])
        self.assert_values(self.read(**elements, window="SOFT"), [[[0, 1, 1], [1, 1, 1]]])
        self.assert_values(self.read(**elements, window=None), [RAMP / 4095])
        with self.assertRaisesRegex(UnreadableImageError, "film.dcm: window must be .* 2 explanations.* got 'LUNG'"):
            self.read(**elements, window="LUNG")

    def test_modality_lut_and_voi_lut(self):
        pixels = np.array([[0, 1, 2, 3]], dtype=np.uint8)
        modality = {"ModalityLUTSequence": [lut(1, [10, 20, 30], 16)]}
        # below the first entry the first, above the last the last
        self.assert_values(self.read(pixels, **modality), [[[0, 0, 0.5, 1]]])
        voi = {"VOILUTSequence": [lut(0, [0, 255, 0, 51], 8), lut(0, [1023, 0, 0, 0], 10, "OTHER")]}
        self.assert_values(self.read(pixels, **voi), [[[0, 1, 0, 0.2]]])
        self.assert_values(self.read(pixels, **voi, window="OTHER"), [[[1, 0, 0, 0]]])

    def test_padding_is_black_in_either_polarity(self):
        pixels = np.array([[5, 250, 251, 200]], dtype=np.uint8)
        padding = {"PixelPaddingValue": 250, "PixelPaddingRangeLimit": 255}
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            values = self.read(pixels, **padding, PhotometricInterpretation=photometric)
            self.assertEqual(values[0, 0, 1:3].tolist(), [0, 0])
            self.assertGreater(values[0, 0, 0], 0)

    def test_overlay_bits_above_bits_stored_are_cleared(self):
        self.assert_values(self.read(RAMP | 0xF000, **TWELVE), [RAMP / 4095])

    def test_functional_groups_override(self):
        voi = Dataset()
        voi.WindowCenter, voi.WindowWidth = 2000, 1
        frames = [Dataset(), Dataset()]
        frames[1].FrameVOILUTSequence = [voi]
        save_dicom(self.path, np.stack([RAMP, RAMP]), **TWELVE, PerFrameFunctionalGroupsSequence=frames)
        reader = RadiologyReader()
        self.assert_values(reader.get_data([f"{self.path}#frame=0"])[0], [RAMP / 4095])
        self.assert_values(reader.get_data([f"{self.path}#frame=1"])[0], [RAMP >= 2000])


class TestColor(DicomCase):
    def test_planar_configurations_agree(self):
        pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
        by_pixel = self.read(pixels, color=True)
        self.assert_values(by_pixel, pixels.transpose(2, 0, 1) / 255)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(2, 4, 3)  # the bytes of three planes
        self.assert_values(self.read(planes, color=True, PlanarConfiguration=1), by_pixel)

    def test_ybr_full_becomes_rgb(self):
        # a pure gray has no color difference, and Y alone says how bright
        gray = np.tile(np.array([90, 128, 128], dtype=np.uint8), (2, 2, 1))
        self.assert_values(
            self.read(gray, color=True, PhotometricInterpretation="YBR_FULL"), np.full((3, 2, 2), 90 / 255)
        )

    def test_palette(self):
        table = {}
        for i, color in enumerate(("Red", "Green", "Blue")):
            table[f"{color}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
            table[f"{color}PaletteColorLookupTableData"] = np.array([0, 65535 if i == 0 else 13107], "<u2").tobytes()
        values = self.read(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **table)
        self.assert_values(values, [[[0, 1]], [[0, 0.2]], [[0, 0.2]]])

    def test_segmented_palette(self):
        # 2 discrete entries, then 2 more on a line to 65535
        segments = np.array([0, 2, 0, 13107, 1, 2, 65535], "<u2").tobytes()
        table = {}
        for color in ("Red", "Green", "Blue"):
            table[f"{color}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
            table[f"Segmented{color}PaletteColorLookupTableData"] = segments
        pixels = np.array([[0, 1, 2, 3]], np.uint8)
        values = self.read(pixels, PhotometricInterpretation="PALETTE COLOR", **table)
        self.assert_values(values[0], [[0, 0.2, 0.6, 1]], atol=1e-4)
        table["SegmentedBluePaletteColorLookupTableData"] = np.array([0, 1, 0] + [1, 65535, 9] * 3, "<u2").tobytes()
        with self.assertRaisesRegex(UnreadableImageError, "at most 65536 entries, got 131071"):
            self.read(pixels, PhotometricInterpretation="PALETTE COLOR", **table)


class TestRefusals(DicomCase):
    def test_every_rule_is_named_with_its_value(self):
        for elements, message in (
            ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "RescaleSlope must not be 0"),
            ({"RescaleSlope": "nan", "RescaleIntercept": "0"}, "RescaleSlope must be finite, got nan"),
            ({"NumberOfFrames": "-2"}, "NumberOfFrames must be a positive whole number, got -2"),
            ({"NumberOfFrames": "9000"}, "NumberOfFrames must fit the file of .* bytes, got 9000"),
            ({"BitsStored": 17, "HighBit": 16}, "BitsStored within it, got 16 and 17"),
            ({"HighBit": 12}, "HighBit must be BitsStored - 1 and .*, got 12, 16 and 0"),
            ({"PixelRepresentation": 2}, "PixelRepresentation 0 or 1, got 15, 16 and 2"),
            ({"SamplesPerPixel": 2}, "SamplesPerPixel 1 or 3, got 2, 3, 2"),
            ({"Rows": 20}, "PixelData must hold 120 bytes, got 12"),
            ({"Rows": 65535, "Columns": 65535}, "a frame must hold at most 67108864 bytes .* got 1 of 8589672450"),
            ({"PhotometricInterpretation": None}, "PhotometricInterpretation must be present"),
            ({"PhotometricInterpretation": "HSV"}, "PhotometricInterpretation must be"),
        ):
            with self.subTest(message), pydicom.config.disable_value_validation():
                with self.assertRaisesRegex(UnreadableImageError, f"^film.dcm: .*{message}"):
                    self.read(**elements)

    def test_text_in_place_of_a_number_is_refused_and_not_repeated(self):
        for keyword in ("NumberOfFrames", "RescaleSlope"):
            with self.subTest(keyword):
                elements = {keyword: "12345678"}
                save_dicom(self.path, RAMP, **elements)
                self.path.write_bytes(self.path.read_bytes().replace(b"12345678", b"DOE^JANE"))
                with self.assertRaisesRegex(UnreadableImageError, f"{keyword} must be .*number") as caught:
                    RadiologyReader().get_data([str(self.path)])
                self.assertNotIn("DOE", str(caught.exception))

    def test_unknown_transfer_syntax(self):
        save_dicom(self.path, RAMP)
        self.path.write_bytes(self.path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
        with self.assertRaisesRegex(UnreadableImageError, "TransferSyntaxUID .* must be one for images"):
            RadiologyReader().get_data([str(self.path)])

    def test_constructor(self):
        with self.assertRaisesRegex(ValueError, "channels must be 1, 3 or None, got 2"):
            RadiologyReader(channels=2)
        with self.assertRaisesRegex(ValueError, "photometric must be one of .* got 'RGB'"):
            RadiologyReader(photometric="RGB")


if __name__ == "__main__":
    unittest.main()
