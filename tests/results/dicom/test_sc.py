# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import unittest

import numpy as np
import pydicom

from bundle.results import NOTICE, ResultsWriter
from bundle.results.dicom.sc import write_sc
from bundle.results.dicom.source import load_source
from bundle.results.overlays import draw_words, overlay_picture, words_fit
from tests.results.dicom.test_dicom_results import (
    ALGORITHM,
    COMPUTED_RADIOGRAPHY,
    PATIENT,
    RUN,
    VALIDATOR,
    InFolder,
    some_result,
    validator_errors,
)
from tests.synthetic_dicom import save_dicom

KEPT = {
    "StudyDescription": "Chest pa",
    "PatientAge": "055Y",
    "PatientSize": 1.75,
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "names replaced by a test",
    "BodyPartExamined": "CHEST",
}


class TestSecondaryCapture(InFolder):
    def image(self, rows: int, columns: int, **elements) -> pydicom.Dataset:
        pixels = np.random.default_rng(0).integers(0, 4095, (rows, columns), dtype=np.uint16)
        usual = {**PATIENT, "SOPClassUID": COMPUTED_RADIOGRAPHY, "Modality": "CR", "PatientOrientation": ["L", "F"]}
        path = save_dicom(self.folder / "cr.dcm", pixels, **{**usual, **elements})
        self.result = some_result(path)
        write_sc(self.folder / "sc.dcm", self.result, load_source(path, 0, ALGORITHM, RUN), (0, 1))
        return pydicom.dcmread(self.folder / "sc.dcm")

    def test_picture_of_the_overlay(self):
        capture = self.image(240, 320, PixelSpacing=[0.5, 0.25])
        self.assertEqual((capture.Rows, capture.Columns, capture.PhotometricInterpretation), (240, 320, "RGB"))
        expected = overlay_picture(self.result, (0, 1))
        draw_words(expected, [NOTICE], top=False)
        np.testing.assert_array_equal(capture.pixel_array, np.asarray(expected))
        source = pydicom.dcmread(self.folder / "cr.dcm")
        self.assertEqual(capture.SourceImageSequence[0].ReferencedSOPInstanceUID, source.SOPInstanceUID)
        self.assertIn(NOTICE, capture.DerivationDescription)
        self.assertEqual(list(capture.PixelSpacing), [0.5, 0.25])

    def test_the_spacing_of_the_detector_where_there_is_no_other(self):
        self.assertEqual(list(self.image(240, 320, ImagerPixelSpacing=[0.2, 0.2]).PixelSpacing), [0.2, 0.2])
        self.assertNotIn("PixelSpacing", self.image(240, 320))

    def test_a_small_picture_is_enlarged_until_the_notice_fits(self):
        for rows, columns in ((60, 80), (20, 30), (8, 200), (200, 8)):
            with self.subTest(rows=rows, columns=columns):
                capture = self.image(rows, columns, PixelSpacing=[0.5, 0.25])
                factor = capture.Rows // rows
                self.assertEqual((capture.Rows, capture.Columns), (rows * factor, columns * factor))
                self.assertGreater(factor, 1)
                self.assertTrue(words_fit(capture.Columns, capture.Rows, [NOTICE]))
                self.assertFalse(words_fit(columns * (factor - 1), rows * (factor - 1), [NOTICE]))
                np.testing.assert_allclose([float(s) for s in capture.PixelSpacing], [0.5 / factor, 0.25 / factor])
                # the upper half has no words: each source pixel is a square there
                upper = capture.pixel_array[: capture.Rows // 2 // factor * factor]
                plain = np.asarray(overlay_picture(self.result, (0, 1)))[: len(upper) // factor]
                np.testing.assert_array_equal(upper, plain.repeat(factor, axis=0).repeat(factor, axis=1))
                if VALIDATOR:
                    known = validator_errors(self.folder / "cr.dcm")
                    self.assertEqual(validator_errors(self.folder / "sc.dcm") - known, set())

    def test_what_is_known_of_patient_and_study_stays(self):
        capture = self.image(240, 320, **KEPT)
        self.assertEqual({keyword: capture.get(keyword) for keyword in KEPT}, KEPT)

    def test_laterality(self):
        # PS3.3 C.7.3.1, type 2C; PS3.16 Annex L: a chest is no paired structure, a breast is one
        self.assertEqual(self.image(240, 320, Laterality="R").Laterality, "R")
        self.assertEqual(self.image(240, 320, ImageLaterality="L").ImageLaterality, "L")
        self.assertEqual(self.image(240, 320, BodyPartExamined="BREAST").Laterality, "")
        self.assertNotIn("Laterality", self.image(240, 320, BodyPartExamined="CHEST"))

    @unittest.skipIf(shutil.which("dcm2pnm") is None, "dcmtk is missing (apt-get install dcmtk)")
    def test_dcmtk_shows_every_image(self):
        path = self.radiograph(BodyPartExamined="CHEST")
        with ResultsWriter(self.folder / "out", ("seg", "heat", "sc"), threshold=0.5) as writer:
            writer.add(some_result(path))
        for kind in ("seg", "heat", "sc"):
            with self.subTest(kind):
                file, picture = self.folder / "out" / "dicom" / f"cr.dcm_0_{kind}.dcm", self.folder / f"{kind}.ppm"
                done = subprocess.run(["dcm2pnm", file, picture], capture_output=True, text=True, check=False)
                self.assertEqual((done.returncode, "E:" in done.stderr), (0, False), done.stderr)
                header = picture.read_bytes().split(b"\n", 2)
                capture = pydicom.dcmread(file)
                self.assertEqual(header[1].decode().split(), [str(capture.Columns), str(capture.Rows)])
                if kind == "sc":  # PPM: red, green, blue of each pixel
                    pixels = picture.read_bytes()[-capture.Rows * capture.Columns * 3 :]
                    self.assertEqual(pixels, capture.pixel_array.tobytes())
