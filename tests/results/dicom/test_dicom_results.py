# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import unittest
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from pydicom.uid import generate_uid

from bundle.localization.boxes import boxes_from_heatmaps
from bundle.preprocessing.geometry import CropToRegion, CropUniformBorder, ResizeAndPad
from bundle.reading.dicom.quiet import quiet_dicom
from bundle.reading.reader import RadiologyReader
from bundle.results import FORMATS, Algorithm, Box, ImageResult, NotWrittenError, Progress, ResultsWriter
from bundle.results.dicom.sc import write_sc
from bundle.results.dicom.seg import write_binary_seg, write_heat_seg
from bundle.results.dicom.source import load_source
from bundle.results.dicom.sr import read_boxes_from_sr, write_sr
from bundle.results.run_record import RunIdentity
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "cxr_samples"
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
ALGORITHM = Algorithm("trial", "0.1.0", "ab" * 32, {"k": 3})
UNDETERMINED = {"Presence of property": ("373068000", "SCT")}  # PS3.16 CID 240
FIXED = "2026-03-04T05:06:07+00:00"
RUN = RunIdentity(datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc), "run 1", "cd" * 32)
PATIENT = {
    "PatientName": "Trial^Synthetic",
    "PatientID": "P-1",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
    "SeriesInstanceUID": generate_uid(entropy_srcs=["series"]),
    "StudyDate": "20260101",
    "StudyTime": "120000",
    "StudyID": "1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "InstanceNumber": 3,
}
VALIDATOR = shutil.which("dciodvfy")
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"


def validator_errors(path: Path) -> set[str]:
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def _code(item: pydicom.Dataset) -> tuple[str, str]:
    return str(item.CodeValue), str(item.CodingSchemeDesignator)


