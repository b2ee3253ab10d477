# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The content of a report against PS3.16 TID 1500 and what it includes, read by pydicom alone."""

from __future__ import annotations

import shutil
import subprocess
import unittest
from collections.abc import Iterator

import numpy as np
import pydicom

from bundle.results import ImageResult, ResultsWriter
from bundle.results.dicom.source import load_source
from bundle.results.dicom.sr import read_boxes_from_sr, write_sr
from tests.results.dicom.test_dicom_results import ALGORITHM, RUN, InFolder, some_result

VIEWS = {"BodyPartExamined": "CHEST", "ViewPosition": "PA"}
# concept names: value type, relationship to what holds them. PS3.16 TID 1500, 1004, 1600 to 1603, 1501, 1410, 4019
DOCUMENT = {
    "121049": ("CODE", "HAS CONCEPT MOD"),  # Language of Content Item and Descendants
    "121005": ("CODE", "HAS OBS CONTEXT"),  # Observer Type
    "121012": ("UIDREF", "HAS OBS CONTEXT"),  # Device Observer UID
    "121013": ("TEXT", "HAS OBS CONTEXT"),  # Device Observer Name
    "121014": ("TEXT", "HAS OBS CONTEXT"),  # Device Observer Manufacturer
    "121015": ("TEXT", "HAS OBS CONTEXT"),  # Device Observer Model Name
    "121016": ("TEXT", "HAS OBS CONTEXT"),  # Device Observer Serial Number
    "121058": ("CODE", "HAS CONCEPT MOD"),  # Procedure reported
    "111028": ("CONTAINER", "CONTAINS"),  # Image Library
    "126010": ("CONTAINER", "CONTAINS"),  # Imaging Measurements
}
LIBRARY = {
    "121139": ("CODE", "HAS ACQ CONTEXT"),  # Modality
    "123014": ("CODE", "HAS ACQ CONTEXT"),  # Target Region
    "110910": ("NUM", "HAS ACQ CONTEXT"),  # Pixel Data Rows
    "110911": ("NUM", "HAS ACQ CONTEXT"),  # Pixel Data Columns
    "111044": ("TEXT", "HAS ACQ CONTEXT"),  # Patient Orientation Row
    "111043": ("TEXT", "HAS ACQ CONTEXT"),  # Patient Orientation Column
    "111026": ("NUM", "HAS ACQ CONTEXT"),  # Horizontal Pixel Spacing
    "111066": ("NUM", "HAS ACQ CONTEXT"),  # Vertical Pixel Spacing
}
GROUP = {
    "112039": ("TEXT", "HAS OBS CONTEXT"),  # Tracking Identifier
    "112040": ("UIDREF", "HAS OBS CONTEXT"),  # Tracking Unique Identifier
    "121071": ("CODE", "CONTAINS"),  # Finding
    "363698007": ("CODE", "HAS CONCEPT MOD"),  # Finding Site
    "111001": ("TEXT", "HAS CONCEPT MOD"),  # Algorithm Name
    "111003": ("TEXT", "HAS CONCEPT MOD"),  # Algorithm Version
    "111002": ("TEXT", "HAS CONCEPT MOD"),  # Algorithm Parameters
    "111000": ("CODE", "HAS CONCEPT MOD"),  # Algorithm Family
}
IMAGE = {"121112": ("IMAGE", "CONTAINS")}  # Source of Measurement
SCORES = {name: ("NUM", "CONTAINS") for name in ("ANOMALY_SCORE", "P_VALUE", "THRESHOLD")}
VERDICT = {"ABOVE_THRESHOLD": ("CODE", "CONTAINS")}
PROBABILITY = {"122157": ("NUM", "CONTAINS"), "121052": ("CODE", "CONTAINS")}  # with Presence of property
POINT = {"OPERATING_POINT": ("NUM", "CONTAINS")}
REGION = {"111030": ("SCOORD", "CONTAINS")}  # Image Region
SEGMENT = {"121214": ("IMAGE", "CONTAINS"), "121233": ("IMAGE", "CONTAINS")}  # TID 1410: the frame and its source


