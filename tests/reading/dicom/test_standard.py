# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Display values by the sentences of the DICOM Standard, quoted in each test, and worked out from them by hand.

Nothing here is derived from the reader. docs/pixels.md lists the elements in the same order.
"""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bundle.reading.errors import UnreadableImageError
from bundle.reading.reader import RadiologyReader
from tests.synthetic_dicom import save_dicom

CLASSES = {
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "IO": "1.2.840.10008.5.1.4.1.1.1.3",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
}
BYTES = np.array([[0, 51, 102, 255]], np.uint8)
RISING = np.array([[[0, 0.2, 0.4, 1]]])


class StandardCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "film.dcm"

    def read(self, pixels=BYTES, options=None, **elements):
        save_dicom(self.path, pixels, **elements)
        values, self.meta = RadiologyReader(**options or {}).get_data([str(self.path)])
        return values

    def assert_shown(self, values, expected, note=""):
        np.testing.assert_allclose(values, np.asarray(expected, dtype=np.float64), atol=2e-6)
        self.assertRegex(self.meta["display_note"], f"^{note}$" if not note else note)


class TestPolarity(StandardCase):
    def test_photometric_interpretation_alone(self):
        # C.7.6.3.1.2, MONOCHROME1: "The minimum sample value is intended to be displayed as white after any VOI gray
        # scale transformations have been performed." MONOCHROME2: "... as black ..."
        self.assert_shown(self.read(PhotometricInterpretation="MONOCHROME2"), RISING)
        self.assert_shown(self.read(PhotometricInterpretation="MONOCHROME1"), 1 - RISING)
        window = {"WindowCenter": 76.5, "WindowWidth": 51, "VOILUTFunction": "LINEAR_EXACT"}  # 51..102
        self.assert_shown(self.read(PhotometricInterpretation="MONOCHROME1", **window), [[[1, 1, 0, 0]]])

    def test_the_shape_states_the_inversion_of_the_photometric_interpretation_again(self):
        # C.8.11.3, and C.7.6.1 for every image: "INVERSE: output after inversion is in P-Values - shall be used if
        # Photometric Interpretation (0028,0004) is MONOCHROME1", "IDENTITY: output is in P-Values - shall be used if
        # Photometric Interpretation (0028,0004) is MONOCHROME2"
        for name, uid in CLASSES.items():
            for photometric, shape, shown in (
                ("MONOCHROME1", "INVERSE", 1 - RISING),
                ("MONOCHROME1", None, 1 - RISING),
                ("MONOCHROME2", "IDENTITY", RISING),
                ("MONOCHROME2", None, RISING),
            ):
                with self.subTest(name, photometric=photometric, shape=shape):
                    elements = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
                    self.assert_shown(self.read(SOPClassUID=uid, **elements), shown)

    def test_a_contradiction_is_shown_by_the_shape_and_said(self):
        # C.11.6.1.2: "A value of INVERSE shall mean the same as a value of IDENTITY, except that the minimum output
        # value shall convey the meaning of the maximum available luminance"; dcm2pnm 3.6.7 shows both pairs so
        for photometric, shape, shown in (
            ("MONOCHROME1", "IDENTITY", RISING),
            ("MONOCHROME2", "INVERSE", 1 - RISING),
        ):
            with self.subTest(photometric):
                values = self.read(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
                self.assert_shown(values, shown, f"{shape} contradicts {photometric}")

    def test_a_shape_that_is_no_word_of_images_says_nothing(self):
        # C.11.4: "LIN OD is only defined for hardcopy devices and is not applicable to softcopy devices."
        for shape in ("LIN OD", ""):
            values = self.read(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape)
            self.assert_shown(values, 1 - RISING)

    def test_words_are_read_without_their_padding(self):
        # PS3.5 6.2, CS: leading and trailing spaces are not significant
        values = self.read(PhotometricInterpretation=" MONOCHROME1 ", PresentationLUTShape="INVERSE  ")
        self.assert_shown(values, 1 - RISING)

    def test_the_inversion_follows_a_voi_lut_and_a_modality_lut(self):
        # PS3.4 N.2: Modality LUT, then VOI LUT, then Presentation LUT
        pixels = np.array([[0, 1, 2]], np.uint8)
        for photometric, shown in (("MONOCHROME2", [[[0, 0.2, 1]]]), ("MONOCHROME1", [[[1, 0.8, 0]]])):
            elements = {
                "PhotometricInterpretation": photometric,
                "ModalityLUTSequence": [table([5, 6, 7], 0, 16)],
                "VOILUTSequence": [table([0, 51, 255], 5, 8)],
            }
            self.assert_shown(self.read(pixels, **elements), shown)

    def test_a_user_overrides_all_that_the_file_says(self):
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            for shape in (None, "IDENTITY", "INVERSE"):
                elements = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
                self.assert_shown(self.read(options={"photometric": "MONOCHROME2"}, **elements), RISING)
                self.assert_shown(self.read(options={"photometric": "MONOCHROME1"}, **elements), 1 - RISING)

    def test_color_has_no_polarity(self):
        # C.7.6.1: "When this Attribute is used with a color photometric interpretation then the luminance component is
        # in P-Values"
        color = np.array([[[0, 51, 102]]], np.uint8)
        self.assert_shown(self.read(color, color=True, PresentationLUTShape="IDENTITY"), [[[0]], [[0.2]], [[0.4]]])

    def test_windows_are_for_gray_only(self):
        # PS3.4 N.2.1.3: "The VOI LUT operation applies only to grayscale values."
        color = np.array([[[0, 51, 102]]], np.uint8)
        self.assert_shown(self.read(color, color=True, WindowCenter=1, WindowWidth=1), [[[0]], [[0.2]], [[0.4]]])


class TestWindows(StandardCase):
    def test_linear(self):
        # C.11.2.1.2.1: "if (x <= c - 0.5 - (w-1) /2), then y = ymin; else if (x > c - 0.5 + (w-1) /2), then y = ymax,
        # else y = ((x - (c - 0.5)) / (w-1) + 0.5) * (ymax - ymin)+ ymin"; for c = 2048, w = 4096: "x <= 0 ... y = 0,
        # x > 4095 ... y = 255, else y = ((x - 2047.5) / 4095 + 0.5) * (255-0) + 0"
        pixels = np.array([[0, 1, 2048, 4095]], np.uint16)
        shown = [[[0, 1 / 4095, (2048 - 2047.5) / 4095 + 0.5, 1]]]
        for function in ({}, {"VOILUTFunction": "LINEAR"}, {"VOILUTFunction": "LINEAR "}):
            self.assert_shown(self.read(pixels, BitsStored=12, WindowCenter=2048, WindowWidth=4096, **function), shown)

    def test_width_1_is_a_threshold(self):
        # C.11.2.1.2.1 Note 5: "those integer input values less than the Window Center are represented as the minimum
        # displayed value and those greater than or equal to the Window Center ... as the maximum displayed value"
        self.assert_shown(self.read(WindowCenter=51, WindowWidth=1), [[[0, 1, 1, 1]]])

    def test_sigmoid_and_exact(self):
        # C.11.2.1.3.1: y = ymax / (1 + exp(-4 (x - c) / w)); C.11.2.1.3.2: "y = ((x - c) / w + 0.5)"
        values = self.read(WindowCenter=51, WindowWidth=204, VOILUTFunction="SIGMOID")
        self.assert_shown(values, 1 / (1 + np.exp([[[1, 0, -1, -4]]])))
        values = self.read(WindowCenter=51, WindowWidth=102, VOILUTFunction="LINEAR_EXACT")
        self.assert_shown(values, [[[0, 0.5, 1, 1]]])
        # "shall always be greater than 0": below 1 it is one for this function
        pixels = np.array([[0, 1, 2]], np.uint8)
        values = self.read(pixels, WindowCenter=0.2, WindowWidth=0.4, VOILUTFunction="LINEAR_EXACT", RescaleSlope="0.2")
        self.assert_shown(values, [[[0, 0.5, 1]]])

    def test_windows_are_in_modality_values(self):
        # PS3.4 N.2: the VOI LUT takes what the Modality LUT, or Rescale Slope and Intercept, give
        elements = {"RescaleSlope": "2", "RescaleIntercept": "-100"}
        values = self.read(WindowCenter=2, WindowWidth=1, **elements)
        self.assert_shown(values, [[[0, 1, 1, 1]]])  # -100, 2, 104, 410

    def test_a_window_that_the_standard_does_not_allow_is_shown_over_the_full_range(self):
        # C.11.2.1.2.1: "Window Width (0028,1051) shall always be greater than or equal to 1"; C.11.2: the two are as
        # many, defined terms of the function; a viewer shows the image all the same
        for elements, note in (
            ({"WindowCenter": 5, "WindowWidth": 0}, "WindowWidth must be at least 1, got 0"),
            ({"WindowCenter": 5, "WindowWidth": -7}, "WindowWidth must be at least 1, got -7"),
            ({"WindowCenter": "0.1", "WindowWidth": "0.2"}, "WindowWidth must be at least 1, got 0.2"),
            ({"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"}, "above 0, got 0"),
            ({"WindowCenter": 5, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "above 0, got 0"),
            ({"WindowCenter": [5, 6], "WindowWidth": 9}, "as many, got 2 and 1"),
            ({"WindowCenter": 5, "WindowWidth": [8, 9]}, "as many, got 1 and 2"),
            ({"WindowCenter": 5}, "as many, got 1 and 0"),
            ({"WindowWidth": 9}, "as many, got 0 and 1"),
            ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOILUTFunction must be LINEAR"),
            ({"WindowCenter": "nan", "WindowWidth": 9}, "finite"),
            ({"WindowCenter": 5, "WindowWidth": "inf"}, "finite"),
            ({"WindowCenter": 5, "WindowWidth": "1e300"}, "finite"),
        ):
            for photometric, shown in (("MONOCHROME2", RISING), ("MONOCHROME1", 1 - RISING)):
                with self.subTest(note, photometric=photometric, **elements):
                    values = self.read(PhotometricInterpretation=photometric, **elements)
                    self.assert_shown(values, shown, f"^window not applied, shown over the full range: .*{note}")

    def test_text_in_place_of_a_number_is_not_repeated(self):
        for keyword in ("WindowCenter", "WindowWidth"):
            save_dicom(self.path, BYTES, **{"WindowCenter": 1, "WindowWidth": 1, keyword: "12345678"})
            self.path.write_bytes(self.path.read_bytes().replace(b"12345678", b"DOE^JANE"))
            values, self.meta = RadiologyReader().get_data([str(self.path)])
            self.assert_shown(values, RISING, "finite numbers, they are not$")

    def test_an_empty_window_is_an_absent_one(self):
        self.assert_shown(self.read(WindowCenter="", WindowWidth=""), RISING)

    def test_a_window_beyond_the_values_is_applied_and_said(self):
        # C.11.2.1.2.1 gives ymin below the window, whatever the image holds
        for center, photometric, shade in (
            (9000, "MONOCHROME2", 0),
            (-9000, "MONOCHROME2", 1),
            (9000, "MONOCHROME1", 1),
        ):
            values = self.read(WindowCenter=center, WindowWidth=9, PhotometricInterpretation=photometric)
            self.assert_shown(values, np.full((1, 1, 4), shade), "every pixel has one gray")

    def test_only_the_chosen_window_counts(self):
        elements = {
            "WindowCenter": [51, 5],
            "WindowWidth": [1, 0],
            "WindowCenterWidthExplanation": ["A", "B"],
        }
        self.assert_shown(self.read(**elements), [[[0, 1, 1, 1]]])
        self.assert_shown(self.read(options={"window": "B"}, **elements), RISING, "got 0")
        self.assert_shown(self.read(options={"window": None}, **elements), RISING)


def table(entries, first, bits, vr="US", explanation=None):
    """Return an item of Modality or VOI LUT Sequence; ``entries`` are values for US, bytes else."""
    item = Dataset()
    count = len(entries) if vr == "US" else len(entries) // (2 if vr == "OW" else 1)
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    item.add_new("LUTData", vr, list(entries) if vr == "US" else entries)
    if explanation:
        item.LUTExplanation = explanation
    return item


def palette(tables, bits, count, first=0, vr="OW", segmented=False):
    """Return the elements of a palette; ``tables`` are three runs of bytes."""
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color, data in zip(("Red", "Green", "Blue"), tables, strict=True):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        elements[f"{'Segmented' if segmented else ''}{color}PaletteColorLookupTableData"] = data
    return elements


class TestTables(StandardCase):
    SYNTAXES = ((ImplicitVRLittleEndian, "<"), (ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">"))

    def test_words_of_a_table_are_in_the_files_byte_order(self):
        # PS3.5 6.2, OW: "requires byte swapping within each word when changing byte ordering"
        values = [0, 13107, 26214, 65535]
        pixels = np.array([[0, 1, 2, 3]], np.uint8)
        for syntax, order in self.SYNTAXES:
            data = np.array(values, f"{order}u2").tobytes()
            for name, elements in (
                ("palette", palette([data] * 3, 16, 4)),
                ("VOI", {"VOILUTSequence": [table(data, 0, 16, "OW")]}),
                ("VOI as US", {"VOILUTSequence": [table(values, 0, 16)]}),
                ("modality", {"ModalityLUTSequence": [table(data, 0, 16, "OW")]}),
                ("modality as US", {"ModalityLUTSequence": [table(values, 0, 16)]}),
            ):
                with self.subTest(name, syntax=syntax.name):
                    self.assert_shown(self.read(pixels, syntax=syntax, **elements)[:1], RISING)

    def test_entries_of_8_bits_in_words_and_in_bytes(self):
        # C.7.6.3.1.5: "Some implementations have encoded 8 bit entries with 16 bits allocated, padding the high bits;
        # this can be detected by comparing the number of entries specified in the LUT Descriptor with the actual value
        # length of the LUT Data entry. The value length in bytes should equal the number of entries if bits allocated
        # is 8, and be twice as long if bits allocated is 16." Two bytes in a word of OW turn over with it (PS3.5 7.3)
        entries = [0, 51, 102, 255]
        pixels = np.array([[0, 1, 2, 3]], np.uint8)
        for syntax, order in self.SYNTAXES:
            words = np.array(entries, f"{order}u2").tobytes()
            packed = np.array(entries, np.uint8).tobytes()
            packed = packed if order == "<" else np.frombuffer(packed, "<u2").astype(">u2").tobytes()
            for name, data in (("words", words), ("packed", packed)):
                item = table(data, 0, 8, "OW")
                item.LUTDescriptor = [4, 0, 8]
                for elements in (
                    palette([data] * 3, 8, 4),
                    {"VOILUTSequence": [item]},
                    {"ModalityLUTSequence": [item]},
                ):
                    with self.subTest(name, syntax=syntax.name, element=list(elements)[-1]):
                        self.assert_shown(self.read(pixels, syntax=syntax, **elements)[:1], RISING)

    def test_a_descriptor_of_more_bits_than_the_entries_use_is_told(self):
        # C.11.2.1.1: the third value "specifies the number of bits for each entry in the LUT Data", so one is wrong
        data = np.array([0, 51, 102, 255], "<u2").tobytes()
        for elements in (palette([data] * 3, 16, 4), {"VOILUTSequence": [table(data, 0, 16, "OW")]}):
            with self.subTest(element=list(elements)[-1]):
                self.read(np.array([[0, 1, 2, 3]], np.uint8), **elements)
                self.assertIn("16 bits by its descriptor contradicts its entries of 8", self.meta["display_note"])

    def test_inputs_beyond_a_table(self):
        # C.11.1.1: "All input values less than the first value mapped are also mapped to the first entry ... Input
        # values greater than or equal to number of entries + first value mapped are also mapped to the last entry"
        pixels = np.array([[0, 4, 5, 200]], np.uint8)
        data = np.array([10, 255], "<u2").tobytes()
        shown = [[[10 / 255, 10 / 255, 1, 1]]]
        self.assert_shown(self.read(pixels, VOILUTSequence=[table([10, 255], 4, 8)]), shown)
        self.assert_shown(self.read(pixels, **palette([data] * 3, 8, 2, first=4)), shown * 3)

    def test_more_indices_than_entries_have_values(self):
        # 16-bit pixels beyond a palette of 256 entries of 8 bits: the last entry, not a number that wraps around
        data = bytes(range(256))
        values = self.read(np.array([[0, 255, 256, 300]], np.uint16), **palette([data] * 3, 8, 256))
        self.assert_shown(values[:1], [[[0, 1, 1, 1]]])

    def test_0_entries_stand_for_65536(self):
        # C.11.1.1: "When the number of table entries is equal to 2^16 then this value shall be 0."
        ramp = np.arange(2**16, dtype="<u2").tobytes()
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [0, 0, 16])
        item.add_new("LUTData", "OW", ramp)
        pixels = np.array([[0, 13107, 26214, 65535]], np.uint16)
        self.assert_shown(self.read(pixels, VOILUTSequence=[item]), RISING)

    def test_the_first_value_mapped_may_be_negative(self):
        # C.11.2.1.1: the VR of the second value is SS where the input is signed; writers take US all the same
        pixels = np.array([[-2, -1, 0, 1]], np.int16)
        for first, vr in ((-2, "SS"), (65534, "US")):
            for elements in ("VOILUTSequence", "ModalityLUTSequence"):
                item = table([0, 51, 102, 255], 0, 8)
                item.add_new("LUTDescriptor", vr, [4, first, 8])
                self.assert_shown(self.read(pixels, **{elements: [item]}), RISING)

    def test_a_modality_lut_without_window_is_shown_over_what_it_holds(self):
        # C.11.1: the LUT's output is what later steps take; a descriptor of 16 bits over 10-bit entries is common in CR
        entries = list(range(1024))
        pixels = np.array([[0, 1023]], np.uint16)
        for photometric, shown in (("MONOCHROME2", [[[0, 1]]]), ("MONOCHROME1", [[[1, 0]]])):
            item = table(entries, 0, 16)
            elements = {"PhotometricInterpretation": photometric, "BitsStored": 10, "ModalityLUTSequence": [item]}
            self.assert_shown(self.read(pixels, **elements), shown)

    def test_an_item_without_entries_is_an_absent_one(self):
        blank, emptied = Dataset(), Dataset()
        for keyword, vr in (("LUTDescriptor", "US"), ("LUTExplanation", "LO"), ("LUTData", "OW")):
            emptied.add_new(keyword, vr, None)
        described = Dataset()
        described.add_new("LUTDescriptor", "US", [4, 0, 16])
        window = {"WindowCenter": 51, "WindowWidth": 1}
        for item in (blank, emptied, described):
            for sequence in ("ModalityLUTSequence", "VOILUTSequence"):
                self.assert_shown(self.read(**{sequence: Sequence([item])}), RISING)
                self.assert_shown(self.read(**{sequence: Sequence([item])}, **window), [[[0, 1, 1, 1]]])
        rescale = {"RescaleSlope": "-1", "RescaleIntercept": "0"}
        self.assert_shown(self.read(ModalityLUTSequence=Sequence([blank]), **rescale), 1 - RISING)
        self.assert_shown(self.read(ModalityLUTSequence=Sequence([])), RISING)

    def test_a_short_table(self):
        # a VOI LUT is a hint for the display, a Modality LUT the meaning of the values
        item = table([0, 255], 0, 16)
        item.LUTDescriptor = [4, 0, 16]
        self.assert_shown(self.read(VOILUTSequence=[item]), RISING, "VOI LUT not applied, .* hold 4 entries, got 2")
        with self.assertRaisesRegex(UnreadableImageError, "LUTData must hold 4 entries, got 2"):
            self.read(ModalityLUTSequence=[item])

    def test_segments_of_a_palette(self):
        # C.7.9.2.3: "The opcode is followed by the number of segments to copy and one offset pointer to the first
        # segment to copy. The byte offset is relative to the beginning of the lookup table." "The offset is a 32 bit
        # value but is stored in the segment as a least significant 16 bit value followed by a most significant 16 bit
        # value."
        pixels = np.arange(8, dtype=np.uint8)[None]
        segments = [0, 2, 0, 13107, 1, 2, 65535, 2, 2, 0, 0]  # 0, 0.2, then 0.6, 1, then the four again
        shown = [[[0, 0.2, 0.6, 1, 0, 0.2, 0.6, 1]]]
        for syntax, order in self.SYNTAXES:
            data = np.array(segments, f"{order}u2").tobytes()
            values = self.read(pixels, syntax=syntax, **palette([data] * 3, 16, 8, segmented=True))
            np.testing.assert_allclose(values[:1], shown, atol=1e-4)

    def test_a_palette_of_low_entries_stays_dark(self):
        # C.7.6.3.1.6: "Palette color values must always be scaled across the full range of available intensities."
        data = np.array([0, 255], "<u2").tobytes()
        values = self.read(np.array([[0, 1]], np.uint8), **palette([data] * 3, 16, 2))
        self.assert_shown(values[:1], [[[0, 255 / 65535]]], "contradicts its entries of 8")

    def test_a_supplemental_palette_is_said(self):
        self.assert_shown(self.read(PixelPresentation="COLOR"), RISING, "supplemental palette not applied")


class TestStoredValues(StandardCase):
    def test_padding_is_black_in_either_polarity(self):
        # C.7.5.1.1.2: padding is "to be excluded from the normal grayscale rendering pipeline"
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            values = self.read(PhotometricInterpretation=photometric, PixelPaddingValue=255, PixelPaddingRangeLimit=102)
            self.assertEqual(values[0, 0, 2:].tolist(), [0, 0])

    def test_a_plane_at_a_time(self):
        # C.7.6.3.1.3, 1: "Each color plane shall be encoded contiguously."
        color = np.array([[[0, 51, 102], [255, 0, 51]]], np.uint8)
        planes = np.ascontiguousarray(np.moveaxis(color, -1, 0)).reshape(color.shape)
        self.assert_shown(self.read(planes, color=True, PlanarConfiguration=1), np.moveaxis(color, -1, 0) / 255)
        for wrong in (None, 2):
            with self.assertRaisesRegex(UnreadableImageError, "PlanarConfiguration must be 0 or 1 in uncompressed"):
                self.read(color, color=True, PlanarConfiguration=wrong)


if __name__ == "__main__":
    unittest.main()