def _meaning(item: pydicom.Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""


def some_result(path: Path, frame: int = 0) -> ImageResult:
    """Return a result with made-up heat, on the pixels as our reader gives them."""
    reader = RadiologyReader()
    values, meta = reader.get_data(reader.read(f"{path}#frame={frame}"))
    rows, columns = values.shape[1:]
    heat = np.zeros((rows, columns), dtype=np.float32)
    heat[rows // 4 : rows // 2, columns // 4 : columns // 2] = 0.75
    return ImageResult(
        key=f"{path.name}_{frame}",
        source=path,
        frame=frame,
        probabilities={"Effusion": 0.25, "Under bus": 0.5},
        anomaly_score=0.75,
        p_value=0.0123,
        abnormal=True,
        heatmap=heat,
        boxes=[
            Box("anomaly", columns / 4, rows / 4, columns / 4, rows / 4, 0.75),
            Box("Effusion", 0, 0, 9.5, 7.25, 0.5),
        ],
        image=np.moveaxis(values, 0, -1).squeeze(),
        spacing=tuple(meta["spacing"]),
    )


class InFolder(FolderTestCase):
    def radiograph(self, **elements) -> Path:
        pixels = np.random.default_rng(0).integers(0, 4095, (60, 80), dtype=np.uint16)
        usual = {
            **PATIENT,
            "SOPClassUID": COMPUTED_RADIOGRAPHY,
            "Modality": "CR",
            "PatientOrientation": ["L", "F"],
            "PixelSpacing": [0.5, 0.25],
        }
        return save_dicom(self.folder / "cr.dcm", pixels, **{**usual, **elements})


class TestStructuredReport(InFolder):
    def test_what_is_said(self):
        path = self.radiograph()
        write_sr(self.folder / "sr.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN), threshold=0.5)
        document = highdicom.sr.srread(self.folder / "sr.dcm")
        source = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
            self.assertEqual(document[keyword].value, source[keyword].value)
        self.assertEqual(document.SeriesDescription, "AI findings, research use only, not for diagnosis")
        self.assertEqual((document.CompletionFlag, document.VerificationFlag), ("COMPLETE", "UNVERIFIED"))
        text = document.to_json()
        for words in (
            "weights_sha256=" + "ab" * 32,
            "k=3",
            "Pleural effusion",
            "Under bus",
            "0.0123",
            source.SOPInstanceUID,
        ):
            self.assertIn(words, text)
        groups = document.content.get_image_measurement_groups()
        self.assertEqual(
            [float(m.value) for group in groups for m in group.get_measurements()], [0.75, 0.0123, 0.5, 0.25, 0.5]
        )

    def test_boxes_come_back_and_stay_in_the_image(self):
        path = self.radiograph()
        result = some_result(path)
        result.boxes = [Box("Mass", 10.25, 20.5, 30.125, 5, 0.5), Box("Mass", 70, 50, 100, 100, 0.25)]
        write_sr(self.folder / "sr.dcm", result, load_source(path, 0, ALGORITHM, RUN))
        self.assertEqual(
            read_boxes_from_sr(self.folder / "sr.dcm"), [result.boxes[0], Box("Mass", 70, 50, 10, 10, 0.25)]
        )

    def test_frame_counts_from_one(self):
        path = PYDICOM / "examples_ybr_color.dcm"
        write_sr(self.folder / "sr.dcm", some_result(path, 17), load_source(path, 17, ALGORITHM, RUN))
        document = highdicom.sr.srread(self.folder / "sr.dcm")
        (first, _) = document.content.get_planar_roi_measurement_groups()
        selected = first[0].ContentSequence[2]
        self.assertIn("Referenced Frame Number             IS: '18'", str(first.roi or selected))

    def test_only_tid_1500_is_read(self):
        path = self.radiograph()
        write_sr(self.folder / "sr.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN))
        dataset = pydicom.dcmread(self.folder / "sr.dcm")
        dataset.ContentTemplateSequence[0].TemplateIdentifier = "2000"
        dataset.save_as(self.folder / "other.dcm")
        with self.assertRaisesRegex(ValueError, "TID 1500 measurement report, got"):
            read_boxes_from_sr(self.folder / "other.dcm")


class TestFindings(InFolder):
    """What a report calls present or absent, read without our code or highdicom's."""

    def groups(self, **fields) -> tuple[dict[str, tuple[dict[str, str], dict[str, float]]], list[str], int]:
        """Return by finding its answers and its numbers, then all comments, and how many regions there are."""
        path = self.radiograph()
        result = ImageResult(**{**vars(some_result(path)), **fields})
        write_sr(self.folder / "sr.dcm", result, load_source(path, 0, ALGORITHM, RUN), threshold=0.5)
        report = pydicom.dcmread(self.folder / "sr.dcm")
        container = next(i for i in report.ContentSequence if _meaning(i) == "Imaging Measurements")
        found, comments, regions = {}, [], 0
        for group in container.ContentSequence:
            items = list(group.ContentSequence)
            comments += [i.TextValue for i in items if _meaning(i) == "Comment"]
            if any(i.ValueType == "SCOORD" for i in items):
                regions += 1
                continue
            finding = next(i for i in items if _meaning(i) in ("Finding", "Finding Type"))
            answers = {
                _meaning(i): _code(i.ConceptCodeSequence[0])
                for i in items
                if i.ValueType == "CODE" and i.RelationshipType == "CONTAINS"
            }
            answers.pop("Finding", None)
            numbers = {
                _meaning(i): float(i.MeasuredValueSequence[0].NumericValue) for i in items if i.ValueType == "NUM"
            }
            found[finding.ConceptCodeSequence[0].CodeMeaning] = (answers, numbers)
        return found, comments, regions

    def test_present_and_absent_with_probability_and_operating_point(self):
        found, _, regions = self.groups(operating_points={"Effusion": 0.25, "Under bus": 0.75})
        # PS3.16 CID 240: (52101004, SCT, "Present"), (272519000, SCT, "Absent"); Annex D: (121052, DCM, "Presence of
        # property"). A probability at the operating point is present
        self.assertEqual(
            found["Pleural effusion"],
            (
                {"Presence of property": ("52101004", "SCT")},
                {"Probability": 0.25, "Probability from which it is present": 0.25},
            ),
        )
        self.assertEqual(found["Under bus"][0], {"Presence of property": ("272519000", "SCT")})
        self.assertEqual(found["Under bus"][1], {"Probability": 0.5, "Probability from which it is present": 0.75})
        self.assertEqual(regions, 2)

    def test_a_region_of_an_absent_finding_is_not_told(self):
        _, _, regions = self.groups(operating_points={"Effusion": 0.5, "Under bus": 0.5})
        self.assertEqual(regions, 1)
        _, _, regions = self.groups(operating_points={"Effusion": 0.5}, abnormal=False)
        self.assertEqual(regions, 0)

    def test_without_an_operating_point_only_the_probability_is_told(self):
        found, _, regions = self.groups()
        self.assertEqual(found["Pleural effusion"], (UNDETERMINED, {"Probability": 0.25}))
        self.assertEqual(found["Under bus"], (UNDETERMINED, {"Probability": 0.5}))
        self.assertEqual(regions, 2)
        labels = [box.label for box in read_boxes_from_sr(self.folder / "sr.dcm")]
        self.assertEqual(labels, ["Focal abnormality", "Region of the map of Effusion"])

    def test_an_image_that_is_not_assessed_gets_no_verdict(self):
        found, comments, regions = self.groups(
            operating_points={"Effusion": 0.1, "Under bus": 0.75}, not_assessed="values must differ, all are 7."
        )
        expected = {"Anomaly": {}, "Pleural effusion": UNDETERMINED, "Under bus": UNDETERMINED}
        self.assertEqual({finding: answers for finding, (answers, _) in found.items()}, expected)
        self.assertEqual(found["Anomaly"][1], {"Anomaly score": 0.75, "P-value": 0.0123})
        self.assertEqual(found["Pleural effusion"][1], {"Probability": 0.25})
        self.assertEqual((comments, regions), (["Not assessed: values must differ, all are 7."], 0))

    def test_what_was_not_looked_at_and_how_it_was_shown_are_told(self):
        note = "window of width 0 not applied: shown over the full range."
        _, comments, _ = self.groups(seen=(8.0, 6.0, 64.0, 48.0), display_note=note)
        expected = "Not looked at: what lies outside of columns 8 to 72 and rows 6 to 54."
        self.assertEqual(comments, [expected, f"Display: {note}"])


class TestSegmentation(InFolder):
    def test_mask_and_heat(self):
        path = self.radiograph()
        result, source = some_result(path), load_source(path, 0, ALGORITHM, RUN)
        write_binary_seg(self.folder / "seg.dcm", result, source, 0.5)
        write_heat_seg(self.folder / "heat.dcm", result, source, (0.0, 1.5))
        mask, heat = (highdicom.seg.segread(self.folder / name) for name in ("seg.dcm", "heat.dcm"))
        np.testing.assert_array_equal(mask.pixel_array, result.heatmap > 0.5)
        np.testing.assert_allclose(heat.pixel_array, np.rint(result.heatmap / 1.5 * 255))
        self.assertEqual(list(mask.PatientOrientation), ["L", "F"])
        self.assertEqual(heat.SegmentSequence[0].SegmentLabel, "heat from 0 to 1.5, no probability")
        # PS3.3 C.8.20.2: the kinds of fractions are PROBABILITY and OCCUPANCY
        self.assertEqual((heat.SegmentationFractionalType, "SegmentationFractionalType" in mask), ("OCCUPANCY", False))
        self.assertIn("research use only", mask.SeriesDescription)

    def test_the_mask_names_its_anatomy_and_color(self):
        path = self.radiograph(BodyPartExamined="CHEST")
        write_binary_seg(self.folder / "seg.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN), 0.5)
        mask = pydicom.dcmread(self.folder / "seg.dcm")
        (segment,) = mask.SegmentSequence
        (region,) = segment.AnatomicRegionSequence
        # PS3.16 Annex L: CHEST is (816094009, SCT)
        self.assertEqual((_code(region), mask.BodyPartExamined), (("816094009", "SCT"), "CHEST"))
        # PS3.3 C.10.7.1.1: L* of 0..100 and a*, b* of -128..127 over 0..65535; sRGB red has 54.3, 80.8, 69.9 (D50)
        lightness, a, b = segment.RecommendedDisplayCIELabValue
        np.testing.assert_allclose(lightness / 65535 * 100, 54.3, atol=0.1)
        np.testing.assert_allclose([a / 65535 * 255 - 128, b / 65535 * 255 - 128], [80.8, 69.9], atol=0.5)

    def test_a_mask_is_written_without_the_heat(self):
        path = self.radiograph()
        with ResultsWriter(self.folder / "out", ("seg",), threshold=0.5) as writer:
            writer.add(some_result(path))
        self.assertEqual([file.name for file in (self.folder / "out" / "dicom").iterdir()], ["cr.dcm_0_seg.dcm"])

    def test_nothing_found_is_a_result(self):
        path = self.radiograph()
        write_binary_seg(self.folder / "seg.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN), 2.0)
        self.assertEqual(highdicom.seg.segread(self.folder / "seg.dcm").pixel_array.sum(), 0)

    def test_what_was_not_looked_at_is_neither_hot_nor_in_the_mask(self):
        path = self.radiograph()
        result, source = some_result(path), load_source(path, 0, ALGORITHM, RUN)
        result.heatmap[:, :30] = np.nan  # half of the hot rectangle of columns 20 to 40
        write_binary_seg(self.folder / "seg.dcm", result, source, 0.5)
        write_heat_seg(self.folder / "heat.dcm", result, source, (0.0, 1.0))
        for name in ("seg.dcm", "heat.dcm"):
            pixels = pydicom.dcmread(self.folder / name).pixel_array
            self.assertEqual(np.flatnonzero(pixels.any(axis=0)).tolist(), list(range(30, 40)))

    def test_a_mask_of_an_image_that_is_not_assessed_is_no_finding(self):
        path = self.radiograph()
        result = ImageResult(**{**vars(some_result(path)), "not_assessed": "modality must be US, got CR."})
        write_binary_seg(self.folder / "seg.dcm", result, load_source(path, 0, ALGORITHM, RUN), 0.5)
        (segment,) = pydicom.dcmread(self.folder / "seg.dcm").SegmentSequence
        # PS3.16 CID 7150 and Annex D: a selected region, in place of a focal abnormality
        self.assertEqual(_code(segment.SegmentedPropertyCategoryCodeSequence[0]), ("309825002", "SCT"))
        self.assertEqual(_code(segment.SegmentedPropertyTypeCodeSequence[0]), ("111099", "DCM"))
        self.assertEqual(segment.SegmentLabel, "heat above 0.5, not assessed")
        self.assertEqual(segment.SegmentDescription, "heat above 0.5. Not assessed: modality must be US, got CR.")

    def test_refusals(self):
        loop = PYDICOM / "examples_ybr_color.dcm"
        with self.assertRaisesRegex(NotWrittenError, "a single frame, this one has 30 frames"):
            write_binary_seg(self.folder / "x", some_result(loop), load_source(loop, 0, ALGORITHM, RUN), 0.5)
        path = self.radiograph()
        result, source = some_result(path), load_source(path, 0, ALGORITHM, RUN)
        result.heatmap = np.zeros((80, 60))
        with self.assertRaisesRegex(NotWrittenError, r"must have the source's \(60, 80\) pixels, got \(80, 60\)"):
            write_heat_seg(self.folder / "x", result, source, (0, 1))
        result.heatmap = result.image = None
        with self.assertRaisesRegex(NotWrittenError, "needs a heatmap, the result has none"):
            write_heat_seg(self.folder / "x", result, source, (0, 1))
        with self.assertRaisesRegex(NotWrittenError, r"source's \(60, 80\) pixels, got None"):
            write_sc(self.folder / "x", result, source, (0, 1))
        self.assertFalse((self.folder / "x").exists())

    def test_a_date_that_is_none_is_left_empty(self):
        path = self.radiograph(StudyDate="20260101")
        dataset = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            dataset.StudyDate, dataset.StudyTime = "soon", "at noon"
            dataset.save_as(path)
        write_sr(self.folder / "sr.dcm", some_result(path), load_source(path, 0, ALGORITHM, RUN))
        report = pydicom.dcmread(self.folder / "sr.dcm")
        self.assertEqual((report.StudyDate or "", report.StudyTime or ""), ("", ""))
        self.assertEqual(report.PatientBirthDate, "19700101")

    def test_source_without_series(self):
        with self.assertRaisesRegex(NotWrittenError, "refers to its source by SeriesInstanceUID, the source has none"):
            load_source(self.radiograph(SeriesInstanceUID=None), 0, ALGORITHM, RUN)


class TestOddSources(InFolder):
    """Values that occur and that highdicom refuses cost no result."""

    def results(self, **elements) -> dict[str, pydicom.Dataset]:
        with quiet_dicom():  # for what pydicom says of them while the test writes them
            path = self.radiograph(**elements)
        # numbers of four bytes in six bytes, which pydicom refuses
        path.write_bytes(path.read_bytes().replace(b"SH\6\0ABCDEF", b"UL\6\0ABCDEF"))
        out = self.folder / "out"
        with ResultsWriter(out, ("sr", "seg", "heat", "sc"), threshold=0.5) as writer:
            writer.add(some_result(path))
        found = {kind: out / "dicom" / f"cr.dcm_0_{kind}.dcm" for kind in ("sr", "seg", "heat", "sc")}
        missing = [kind for kind, file in found.items() if not file.exists()]
        self.assertEqual(missing, [], (out / "failures.csv").read_text())
        return {kind: pydicom.dcmread(file) for kind, file in found.items()}

    def test_names_in_any_character_set_stay_right(self):
        japanese, korean = "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동"
        for characters, name in (
            (["", "ISO 2022 IR 87"], japanese),
            (["ISO 2022 IR 6", "ISO 2022 IR 87"], japanese),
            (["", "ISO 2022 IR 149"], korean),
            ("GB18030", "Wang^XiaoDong=王^小东"),
            ("ISO-IR 100", "Müller^Jörg"),  # misspelt
            ("of our own", "Smith^John"),
            (None, "Smith^John"),
        ):
            with self.subTest(characters):
                alias = pydicom.Dataset()
                alias.PatientID, alias.TypeOfPatientID, alias.IssuerOfPatientID = "P-2", "TEXT", name.split("=")[-1]
                named = {"PatientName": name, "OtherPatientIDsSequence": [alias]}
                results = self.results(SpecificCharacterSet=characters, **named)
                for kind, result in results.items():
                    self.assertEqual((result.PatientName, result.SpecificCharacterSet), (name, "ISO_IR 192"), kind)
                alias_again = results["seg"].OtherPatientIDsSequence[0]
                self.assertEqual(alias_again.IssuerOfPatientID, alias.IssuerOfPatientID)

    def test_sex(self):
        for sex, expected in (("U", ""), ("Unknown", ""), ("m", "M"), (["M", "F"], ""), ("O", "O")):
            with self.subTest(sex):
                for result in self.results(PatientSex=sex).values():
                    self.assertEqual(result.PatientSex or "", expected)

    def test_orientation(self):
        for sides, expected in ((["X", "Y"], []), (["L"], []), ("LF", []), (["PR", "F"], ["PR", "F"])):
            with self.subTest(sides):
                results = self.results(PatientOrientation=sides)
                for kind in ("seg", "heat", "sc"):
                    self.assertEqual(list(results[kind].PatientOrientation or []), expected)

    def test_wrong_number_of_values(self):
        for result in self.results(PixelSpacing=[0.5], PatientName=["Smith^John", "Smith^J"]).values():
            self.assertEqual(result.PatientName or "", "")

    def test_what_cannot_be_read_is_left_out(self):
        for result in self.results(Occupation="ABCDEF").values():
            self.assertNotIn("Occupation", result)

    def test_lossy_stays_lossy(self):
        lossy = {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": 12.5,
            "LossyImageCompressionMethod": "ISO_10918_1",
        }
        results = self.results(**lossy)
        for kind in ("seg", "heat", "sc"):
            self.assertEqual({keyword: results[kind].get(keyword) for keyword in lossy}, lossy)


# SOP classes of PS3.4 B.5, PS3.6 Annex A and nobody
KINDS = {
    "XA, one frame": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.1", "Modality": "XA"},
    "RF, one frame": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.12.2", "Modality": "RF"},
    "multi-frame US, one frame": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1",
        "Modality": "US",
        "NumberOfFrames": 1,
        "FrameIncrementPointer": 0x00181063,
        "FrameTime": 40,
    },
    "multi-frame grayscale byte SC, one frame": {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2",
        "Modality": "OT",
        "NumberOfFrames": 1,
    },
    "retired US": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6", "Modality": "US"},
    "private": {"SOPClassUID": "1.2.826.0.1.3680043.10.511.9", "Modality": "DX"},
    "CT without a frame of reference": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"},
    "frame of reference and no position": {"FrameOfReferenceUID": "1.2.3.4"},
    "an empty frame of reference": {"FrameOfReferenceUID": ""},
    "position without orientation": {"FrameOfReferenceUID": "1.2.3.4", "ImagePositionPatient": [0, 0, 0]},
    "position without spacing": {
        "FrameOfReferenceUID": "1.2.3.4",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": None,
    },
    "a place without a thickness": {
        "FrameOfReferenceUID": "1.2.3.4",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
    },
    "lossy with an empty ratio": {"LossyImageCompression": "01", "LossyImageCompressionRatio": ""},
    "lossy without a ratio": {"LossyImageCompression": "01"},
}


class TestKindsOfSource(InFolder):
    """Every source that can be read gets all results, with references to the class that it has."""

    def results(self, frames: int = 1, **elements) -> dict[str, Path]:
        path = self.radiograph(**elements)
        if frames > 1:
            source = pydicom.dcmread(path)
            source.NumberOfFrames, source.PixelData = frames, source.PixelData * frames
            source.save_as(path)
        out = self.folder / "out"
        with ResultsWriter(out, ("sr", "seg", "heat", "sc"), algorithm=ALGORITHM, threshold=0.5) as writer:
            writer.add(some_result(path, frames - 1))
        self.failures = (out / "failures.csv").read_text().splitlines()[1:]
        return {file.stem.rsplit("_", 1)[1]: file for file in (out / "dicom").iterdir()}

    def test_every_kind_gets_everything(self):
        for name, elements in KINDS.items():
            with self.subTest(name):
                files = self.results(**elements)
                self.assertEqual((set(files), self.failures), ({"sr", "seg", "heat", "sc"}, []))
                source = pydicom.dcmread(self.folder / "cr.dcm")
                known = validator_errors(self.folder / "cr.dcm") if VALIDATOR else set()
                for kind, file in files.items():
                    result = pydicom.dcmread(file)
                    self.assertEqual(result.StudyInstanceUID, source.StudyInstanceUID)
                    self.assertEqual(_referenced_classes(result, source.SOPInstanceUID), {source.SOPClassUID}, kind)
                    self.assertFalse([e for e in result.iterall() if e.keyword.startswith("Lossy") and e.value == ""])
                    if VALIDATOR:
                        self.assertEqual(validator_errors(file) - known, set(), kind)
                shutil.rmtree(self.folder / "out")

    def test_a_class_without_frames_is_referenced_without_frame_numbers(self):
        for sop_class in (COMPUTED_RADIOGRAPHY, "1.2.840.10008.5.1.4.1.1.6"):
            with self.subTest(sop_class):
                files = self.results(frames=2, SOPClassUID=sop_class)
                self.assertEqual(set(files), {"sr", "sc"})
                self.assertIn("needs a source of a single frame, this one has 2 frames", self.failures[0])
                for kind, file in files.items():
                    result = pydicom.dcmread(file)
                    self.assertNotIn("ReferencedFrameNumber", {element.keyword for element in result.iterall()}, kind)
                    self.assertTrue([e for e in result.iterall() if "frame 2 of 2" in str(e.value)], kind)
                # a viewer would draw them on the first frame
                self.assertEqual(read_boxes_from_sr(files["sr"]), [])
                shutil.rmtree(self.folder / "out")

    def test_a_class_with_frames_is_referenced_by_frame(self):
        for sop_class in ("1.2.840.10008.5.1.4.1.1.3.1", "1.2.826.0.1.3680043.10.511.9"):
            files = self.results(frames=2, SOPClassUID=sop_class)
            (reference,) = pydicom.dcmread(files["sc"]).SourceImageSequence
            self.assertEqual(reference.ReferencedFrameNumber, 2)
            self.assertEqual(len(read_boxes_from_sr(files["sr"])), 2)
            shutil.rmtree(self.folder / "out")


def _referenced_classes(dataset: pydicom.Dataset, instance: str) -> set[str]:
    found = set()
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found |= _referenced_classes(item, instance)
    if dataset.get("ReferencedSOPInstanceUID") == instance:
        found.add(dataset.ReferencedSOPClassUID)
    return found


class TestIdentity(InFolder):
    """A UID stands for one content: whatever can change it gives another one, and nothing else does within a run."""

    def written(self, name: str, algorithm: Algorithm = ALGORITHM, resume: bool = False, **options) -> dict[str, bytes]:
        out = self.folder / name
        options = {"threshold": 0.5, **options}
        progress = Progress(resume=resume, settings=options.pop("settings", {}))
        with ResultsWriter(out, FORMATS, algorithm=algorithm, progress=progress, **options) as writer:
            writer.add(some_result(self.radiograph()))
        self.assertEqual(len(list((out / "dicom").iterdir())), 4, (out / "failures.csv").read_text())
        return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}

    def uids(self, *arguments, **options) -> dict[str, str]:
        files = self.written(*arguments, **options)
        return {
            name: str(pydicom.dcmread(BytesIO(content)).SOPInstanceUID)
            for name, content in files.items()
            if name.endswith(".dcm")
        }

    def test_every_run_has_its_own(self):
        one, two = self.uids("one"), self.uids("two")
        self.assertEqual(one.keys(), two.keys())
        self.assertFalse(set(one.values()) & set(two.values()))

    def test_a_fixed_time_gives_the_same_bytes(self):
        first = self.written("first", fixed_time=FIXED)
        second = self.written("second", fixed_time=FIXED)  # a moment later
        self.assertEqual(len(first), 12)
        for name, content in first.items():
            self.assertEqual(content, second[name], name)

    def test_objects_carry_the_time_of_the_run(self):
        for name, content in self.written("one", fixed_time="2026-03-04T05:06:07.080910").items():
            if name.endswith(".dcm"):
                found = pydicom.dcmread(BytesIO(content))
                for start in ("Content", "InstanceCreation"):
                    # a fixed time without a zone is the local one, and so are DICOM's
                    if f"{start}Date" in found:
                        told = (found[f"{start}Date"].value, found[f"{start}Time"].value)
                        self.assertEqual(tuple(map(str, told)), ("20260304", "050607.080910"), f"{name} {start}")

    def test_whatever_changes_content_gives_other_uids(self):
        fixed = {"fixed_time": FIXED}
        found = [
            self.uids("one", **fixed),
            self.uids("later", fixed_time="2026-03-04T05:06:08"),
            self.uids("weights", Algorithm("trial", "0.1.0", "ef" * 32, {"k": 3}), **fixed),
            self.uids("parameters", Algorithm("trial", "0.1.0", "ab" * 32, {"k": 4}), **fixed),
            self.uids("threshold", threshold=0.6, **fixed),
            self.uids("heat_range", heat_range=(0, 2), **fixed),
            # what the run was set to, of which the writer knows nothing
            self.uids("top_fraction", settings={"top_fraction": 0}, **fixed),
            self.uids("smoothing", settings={"smoothing": 12}, **fixed),
        ]
        self.assertEqual(len({uid for uids in found for uid in uids.values()}), 4 * len(found))

    def test_the_same_settings_written_otherwise_give_the_same_uids(self):
        one = self.uids("one", fixed_time=FIXED)
        self.assertEqual(self.uids("same", threshold=np.float32(0.5), heat_range=(0, 1), fixed_time=FIXED), one)
        two = Algorithm("trial", "0.1.0", "ab" * 32, {"k": 3, "cut": 0.5})
        turned = Algorithm("trial", "0.1.0", "ab" * 32, {"cut": 0.50, "k": 3})
        self.assertEqual(self.uids("two", two, fixed_time=FIXED), self.uids("turned", turned, fixed_time=FIXED))

    def test_a_continued_run_keeps_what_it_has_stored(self):
        def dicom(**options) -> dict[str, bytes]:
            return {name: content for name, content in self.written("out", **options).items() if name.endswith(".dcm")}

        first = dicom()
        self.assertEqual(dicom(resume=True), first)
        # the same UID on another image
        self.radiograph = lambda: InFolder.radiograph(self, InstanceNumber=4)
        self.assertFalse(set(dicom(resume=True).values()) & set(first.values()))
        del self.radiograph
        # other settings are another run, and so is one that is not continued
        self.assertFalse(set(dicom(resume=True, heat_range=(0, 2)).values()) & set(first.values()))
        self.assertFalse(set(dicom().values()) & set(first.values()))

    def test_a_fixed_time_must_be_one(self):
        with self.assertRaisesRegex(ValueError, "fixed_time must be a time in ISO 8601, got 'noon'"):
            ResultsWriter(self.folder / "out", fixed_time="noon")


class TestWayBack(InFolder):
    """A rectangle in the source is found in the network's grid and read back from the report where it was."""

    def found(self, path: Path, crop: object, size: int) -> Box:
        reader = RadiologyReader(channels=1)
        values, meta = reader.get_data(reader.read(str(path)))
        image = MetaTensor(torch.from_numpy(values), meta=meta)
        fit = ResizeAndPad((size, size))
        network_input = fit(crop(image))
        self.assertEqual(tuple(network_input.shape), (1, size, size))
        heat = crop.inverse(fit.inverse(network_input))  # a network that returns its input
        self.assertEqual(heat.shape, image.shape)
        ((edges,),), ((score,),) = (
            part[0] for part in boxes_from_heatmaps(heat[None], heat.shape[1:], (0.5,), upsample=1)
        )
        x0, y0, x1, y1 = edges.tolist()
        result = ImageResult("a", path, boxes=[Box("Mass", x0, y0, x1 - x0, y1 - y0, float(score))])
        write_sr(self.folder / "sr.dcm", result, load_source(path, 0, ALGORITHM, RUN))
        (box,) = read_boxes_from_sr(self.folder / "sr.dcm")
        return box

    def test_radiograph_and_ultrasound(self):
        pixels = np.zeros((150, 230), dtype=np.uint8)
        pixels[14:139, 22:210] = 40  # the exposed field; around it a black border
        pixels[41:78, 101:142] = 255
        drawn = np.array([101, 41, 142, 78])
        region = pydicom.Dataset()
        region.RegionSpatialFormat, region.RegionDataType = 1, 1
        region.RegionLocationMinX0, region.RegionLocationMinY0 = 22, 14
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 209, 138
        kinds = {
            "radiograph": ({"SOPClassUID": COMPUTED_RADIOGRAPHY, "Modality": "CR"}, CropUniformBorder()),
            "ultrasound": (
                {"SOPClassUID": ULTRASOUND, "Modality": "US", "SequenceOfUltrasoundRegions": [region]},
                CropToRegion(),
            ),
        }
        for name, (elements, crop) in kinds.items():
            path = save_dicom(self.folder / f"{name}.dcm", pixels, **PATIENT, **elements)
            for size in (320, 96):
                with self.subTest(name, size=size):
                    box = self.found(path, crop, size)
                    edges = np.array([box.x, box.y, box.x + box.width, box.y + box.height])
                    self.assertLessEqual(np.abs(edges - drawn).max(), 0.5, edges)


@unittest.skipIf(VALIDATOR is None, "dciodvfy is missing (apt-get install dicom3tools)")
class TestValidator(InFolder):
    """No error that the source does not have, and the results open again with highdicom."""

    def check(self, path: Path, frame: int, kinds: set[str]) -> None:
        out = self.folder / f"{path.name}_{frame}"
        with ResultsWriter(out, FORMATS, algorithm=ALGORITHM, threshold=0.5) as writer:
            writer.add(some_result(path, frame))
        files = {file.stem.rsplit("_", 1)[1]: file for file in (out / "dicom").iterdir()}
        self.assertEqual(set(files), kinds, (out / "failures.csv").read_text())
        known = validator_errors(path)
        for kind, file in files.items():
            self.assertEqual(validator_errors(file) - known, set(), f"{path.name} {kind}")
        self.assertEqual(len(read_boxes_from_sr(files["sr"])), 2)
        if "seg" in kinds:
            highdicom.seg.segread(files["seg"])
            highdicom.seg.segread(files["heat"])
        study = pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID
        self.assertEqual({pydicom.dcmread(file).StudyInstanceUID for file in files.values()}, {study})

    def test_synthetic_radiograph(self):
        self.check(self.radiograph(), 0, {"sr", "seg", "heat", "sc"})
        self.check(self.radiograph(PatientOrientation=None, PatientSex=None), 0, {"sr", "seg", "heat", "sc"})

    def test_ultrasound_of_pydicom(self):
        for name in ("examples_palette.dcm", "examples_rgb_color.dcm", "examples_jpeg2k.dcm"):
            self.check(PYDICOM / name, 0, {"sr", "seg", "heat", "sc"})
        for frame in (0, 29):
            self.check(PYDICOM / "examples_ybr_color.dcm", frame, {"sr", "sc"})

    @unittest.skipUnless(SAMPLES.is_dir(), "shared/data/cxr_samples is not here")
    def test_radiographs_of_cxr_samples(self):
        for path in sorted(SAMPLES.glob("*.dcm")):
            self.check(path, 0, {"sr", "seg", "heat", "sc"})