def name_of(item: pydicom.Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def children(item: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    return [child for child in item.ContentSequence if name_of(child) == name]


def shape(item: pydicom.Dataset) -> dict[str, tuple[str, str]]:
    return {name_of(child): (child.ValueType, child.RelationshipType) for child in item.ContentSequence}


def walk(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    yield item
    for child in item.get("ContentSequence") or []:
        yield from walk(child)


class InReport(InFolder):
    def report(self, formats: tuple[str, ...] = ("sr", "seg"), **fields) -> pydicom.Dataset:
        path = self.radiograph(**VIEWS)
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        with ResultsWriter(out, formats, algorithm=ALGORITHM, threshold=0.5) as writer:
            writer.add(ImageResult(**{**vars(some_result(path)), **fields}))
        self.file = out / "dicom" / "cr.dcm_0_sr.dcm"
        return pydicom.dcmread(self.file)

    def groups(self, report: pydicom.Dataset) -> dict[str, pydicom.Dataset]:
        (measurements,) = children(report, "126010")
        return {children(group, "112039")[0].TextValue: group for group in measurements.ContentSequence}


class TestContent(InReport):
    def test_names_types_and_relationships(self):
        report = self.report(operating_points={"Effusion": 0.25})
        (template,) = report.ContentTemplateSequence
        self.assertEqual((template.TemplateIdentifier, template.MappingResource), ("1500", "DCMR"))
        self.assertEqual(shape(report), DOCUMENT)
        (group,) = children(report, "111028")[0].ContentSequence
        self.assertEqual(name_of(group), "126200")  # Image Library Group
        (image,) = group.ContentSequence
        self.assertEqual(shape(image), LIBRARY)
        found = {name: shape(group) for name, group in self.groups(report).items()}
        expected = {
            "image": GROUP | SCORES | VERDICT | IMAGE,
            "image, Effusion": GROUP | PROBABILITY | POINT | IMAGE,
            "image, Under bus": GROUP | PROBABILITY | IMAGE,
            "region 1": GROUP | REGION | {"MAP_HEIGHT": ("NUM", "CONTAINS")},
            "region 2": GROUP | REGION | {"MAP_HEIGHT": ("NUM", "CONTAINS")},
            "heat above 0.5": GROUP | SEGMENT,
        }
        self.assertEqual(found, expected)

    def test_units(self):
        report = self.report(operating_points={"Effusion": 0.25})
        units = {
            name_of(item): item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
            for item in walk(report)
            if item.get("ValueType") == "NUM"
        }
        self.assertEqual({units.pop("110910"), units.pop("110911")}, {"{pixels}"})  # TID 1602: UCUM
        self.assertEqual({units.pop("111026"), units.pop("111066")}, {"mm"})
        self.assertEqual(set(units.values()), {"1"})

    def test_containers_are_separate(self):
        containers = [item for item in walk(self.report()) if item.get("ValueType") == "CONTAINER"]
        self.assertEqual({item.ContinuityOfContent for item in containers}, {"SEPARATE"})
        self.assertGreater(len(containers), 6)

    def test_every_reference_is_in_the_evidence(self):
        report = self.report()
        evidence = {
            item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        references = [item.ReferencedSOPSequence[0] for item in walk(report) if item.get("ValueType") == "IMAGE"]
        named = {item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID for item in references}
        self.assertEqual(named, evidence)
        segmentation = pydicom.dcmread(self.file.with_name("cr.dcm_0_seg.dcm"))
        source = pydicom.dcmread(self.folder / "cr.dcm")
        self.assertEqual(evidence, {i.SOPInstanceUID: i.SOPClassUID for i in (segmentation, source)})
        group = self.groups(report)["heat above 0.5"]
        (segment,) = segmentation.SegmentSequence
        self.assertEqual(children(group, "112040")[0].UID, segment.TrackingUID)
        self.assertEqual(children(group, "112039")[0].TextValue, segment.TrackingID)
        (frame,) = children(group, "121214")[0].ReferencedSOPSequence
        self.assertEqual(frame.ReferencedFrameNumber, 1)

    def test_sites(self):
        groups = self.groups(self.report(probabilities={"Effusion left": 0.5, "Under bus right": 0.5}, boxes=[]))
        sites = {name: children(group, "363698007")[0] for name, group in groups.items()}
        side = {
            name: [i.ConceptCodeSequence[0].CodeMeaning for i in s.get("ContentSequence", [])]
            for name, s in sites.items()
        }
        # PS3.16 CID 4030 and Annex L: pleura 3120008, chest 816094009
        place = {name: site.ConceptCodeSequence[0].CodeValue for name, site in sites.items()}
        self.assertEqual((place["image, Effusion left"], side["image, Effusion left"]), ("3120008", ["Left"]))
        self.assertEqual((place["image, Under bus right"], side["image, Under bus right"]), ("816094009", ["Right"]))
        self.assertEqual((place["image"], side["image"]), ("816094009", []))


class TestMapRegions(InReport):
    def heat(self) -> np.ndarray:
        heat = np.zeros((60, 80), dtype=np.float32)
        heat[10:20, 30:50], heat[40:45, 5:8], heat[30, 30] = 0.75, 0.9, 0.5
        return heat

    def test_each_part_above_the_threshold_hottest_first(self):
        report = self.report(heatmap=self.heat(), boxes=[], probabilities={})
        # columns and rows of the two rectangles above, the right and lower edge one past the last pixel
        corners = [list(item.GraphicData) for item in walk(report) if item.get("ValueType") == "SCOORD"]
        self.assertEqual(corners, [[5, 40, 8, 40, 8, 45, 5, 45, 5, 40], [30, 10, 50, 10, 50, 20, 30, 20, 30, 10]])
        self.assertEqual(read_boxes_from_sr(self.file), [])  # the result has none
        peaks = [
            round(float(children(group, "MAP_PEAK")[0].MeasuredValueSequence[0].NumericValue), 6)
            for name, group in self.groups(report).items()
            if name.startswith("map region")
        ]
        self.assertEqual(peaks, [0.9, 0.75])

    def test_no_regions_without_an_abnormal_verdict(self):
        for fields in ({"abnormal": False}, {"not_assessed": "values must differ, all are 7."}):
            groups = self.groups(self.report(heatmap=self.heat(), boxes=[], probabilities={}, **fields))
            self.assertEqual(set(groups), {"image", "heat above 0.5"})
            finding = children(groups["heat above 0.5"], "121071")[0].ConceptCodeSequence[0]
            self.assertEqual(finding.CodeValue, "111099")  # PS3.16 Annex D: Selected region

    def test_no_reference_to_a_mask_that_is_empty_or_not_written(self):
        for formats, heat in ((("sr",), self.heat()), (("sr", "seg"), np.zeros((60, 80)))):
            report = self.report(formats, heatmap=heat, boxes=[], probabilities={})
            self.assertNotIn("heat above 0.5", self.groups(report))
            self.assertNotIn("1.2.840.10008.5.1.4.1.1.66.4", [str(e.value) for e in report.iterall()])

    def test_ten_regions_at_most(self):
        heat = np.zeros((60, 80), dtype=np.float32)
        heat[::4, ::4] = 1
        report = self.report(heatmap=heat, boxes=[], probabilities={})
        self.assertEqual(sum(item.get("ValueType") == "SCOORD" for item in walk(report)), 10)


@unittest.skipIf(shutil.which("dsr2html") is None, "dcmtk is missing (apt-get install dcmtk)")
class TestDcmtk(InReport):
    def run_tool(self, *command: str) -> str:
        done = subprocess.run([*command, self.file], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, [w for w in done.stderr.splitlines() if w.startswith("E:")]), (0, []))
        return done.stdout

    def test_dsrdump_reads_every_item(self):
        report = self.report()
        lines = [line for line in self.run_tool("dsrdump").splitlines() if line.lstrip().startswith("<")]
        self.assertEqual(len(lines), sum(1 for item in walk(report) if "ValueType" in item))

    def test_dsr2html_shows_names(self):
        self.report(operating_points={"Effusion": 0.25})
        page = self.run_tool("dsr2html")
        for words in ("Anomaly score", "Probability", "Presence of property", "Finding Site", "Pixel Data Rows"):
            self.assertIn(words, page)


class TestWithoutAPlace(InFolder):
    def test_a_source_that_says_nothing_has_a_library_and_no_site(self):
        path = self.radiograph(PatientOrientation=None, PixelSpacing=None, Modality="ZZ")
        write_sr(self.folder / "sr.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN))
        report = pydicom.dcmread(self.folder / "sr.dcm")
        (image,) = children(report, "111028")[0].ContentSequence[0].ContentSequence
        self.assertEqual(set(shape(image)), {"110910", "110911"})
        sites = [item for item in walk(report) if item.get("ConceptNameCodeSequence") and name_of(item) == "363698007"]
        self.assertEqual([s.ConceptCodeSequence[0].CodeValue for s in sites], ["3120008", "3120008"])  # of the effusion
