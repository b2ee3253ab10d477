# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import unittest
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
from PIL import Image

from bundle import __version__
from bundle.results import Algorithm, Box, ImageResult, ResultsWriter
from tests.folders import FolderTestCase


def some_result(folder: Path, number: int = 0, **fields) -> ImageResult:
    source = folder / "in" / f"{number}.png"
    source.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((6, 8), dtype=np.uint8)).save(source)
    values = {
        "key": f"{number:06d}",
        "source": source,
        "label": number % 2,
        "anomaly_score": float(number),
        "abnormal": number > 1,
        "heatmap": np.full((6, 8), number, dtype=np.float32),
        "boxes": [Box("anomaly", 1, 2, 3, 4, 0.5)],
        "image": np.full((6, 8), 0.5, dtype=np.float32),
    }
    return ImageResult(**{**values, **fields})


class TestResultsWriter(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out"

    def failures(self) -> list[list[str]]:
        with (self.out / "failures.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))[1:]

    def test_everything_for_pictures(self):
        formats = ("csv", "json", "nifti", "overlay", "report", "sr")
        with ResultsWriter(self.out, formats, threshold=1.5, input_root=self.folder / "in") as writer:
            for number in range(4):
                writer.add(some_result(self.folder, number, spacing=(0.5, 0.25)))
            writer.fail(self.folder / "in" / "cut.dcm", f"{self.folder}/in/cut.dcm: cut off\nafter 132 bytes")
            writer.close(metrics={"auroc": 0.5, "auroc_interval": (0.25, 0.75)})
        names = {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()}
        tables = {"predictions.csv", "predictions.json", "scores.csv", "failures.csv", "metrics.json"}
        tables |= {"report.html", "run.json"}
        pictures = {
            f"{kind}/{n:06d}{end}" for n in range(4) for kind, end in (("overlays", ".png"), ("heatmaps", ".nii.gz"))
        }
        self.assertEqual(names, tables | pictures)
        self.assertEqual(self.failures(), [["cut.dcm", "cut.dcm: cut off after 132 bytes"]])
        found = json.loads((self.out / "predictions.json").read_text())
        self.assertEqual(
            found["images"][3]["files"], {"overlay": "overlays/000003.png", "nifti": "heatmaps/000003.nii.gz"}
        )
        self.assertEqual((found["images"][3]["source"], found["threshold"]), ("3.png", 1.5))
        page = (self.out / "report.html").read_text()
        self.assertIn("4 images do not come from DICOM files", page)
        for path in ("report.html", "predictions.json", "predictions.csv"):
            self.assertNotIn(str(self.folder), (self.out / path).read_text())

    def test_file_names_that_are_no_utf8(self):
        umlaut, accent = (os.fsdecode(b"M" + byte + b"ller.png") for byte in (b"\xfc", b"\xe9"))
        folder = self.folder / "in"
        with ResultsWriter(self.out, ("csv", "json", "report", "overlay"), input_root=folder) as writer:
            writer.add(some_result(self.folder, source=folder / umlaut, key=umlaut))
            for name in (umlaut, accent):
                writer.fail(folder / name, f"{folder / name}: cut off")
        self.assertEqual([row[0] for row in self.failures()], [r"M\udcfcller.png", r"M\udce9ller.png"])
        (image,) = json.loads((self.out / "predictions.json").read_text(encoding="utf-8"))["images"]
        self.assertEqual((image["source"], image["key"]), (r"M\udcfcller.png",) * 2)
        for table in ("predictions.csv", "report.html"):
            self.assertIn(r"M\udcfcller.png", (self.out / table).read_text(encoding="utf-8"))

    def test_one_note_is_one_sentence(self):
        with ResultsWriter(self.out, ("report",), notes="Synthetic images.") as writer:
            writer.add(some_result(self.folder))
        self.assertIn('<p class="note">Synthetic images.</p>', (self.out / "report.html").read_text())

    def test_heatmap_lies_on_its_image(self):
        heat = np.zeros((6, 8), dtype=np.float32)
        heat[1, 3] = 1
        with ResultsWriter(self.out, ("nifti",)) as writer:
            writer.add(some_result(self.folder, heatmap=heat, spacing=(0.5, 0.25)))
        image = nibabel.load(self.out / "heatmaps" / "000000.nii.gz")
        np.testing.assert_array_equal(image.get_fdata(), heat)
        # row 1, column 3: 0.75 mm to the patient's left (-x in RAS+) and 0.5 mm to posterior (-y)
        np.testing.assert_allclose(image.affine @ [1, 3, 0, 1], [-0.75, -0.5, 0, 1])

    def test_one_bad_result_stops_nothing(self):
        with ResultsWriter(self.out, ("csv", "overlay", "report")) as writer:
            writer.add(some_result(self.folder, 0, heatmap=np.zeros((3, 3))))
            writer.add(some_result(self.folder, 1))
            writer.add(some_result(self.folder, 1))
        self.assertTrue((self.out / "overlays" / "000001.png").exists())
        (file, reason), (twice, again) = self.failures()
        self.assertEqual((file, twice), ("0.png", "1.png"))
        self.assertIn("overlay: heatmap must have the image's (6, 8) pixels, got (3, 3)", reason)
        self.assertIn("key must be unique", again)
        self.assertEqual(len((self.out / "predictions.csv").read_text().splitlines()), 3)

    def test_another_librarys_message_is_not_repeated(self):
        with (
            mock.patch("bundle.results.writer.write_nifti", side_effect=OSError("SMITH^JOHN")),
            ResultsWriter(self.out, ("nifti",)) as writer,
        ):
            writer.add(some_result(self.folder))
        self.assertRegex(self.failures()[0][1], r"^nifti: writing ended in OSError \(mock.py:\d+\)\.$")

    def test_what_was_found_before_an_error_is_kept(self):
        with self.assertRaisesRegex(RuntimeError, "network gone"), ResultsWriter(self.out, ("csv",)) as writer:
            writer.add(some_result(self.folder))
            raise RuntimeError("network gone")
        self.assertEqual(len((self.out / "predictions.csv").read_text().splitlines()), 2)

    def test_a_number_that_is_not_finite_is_a_failure(self):
        hot, cold = np.full((6, 8), np.nan), np.full((6, 8), np.inf)
        cases = {
            "anomaly_score must be finite, got nan.": {"anomaly_score": float("nan"), "abnormal": False},
            "anomaly_score must be finite, got -inf.": {"anomaly_score": float("-inf")},
            "p_value must be finite, got nan.": {"p_value": float("nan")},
            "probability of mass must be finite, got nan.": {"probabilities": {"mass": float("nan")}},
            "probability of cyst must be finite, got inf.": {"probabilities": {"mass": 0.5, "cyst": np.float32("inf")}},
            "operating point of mass must be finite, got nan.": {"operating_points": {"mass": float("nan")}},
            "anomaly_score_raw must be finite, got nan.": {"anomaly_score_raw": float("nan")},
            "map_height of a box must be finite, got nan.": {"boxes": [Box("mass", 1, 2, 3, 4, float("nan"))]},
            "x of a box must be finite, got inf.": {"boxes": [Box("mass", float("inf"), 2, 3, 4, 0.5)]},
            "heatmap must be finite where the network looked, some values are not.": {"heatmap": hot},
            "step_1 must be finite where the network looked, some values are not.": {"extra_maps": {"step_1": cold}},
        }
        with ResultsWriter(self.out, ("csv", "overlay", "report")) as writer:
            for number, fields in enumerate(cases.values()):
                self.assertFalse(writer.add(some_result(self.folder, number, **fields)))
            self.assertTrue(writer.add(some_result(self.folder, 99)))
        self.assertEqual(self.failures(), [[f"{n}.png", reason] for n, reason in enumerate(cases)])
        self.assertEqual(len((self.out / "predictions.csv").read_text().splitlines()), 2)
        self.assertEqual([path.name for path in (self.out / "overlays").iterdir()], ["000099.png"])

    def test_a_map_has_no_values_where_the_network_did_not_look(self):
        heat = np.zeros((6, 8), dtype=np.float32)
        heat[:, :2] = np.nan
        with ResultsWriter(self.out, ("csv", "nifti", "overlay", "report")) as writer:
            self.assertTrue(writer.add(some_result(self.folder, 0, heatmap=heat, seen=(2, 0, 6, 6))))
            self.assertFalse(writer.add(some_result(self.folder, 1, heatmap=heat, seen=(1, 0, 7, 6))))
        written = nibabel.load(self.out / "heatmaps" / "000000.nii.gz").get_fdata()
        np.testing.assert_array_equal(np.isnan(written), np.isnan(heat))

    def test_a_strict_run_fails_what_is_not_assessed(self):
        rule = "values must differ, all are 7."
        for strict in (False, True):
            with ResultsWriter(self.out, ("csv", "json"), threshold=1.5, strict=strict) as writer:
                writer.add(some_result(self.folder, 0))
                writer.add(some_result(self.folder, 3, not_assessed=rule))
            images = json.loads((self.out / "predictions.json").read_text())["images"]
            found = [(image["key"], image["verdict"], image["abnormal"]) for image in images]
            expected = [("000000", "not flagged", False), ("000003", "not assessed", None)]
            self.assertEqual(found, expected[:1] if strict else expected)
            failures = [["3.png", f"not assessed, which is a failure in a strict run: {rule}"]] if strict else []
            self.assertEqual(self.failures(), failures)

    def test_the_record_of_the_run(self):
        before = datetime.now(timezone.utc)
        ResultsWriter(self.out)
        record = json.loads((self.out / "run.json").read_text())  # at the start, not at the end
        self.assertEqual((record["written_by"], record["version"]), ("attention-imaging-bundle", __version__))
        self.assertLessEqual(before, datetime.fromisoformat(record["started"]))
        self.assertRegex(record["settings_sha256"], "^[0-9a-f]{64}$")
        self.assertEqual(set(record), {"written_by", "version", "started", "run", "settings_sha256", "model"})
        self.assertIsNone(record["model"])

    def test_the_model_is_named_and_its_name_changes_no_result(self):
        digests = set()
        for name in ("one", "moved"):
            with ResultsWriter(self.out, ("json", "report"), algorithm=Algorithm("ADFA", "1", "ab" * 32, model=name)):
                record = json.loads((self.out / "run.json").read_text())
            self.assertEqual(record["model"], {"name": name, "weights_sha256": "ab" * 32})
            self.assertEqual(json.loads((self.out / "predictions.json").read_text())["algorithm"]["model"], name)
            self.assertIn(f'<th scope="row">Model</th><td>{name}</td>', (self.out / "report.html").read_text())
            digests.add(record["settings_sha256"])
        self.assertEqual(len(digests), 1)

    def test_counts_the_verdicts(self):
        with self.assertLogs("bundle.results", "INFO") as log:
            writer = ResultsWriter(self.out, ("csv", "report", "overlay"))
            for number in range(4):
                writer.add(some_result(self.folder, number, not_assessed="too small." if number == 1 else None))
            writer.fail("cut.dcm", "cut off")
            writer.close(metrics={"per class": {}, "auroc": (0.91, 0.8, 0.95), "n": 4})
        self.assertEqual(
            [record.getMessage() for record in log.records],
            ["4 images (2 abnormal, 1 not flagged, 1 not assessed), 1 failure"],
        )

    def test_names_stay_in_the_output_folder(self):
        with ResultsWriter(self.out, ("overlay", "nifti")) as writer:
            writer.add(some_result(self.folder, key="../../escaped", extra_maps={"../x": np.zeros((6, 8))}))
        written = [path for path in self.folder.rglob("*escaped*")]
        self.assertEqual(len(written), 3)
        self.assertTrue(all(self.out in path.parents for path in written))

    def test_calibration_gives_threshold_range_and_weights(self):
        calibration = {"threshold": 3.0, "heat_low": 1.0, "scores": [2.0], "weights_sha256": "cd" * 32}
        writer = ResultsWriter(self.out, (), algorithm={"name": "ADFA"}, calibration=calibration)
        self.assertEqual((writer.threshold, writer.heat_range), (3.0, (1.0, 9.0)))
        self.assertEqual(writer.algorithm, Algorithm("ADFA", weights_sha256="cd" * 32))
        # a threshold that cannot be promised is none
        self.assertIsNone(ResultsWriter(self.out, (), calibration={**calibration, "threshold": np.inf}).threshold)

    def test_keeps_no_arrays(self):
        writer = ResultsWriter(self.out)
        result = some_result(self.folder)
        writer.add(result)
        self.assertFalse([item for item in vars(writer).values() if isinstance(item, np.ndarray | ImageResult)])

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "strict must be True or False, spelled so, got 'false'"):
            ResultsWriter(self.out, strict="false")
        with self.assertRaisesRegex(ValueError, "formats must be some of csv, .* got pdf"):
            ResultsWriter(self.out, ("csv", "pdf"))
        (self.folder / "file").touch()
        with self.assertRaisesRegex(ValueError, "output_dir must be a folder that can be written to"):
            ResultsWriter(self.folder / "file" / "out")

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_read_only_folder(self):
        self.out.mkdir(mode=0o500)
        with self.assertRaisesRegex(ValueError, "can be written to: Permission denied"):
            ResultsWriter(self.out)
