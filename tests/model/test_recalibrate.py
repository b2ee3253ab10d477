# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Another calibration for the same weights: by one's own images, or for another operating point."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import unittest
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import jsonschema
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom.uid import generate_uid

import bundle
from bundle.anomaly import at_false_alarm_rate, read_calibration, write_calibration
from bundle.anomaly.conformal import normals_needed
from bundle.classification import ClassifierCalibrator, at_operating_point, read_classifier_calibration
from bundle.classification.calibration import write_classifier_calibration
from bundle.classification.recalibration import class_calibration
from bundle.files import file_sha256
from bundle.model import describe_training_set, read_model
from bundle.model.recalibrate import recalibrate
from bundle.model.write_file import rewrite_model
from scripts import recalibrate as script
from tests.synthetic_dicom import save_dicom
from tests.workflows import run_workflow, write_start

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "model.schema.json").read_text())
CLASSES = ["normal", "square"]
# of images that were trained on; a film of another hospital is smaller, and stretched
META = {
    "modality": "",
    "view_position": "",
    "source_size": np.array([200, 160]),
    "display_spread": 0.8,
    "color_share": 0.0,
    "filename_or_obj": "a.png",
}


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    """Write noise of 60 rows and 48 columns; each picture is another."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 255, (60, 48)).astype(np.uint8)).save(folder / f"{i:02d}.png")


def as_trained(folder: Path) -> None:
    """Let a started model say that it was trained on an image of 200 by 160 pixels, with the calibration beside it."""
    trained_on = describe_training_set([{"image": MetaTensor(torch.zeros(3, 4, 4), meta=META)}], "0" * 64)
    rewrite_model(read_model(folder), folder, folder / "calibration.json", trained_on)


def write_adfa(folder: Path, scores: list[float]) -> None:
    torch.manual_seed(0)
    settings = {"image_size": [32, 32], "backbone": "resnet18", "weights": "random"}
    weights = write_start(folder, "adfa", **settings)
    write_calibration(folder / "calibration.json", weights, scores, 0.5, 0.1)
    as_trained(folder)


def write_classifier(folder: Path, family: str) -> None:
    torch.manual_seed(0)
    settings = {"image_size": [64, 64], "classes": CLASSES, "normal_class": "normal"}
    if family == "sna":
        settings |= {"weights": None, "attention": "se"}
    else:
        settings |= {"backbone": "resnet18", "weights": None}
    weights = write_start(folder, family, **settings)
    # of ten squares the k-th has a probability of k/10 + 0.05, of ten normals k/20
    points = {"thresholds": [(10 - k) / 10 for k in range(10)], "tpr": [(k + 1) / 10 for k in range(10)]}
    roc = {**points, "fpr": [0.0] * 5 + [0.1, 0.3, 0.5, 0.7, 0.9], "positives": 10, "negatives": 10}
    write_classifier_calibration(
        folder / "calibration.json", weights, 1.5, {"normal": 0.5, "square": 0.6}, {"normal": None, "square": roc}
    )
    as_trained(folder)


def content_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


class TestOfNormals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.old = cls.root / "old"
        write_adfa(cls.old, [float(k) for k in range(1, 20)])
        write_images(cls.root / "normals", 19)
        cls.model = bundle.load_model(cls.old, device="cpu")
        cls.before = content_of(cls.old)

    def setUp(self):
        self.new = self.root / self.id().rpartition(".")[2]

    def tearDown(self):
        self.assertEqual(content_of(self.old), self.before)

    def refused(self, message: str, **arguments) -> None:
        with self.assertRaisesRegex(ValueError, message):
            recalibrate(self.model, self.new, **arguments)
        self.assertFalse(self.new.exists())

    def test_scores_are_those_of_inference_and_the_threshold_is_by_hand(self):
        done = recalibrate(self.model, self.new, self.root / "normals")
        scores = sorted(result.anomaly_score for result in self.model.predict(self.root / "normals"))
        saved = read_calibration(self.new / "calibration.json", self.model.file.weights_sha256)
        np.testing.assert_allclose(saved["scores"], scores, rtol=1e-6)
        self.assertEqual(saved["threshold"], saved["scores"][-2])  # of 19 and one to come, 2 may be above at 0.1
        self.assertEqual(saved["false_alarm_rate"], 0.1)  # as it was
        self.assertEqual((done.images, done.left_out), (19, []))
        again = bundle.load_model(self.new, device="cpu").predict(self.root / "normals")
        self.assertEqual(sum(result.abnormal for result in again), 1)

    def test_what_the_new_calibration_is_for_is_told(self):
        (before, *_) = self.model.predict(self.root / "normals")
        self.assertIsNone(before.abnormal)  # 48 columns are less than half of 160
        recalibrate(self.model, self.new, self.root / "normals", false_alarm_rate=0.05)
        content = json.loads((self.new / "model.json").read_text())
        jsonschema.validate(content, SCHEMA)
        trained_on = content["training_set"]
        self.assertEqual((trained_on["items"], trained_on["digest"]), (1, "0" * 64))
        self.assertEqual((trained_on["rows"], trained_on["columns"]), ([60, 60], [48, 48]))
        self.assertEqual(trained_on["colors"], {"gray": 19})
        self.assertEqual(trained_on["recalibrated"]["items"], 19)
        self.assertNotEqual(trained_on["recalibrated"]["digest"], trained_on["digest"])
        self.assertEqual(content["settings"], self.model.file.settings)
        (after, *_) = bundle.load_model(self.new, device="cpu").predict(self.root / "normals")
        self.assertIsNotNone(after.abnormal)
        largest = read_calibration(self.new / "calibration.json")
        self.assertEqual(largest["threshold"], largest["scores"][-1])  # of 19 and one to come, 1 may be above at 0.05

    def test_another_rate_without_images(self):
        done = recalibrate(self.model, self.new, false_alarm_rate=0.05)
        self.assertEqual((done.images, done.calibration["threshold"]), (0, 19.0))
        saved = read_calibration(self.new / "calibration.json", self.model.file.weights_sha256)
        self.assertEqual((saved["threshold"], saved["scores"]), (19.0, [float(k) for k in range(1, 20)]))
        self.assertEqual(read_model(self.new).training_set, self.model.file.training_set)
        self.assertEqual(read_model(self.new).content["network"], self.model.file.content["network"])

    def test_what_cannot_be_used_is_left_out_by_name(self):
        folder = self.root / "messy"
        write_images(folder, 12)
        shutil.copy(folder / "00.png", folder / "copy.png")
        Image.open(folder / "01.png").save(folder / "encoded.jpg", quality=90)
        (folder / "broken.png").write_bytes((folder / "02.png").read_bytes()[:200])
        Image.fromarray(np.full((60, 48), 90, np.uint8)).save(folder / "blank.png")
        done = recalibrate(self.model, self.new, folder)
        self.assertEqual(done.images, 12)
        reasons = {Path(file).name: reason for file, reason in done.left_out}
        self.assertEqual(set(reasons), {"copy.png", "encoded.jpg", "broken.png", "blank.png"})
        self.assertRegex(reasons["copy.png"], "shows the same picture as '00.png', which counts once")
        self.assertRegex(reasons["encoded.jpg"], "shows the same picture as '01.png'")
        self.assertRegex(reasons["blank.png"], "almost one value")

    def test_of_a_loop_the_middle_frame_counts(self):
        folder = self.root / "loops"
        write_images(folder, 9)
        loop = np.random.default_rng(5).integers(0, 255, (7, 60, 48)).astype(np.uint8)
        save_dicom(folder / "loop.dcm", loop, SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1")
        done = recalibrate(self.model, self.new, folder)
        self.assertEqual((done.images, done.left_out), (10, []))
        score = self.model.predict(loop[3] / 255).anomaly_score
        self.assertTrue(np.isclose(done.calibration["scores"], score, rtol=1e-5).any())

    def test_too_few_images_are_refused_with_the_numbers(self):
        self.assertEqual([normals_needed(rate) for rate in (0.5, 0.1, 0.05, 0.01)], [1, 9, 19, 99])
        few = self.root / "few"
        write_images(few, 18)
        (few / "broken.png").write_bytes(b"\x89PNG")
        self.refused(
            r"false_alarm_rate 0.05 needs at least 19 normal images, 'few' has 18 \(1 left out, first: broken.png.*\); "
            "18 can promise 0.0526",
            images=few,
            false_alarm_rate=0.05,
        )
        self.refused("must be at least 0.05, the least that 19 normals can promise, got 0.01", false_alarm_rate=0.01)

    def test_folders_that_are_not_all_normal_or_of_one_kind(self):
        folder = self.root / "mixed"
        write_images(folder / "NORMAL", 10)
        write_images(folder / "PNEUMONIA", 1, seed=1)
        self.refused("not all of 'mixed' can be taken for normal, it has folders named PNEUMONIA", images=folder)
        folder = self.root / "colors"
        write_images(folder, 10)
        Image.fromarray(np.random.default_rng(9).integers(0, 255, (60, 48, 3)).astype(np.uint8)).save(folder / "c.png")
        self.refused("must be of one photometric kind, found 10 gray, 1 color", images=folder)
        recalibrate(self.model, self.new, folder, mixed_training=True)
        self.assertTrue(read_model(self.new).training_set["mixed_training"])

    def test_what_is_asked_for_and_not_there(self):
        for arguments, message in (
            ({}, "nothing to do for 'old': give --recalibrate DIR, --false_alarm_rate, or both"),
            ({"sensitivity": 0.9}, "--sensitivity is not for the family adfa.*give --false_alarm_rate"),
            ({"false_alarm_rate": 1.5}, r"false_alarm_rate must be in \(0, 1\), got 1.5"),
            ({"images": self.root / "none"}, "--recalibrate must be a folder of images, got"),
            ({"images": self.root / "normals", "labels_csv": "labels.csv"}, "--labels_csv is not for the family adfa"),
        ):
            with self.subTest(message=message):
                self.refused(message, **arguments)
        model = bundle.load_model(self.old, device="cpu", smoothing=1.0, override_model=True)
        with self.assertRaisesRegex(ValueError, "loaded with settings that contradict it"):
            recalibrate(model, self.new, false_alarm_rate=0.5)

    def test_folders_that_are_not_overwritten(self):
        full = self.root / "full"
        full.mkdir()
        (full / "notes.txt").write_text("mine")
        for place, message in (
            (full, "must not exist or be empty, '.*full' holds 'notes.txt'"),
            (full / "notes.txt", "must be a folder, '.*notes.txt' is a file"),
            (self.old, "must lie outside of the model's folder 'old'"),
            (self.old / "inside", "must lie outside of the model's folder 'old'"),
        ):
            with self.subTest(place=place.name), self.assertRaisesRegex(ValueError, message):
                recalibrate(self.model, place, false_alarm_rate=0.5)
        self.assertEqual(content_of(full), {"notes.txt": file_sha256(full / "notes.txt")})
        self.new.mkdir()
        recalibrate(self.model, self.new, false_alarm_rate=0.5)  # an empty one is taken

    def test_what_is_interrupted_leaves_nothing(self):
        steps = (
            "model.recalibrate.shutil.copyfile anomaly.recalibration.write_calibration model.recalibrate.rewrite_model"
        )
        for step in steps.split():
            with self.subTest(step=step), mock.patch(f"bundle.{step}", side_effect=KeyboardInterrupt):
                with self.assertRaises(KeyboardInterrupt):
                    recalibrate(self.model, self.new, false_alarm_rate=0.5)
                self.assertFalse(self.new.exists())

    def test_an_untrained_network_and_a_model_without_calibration(self):
        start = self.root / "start"
        write_start(start, "adfa", image_size=[32, 32], backbone="resnet18", weights="random")
        model = bundle.load_model(start, device="cpu")
        with self.assertRaisesRegex(ValueError, "'start' is of a network that was not trained"):
            recalibrate(model, self.new, self.root / "normals")
        with self.assertRaisesRegex(ValueError, "false_alarm_rate 0.1 needs a calibration to choose from"):
            recalibrate(model, self.new, false_alarm_rate=0.1)

    def test_the_command(self):
        (self.old / "model.onnx").write_bytes(b"")
        arguments = ["recalibrate.py", "--model_dir", str(self.old), "--output_dir", str(self.new), "--device", "cpu"]
        arguments += ["--recalibrate", str(self.root / "normals"), "--false_alarm_rate", "0.05"]
        with mock.patch("sys.argv", arguments):
            with redirect_stdout(StringIO()) as said, self.assertLogs("bundle.model.recalibrate", "INFO") as logged:
                script.main()
            with self.assertRaisesRegex(SystemExit, "^error: output_dir must not exist or be empty"):
                script.main()
        (self.old / "model.onnx").unlink()
        self.assertIn("calibrated on 19 images, 0 left out\nfalse_alarm_rate 0.05: threshold ", said.getvalue())
        self.assertIn(r"exported files are not copied (model.onnx)", logged.output[0])
        self.assertEqual({path.name for path in self.new.iterdir()}, {"model.pt", "calibration.json", "model.json"})


class TestRateOfARun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        write_adfa(cls.root / "old", [float(k) for k in range(1, 20)])
        write_images(cls.root / "images", 2)

    def infer(self, name: str, **settings) -> dict:
        common = {"input": self.root / "images", "model_dir": self.root / "old", "formats": ["csv", "json"]}
        run_workflow("adfa_inference", output_dir=self.root / name, **{**common, **settings})
        return json.loads((self.root / name / "predictions.json").read_text())

    def test_another_threshold_for_one_run(self):
        for rate, threshold, told in ((None, 18.0, 0.1), (0.05, 19.0, 0.05), (0.5, 10.0, 0.5)):
            with self.subTest(rate=rate):
                found = self.infer(f"rate {rate}", false_alarm_rate=rate)
                self.assertEqual(found["threshold"], threshold)
                self.assertEqual(found["algorithm"]["parameters"]["false_alarm_rate"], told)
        self.assertEqual(read_calibration(self.root / "old" / "calibration.json")["threshold"], 18.0)

    def test_the_structured_report_tells_the_rate(self):
        source = self.root / "film.dcm"
        pixels = np.random.default_rng(0).integers(0, 4000, (200, 160)).astype(np.uint16)
        save_dicom(source, pixels, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())
        self.infer("report", input=source, formats=["json", "sr"], false_alarm_rate=0.05)
        (file,) = (self.root / "report" / "dicom").rglob("*.dcm")
        told = [element.value for element in pydicom.dcmread(file).iterall()]
        self.assertIn("false_alarm_rate=0.05", told)
        self.assertIn(19, told)  # the threshold beside the score

    def test_a_rate_that_so_few_scores_cannot_promise(self):
        with self.assertRaisesRegex(ValueError, "must be at least 0.05, the least that 19 normals can promise"):
            bundle.load_model(self.root / "old", device="cpu", false_alarm_rate=0.01)
        with self.assertRaises(RuntimeError) as caught:
            self.infer("refused", false_alarm_rate=0.01)
        self.assertIn("must be at least 0.05", str(caught.exception.__cause__.__cause__ or caught.exception.__cause__))


class TestOfLabelled(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        for family in ("sna", "msa"):
            write_classifier(cls.root / family, family)
        write_images(cls.root / "images", 20)
        with (cls.root / "labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "split", *CLASSES])
            rows.writerows([f"{i:02d}.png", "training" if i < 4 else "validation", i % 2, 1 - i % 2] for i in range(20))

    def setUp(self):
        self.new = self.root / self.id().rpartition(".")[2]

    def test_the_operating_point_of_a_kept_curve(self):
        model = bundle.load_model(self.root / "sna", device="cpu")
        for wish, point in (
            ({"sensitivity": 0.8}, 0.2),  # of ten and one to come 2.2 may be missed, so one of the ten: tpr 0.9
            ({"sensitivity": 0.5}, 0.5),  # 5.5: four of the ten, tpr 0.6
            ({"specificity": 0.8}, 0.5),  # 2.2: one of the ten, fpr 0.1
        ):
            with self.subTest(wish=wish):
                new = self.new.with_name(f"{self.new.name} {wish}")
                recalibrate(model, new, **wish)
                saved = read_classifier_calibration(new / "calibration.json", model.file.weights_sha256, CLASSES)
                self.assertAlmostEqual(saved["thresholds"]["square"], point)
                self.assertIsNone(saved["thresholds"]["normal"])  # without a curve
                self.assertEqual(saved["temperature"], 1.5)
                loaded = bundle.load_model(self.root / "sna", device="cpu", **wish)
                self.assertEqual(loaded.setting("calibration")["thresholds"], saved["thresholds"])

    def test_new_images_give_what_the_training_s_calibrator_gives(self):
        for family in ("sna", "msa"):
            with self.subTest(family=family):
                model = bundle.load_model(self.root / family, device="cpu")
                new = self.new.with_name(f"{self.new.name} {family}")
                done = recalibrate(model, new, self.root / "images", self.root / "labels.csv")
                self.assertEqual((done.images, done.left_out), (16, []))
                saved = read_classifier_calibration(new / "calibration.json", model.file.weights_sha256, CLASSES)
                # raw probabilities of another path, by softmax or sigmoid with the old temperature
                exclusive = family == "sna"
                names = [f"{i:02d}.png" for i in range(4, 20)]
                found = model.predict([self.root / "images" / name for name in names])
                p = torch.tensor([[r.probabilities[name] for name in CLASSES] for r in found], dtype=torch.float64)
                logits = (p.log() if exclusive else p.logit()) * 1.5
                targets = torch.tensor([[i % 2, 1 - i % 2] for i in range(4, 20)])
                calibrator = ClassifierCalibrator(self.root / "other.json", new / "model.pt", CLASSES, exclusive)
                calibrator._logits, calibrator._targets, calibrator._names = [logits], [targets], names
                calibrator(None)
                expected = read_classifier_calibration(self.root / "other.json", None, CLASSES)
                self.assertAlmostEqual(saved["temperature"], expected["temperature"], delta=1e-4)
                for name in CLASSES:
                    self.assertAlmostEqual(saved["thresholds"][name], expected["thresholds"][name], places=5)
                    np.testing.assert_allclose(saved["roc"][name]["tpr"], expected["roc"][name]["tpr"])
                trained_on = read_model(new).training_set
                self.assertEqual(trained_on["recalibrated"]["items"], 16)
                self.assertEqual((trained_on["rows"], trained_on["digest"]), ([60, 60], "0" * 64))
                jsonschema.validate(json.loads((new / "model.json").read_text()), SCHEMA)

    def test_operating_points_by_hand(self):
        logits = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0], [3.0]])
        targets = torch.tensor([[0], [0], [1], [0], [1], [1]])
        found = class_calibration(logits, targets, ["mass"], False, sensitivity=0.5)
        # of three and one to come 2 may be missed, so one of the three: between the logits 1 and 2
        middle = (torch.tensor([1.0, 2.0]) / found["temperature"]).sigmoid().mean().item()
        self.assertAlmostEqual(found["thresholds"]["mass"], middle, places=6)
        with self.assertRaisesRegex(ValueError, "at most 0.75, the most that 3 positive images of 'mass' can promise"):
            class_calibration(logits, targets, ["mass"], False, sensitivity=0.9)
        with self.assertRaisesRegex(ValueError, "a class must have images with and without it, none of mass has both"):
            class_calibration(logits, torch.ones(6, 1), ["mass"], False)

    def test_what_is_refused(self):
        images, labels = self.root / "images", self.root / "labels.csv"
        model = bundle.load_model(self.root / "msa", device="cpu")
        for arguments, message in (
            ({"false_alarm_rate": 0.1}, "--false_alarm_rate is not for the family msa.*--sensitivity or --specificity"),
            ({"sensitivity": 0.9, "specificity": 0.9}, r"one of --sensitivity and --specificity .* got \[0.9, 0.9\]"),
            ({"sensitivity": 95}, r"sensitivity must be in \(0, 1\), got 95"),
            ({"sensitivity": 0.95}, "sensitivity must be at most 0.909, the most that 10 positive images of 'square'"),
            ({"images": images}, "--recalibrate and --labels_csv must be given together"),
            ({"labels_csv": labels}, "--recalibrate and --labels_csv must be given together"),
            ({}, "nothing to do for 'msa': give --recalibrate DIR, --sensitivity or --specificity, or both"),
            (
                {"images": images, "labels_csv": labels, "specificity": 0.95},
                "specificity must be at most 0.889, the most that 8 negative images of 'square' can promise, got 0.95",
            ),
        ):
            with self.subTest(message=message), self.assertRaisesRegex(ValueError, message):
                recalibrate(model, self.new, **arguments)
            self.assertFalse(self.new.exists())
        with self.assertRaisesRegex(ValueError, "sensitivity 0.5 contradicts probability_threshold 0.3: give one"):
            bundle.load_model(self.root / "msa", device="cpu", sensitivity=0.5, probability_threshold=0.3)
        rows = labels.read_text().replace(",validation,", ",training,")
        (self.root / "trained.csv").write_text(rows)
        with self.assertRaisesRegex(ValueError, "'trained.csv' must have rows of another split than training"):
            recalibrate(model, self.new, images, self.root / "trained.csv")

    def test_nothing_wished_for_changes_nothing(self):
        self.assertIsNone(at_false_alarm_rate(None))
        self.assertIsNone(at_operating_point(None, ["a"]))
        self.assertEqual(at_operating_point({"thresholds": {"a": 0.2}}, ["a"]), {"thresholds": {"a": 0.2}})


if __name__ == "__main__":
    unittest.main()
