# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import pydicom

from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES
from bundle.lists.known_sets.vindr import VINDR_CLASSES, VINDR_EXTRA_CLASSES
from bundle.results import ImageResult
from bundle.results.dicom.codes import derived_code, finding_code, private_code
from bundle.results.dicom.findings import coded_finding, side_of
from bundle.results.dicom.source import load_source
from bundle.results.dicom.sr import write_sr
from tests.results.dicom.test_dicom_results import ALGORITHM, RUN, InFolder, some_result

PRIVATE = "99AIBUNDLE"


class TestFindingCode(unittest.TestCase):
    def test_public_codes(self):
        # docs/results-format.md says where each was read
        for labels, code in {
            ("Atelectasis", "lung collapse"): ("46621007", "SCT"),
            ("Cardiomegaly",): ("8186001", "SCT"),
            ("Consolidation",): ("95436008", "SCT"),
            ("Edema", "Pulmonary oedema"): ("19242006", "SCT"),
            ("Emphysema",): ("87433001", "SCT"),
            ("Fibrosis", "Pulmonary fibrosis"): ("51615001", "SCT"),
            ("Infiltration",): ("112121", "DCM"),
            ("Mass", "lung_mass"): ("4147007", "SCT"),
            ("Nodule",): ("27925004", "SCT"),
            ("Lung Opacity", "opacity"): ("112001", "DCM"),
            ("Effusion", "Pleural effusion", "pleural_effusion", " PLEURAL-EFFUSION ", "left effusion"): (
                "60046008",
                "SCT",
            ),
            ("Pneumonia",): ("233604007", "SCT"),
            ("Pneumothorax", "Pneumothorax right"): ("36118008", "SCT"),
        }.items():
            for label in labels:
                with self.subTest(label):
                    found = finding_code(label)
                    self.assertEqual((found.value, found.scheme_designator), code)

    def test_what_the_known_sets_leave_private(self):
        labels = {*CHESTXRAY14_CLASSES, *VINDR_CLASSES, *VINDR_EXTRA_CLASSES}
        private = {label for label in labels if finding_code(label).scheme_designator == PRIVATE}
        self.assertTrue({"Pleural_Thickening", "Pleural thickening", "Hernia", "ILD", "Nodule/Mass"} <= private)
        self.assertFalse({"Atelectasis", "Effusion", "Pulmonary fibrosis", "Lung Opacity", "Edema"} & private)

    def test_private_values_do_not_collide(self):
        labels = ("Pleural thickening left", "Pleural thickening right", "Pleural_thickening", "pleural thickening")
        labels += ("a" * 70 + "b", "a" * 70 + "c", "Läsion", "Lasion", "病变", "异常", "", " ", "_")
        values = [finding_code(label).value for label in labels]
        values += [derived_code("map", label, label).value for label in labels]
        values.append(private_code("MAP_HEIGHT", "Height of the map").value)
        self.assertEqual(len(set(values)), len(values))
        for value in values:
            self.assertRegex(value, "[A-Z0-9_]{1,16}")  # PS3.5 6.2: SH
        self.assertEqual(len(finding_code(labels[4]).meaning), 64)  # PS3.5 6.2: LO
        with self.assertRaisesRegex(ValueError, "shorter than 16 characters, got 'SIXTEEN_LETTERS_'"):
            private_code("SIXTEEN_LETTERS_", "")

    def test_sides(self):
        self.assertEqual(side_of("Effusion, left").value, "7771000")  # PS3.16 CID 244
        self.assertEqual(side_of("Right_Effusion").value, "24028007")
        self.assertIsNone(side_of("left"))
        self.assertIsNone(side_of("leftover"))
        self.assertEqual(coded_finding("left effusion").site.value, "3120008")


class TestPrivateScheme(InFolder):
    def declared(self, probabilities: dict[str, float]) -> list:
        path = self.radiograph()
        result = ImageResult("a", path, probabilities=probabilities)
        write_sr(self.folder / "sr.dcm", result, load_source(path, 0, ALGORITHM, RUN))
        return list(pydicom.dcmread(self.folder / "sr.dcm").get("CodingSchemeIdentificationSequence") or [])

    def test_is_declared_where_it_is_used(self):
        (scheme,) = self.declared({"Under bus": 0.5})  # PS3.3 C.12.1.1.1
        self.assertEqual(scheme.CodingSchemeDesignator, PRIVATE)
        self.assertTrue(scheme.CodingSchemeName)
        self.assertTrue(scheme.CodingSchemeResponsibleOrganization)
        self.assertEqual(self.declared({"Mass": 0.5}), [])

    def test_a_report_tells_two_sides_apart(self):
        path = self.radiograph()
        result = some_result(path)
        result.probabilities = {"Pleural thickening left": 0.5, "Pleural thickening right": 0.25}
        result.boxes = []
        write_sr(self.folder / "sr.dcm", result, load_source(path, 0, ALGORITHM, RUN))
        report = pydicom.dcmread(self.folder / "sr.dcm")
        values = [e.value for e in report.iterall() if e.keyword == "CodeValue" and len(e.value) == 16]
        self.assertEqual(values, [finding_code(label).value for label in result.probabilities])
