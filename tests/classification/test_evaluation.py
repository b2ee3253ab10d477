# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from bundle.classification.calibration import read_classifier_calibration
from bundle.classification.evaluation import ClassifierCalibrator, ClassifierMetrics
from bundle.files import file_sha256
from bundle.localization.erasure import erased_logits

CLASSES = ["edema", "mass"]


class _Overconfident(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def _loader(count: int, seed: int) -> DataLoader:
    """Return images that are logits three times too large for their labels; two images a patient."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 2, generator=generator)
    labels = torch.bernoulli(logits.sigmoid(), generator=generator)
    items = [
        {"image": (3 * logits[i]).view(2, 1, 1), "label": labels[i], "patient": f"p{i // 2}"} for i in range(count)
    ]
    return DataLoader(Dataset(items), batch_size=32)


def _of(logits: list[list[float]], labels: list[list[int]]) -> DataLoader:
    items = [
        {"image": torch.tensor(x).view(2, 1, 1), "label": torch.tensor(y), "key": f"film {i}"}
        for i, (x, y) in enumerate(zip(logits, labels, strict=True))
    ]
    return DataLoader(Dataset(items), batch_size=3)


def _run(loader: DataLoader, handler) -> None:
    SupervisedEvaluator(torch.device("cpu"), loader, _Overconfident(), val_handlers=[handler]).run()


class TestClassifierMetrics(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path, self.weights = Path(folder.name) / "calibration.json", Path(folder.name) / "model.pt"
        self.weights.write_bytes(b"weights")

    def test_calibrate_then_report(self):
        _run(_loader(600, 0), ClassifierCalibrator(self.path, self.weights, CLASSES, False, 0.9))
        calibration = read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)
        self.assertAlmostEqual(calibration["temperature"], 3.0, delta=0.5)
        metrics = ClassifierMetrics(CLASSES, False, calibration, num_samples=30)
        _run(_loader(400, 1), metrics)
        report = metrics.summarize()
        self.assertEqual(report["images"], 400)
        low, high = report["mean_auroc_interval"]
        self.assertTrue(low < report["mean_auroc"] < high)
        self.assertLess(report["mean_calibration_error"], report["mean_calibration_error_raw"])
        self.assertEqual(report["temperature"], calibration["temperature"])
        self.assertAlmostEqual(report["classes"]["edema"]["sensitivity"], 0.9, delta=0.08)
        ((title, picture),) = metrics.charts()
        self.assertEqual((title, picture[:4]), ("Reliability", b"\x89PNG"))

    def test_without_calibration(self):
        metrics = ClassifierMetrics(CLASSES, num_samples=5)
        _run(_loader(64, 0), metrics)
        self.assertNotIn("threshold", metrics.summarize()["classes"]["mass"])

    def test_classes_without_positives_or_with_too_few_get_no_operating_point(self):
        # 'mass' is never positive; 4 positives of 'edema' can promise a sensitivity of 0.8 and no more
        loader = _of([[i / 4, -1.0] for i in range(8)], [[int(i > 3), 0] for i in range(8)])
        with self.assertLogs("bundle.classification.evaluation", "WARNING") as logs:
            _run(loader, ClassifierCalibrator(self.path, self.weights, CLASSES, False, 0.9))
        content = read_classifier_calibration(self.path, None, CLASSES)
        self.assertEqual(content["thresholds"], {"edema": None, "mass": None})
        self.assertIn("for 'edema': sensitivity must be at most 0.8, the most that 4 positive", logs.output[0])
        self.assertIn("for 'mass': 0 of 8 validation images are positive", logs.output[1])
        self.assertEqual((content["roc"]["edema"]["positives"], content["roc"]["mass"]), (4, None))
        metrics = ClassifierMetrics(CLASSES, False, content, num_samples=50)
        _run(loader, metrics)
        report = metrics.summarize()
        self.assertEqual((report["mean_auroc"], report["mean_over"]), (1.0, ["edema"]))
        self.assertEqual(report["classes"]["mass"]["note"], "no AUROC: no image has it")
        self.assertNotIn("sensitivity", report["classes"]["edema"])

    def test_no_class_with_both_kinds_has_no_mean(self):
        metrics = ClassifierMetrics(CLASSES, num_samples=5)
        _run(_of([[0.0, 1.0]] * 4, [[0, 1]] * 4), metrics)
        report = metrics.summarize()
        self.assertNotIn("mean_auroc", report)
        self.assertEqual(report["mean_over"], [])

    def test_an_image_without_a_score_is_named(self):
        loader = _of([[0.0, 1.0], [1.0, float("nan")], [2.0, 0.0], [3.0, 0.5]], [[0, 1], [1, 0], [1, 1], [0, 0]])
        rule = "logits must be finite, 1 of 8 are not, first: nan for image 'film 1', class 'mass'"
        with self.assertRaisesRegex(ValueError, rule):
            _run(loader, ClassifierCalibrator(self.path, self.weights, CLASSES))
        self.assertFalse(self.path.exists())
        metrics = ClassifierMetrics(CLASSES, num_samples=5)
        _run(loader, metrics)
        for compute in (metrics.summarize, metrics.charts):
            with self.assertRaisesRegex(ValueError, rule):
                compute()

    def test_maps_are_made_logits_of(self):
        # the mean of a class activation map is its logit
        items = [
            {"image": torch.full((2, 3, 3), 0.0) + torch.tensor([i - 3.0, 3.0 - i]).view(2, 1, 1), "label": label}
            for i, label in enumerate(torch.tensor([[0, 1]] * 4 + [[1, 0]] * 4))
        ]
        handler = ClassifierCalibrator(self.path, self.weights, CLASSES, False, logits=erased_logits)
        SupervisedEvaluator(
            torch.device("cpu"), DataLoader(Dataset(items), batch_size=5), nn.Identity(), val_handlers=[handler]
        ).run()
        content = read_classifier_calibration(self.path, None, CLASSES)
        # logits 0 and 1 lie next to each other on both sides of the border
        border = (torch.tensor([0.0, 1.0]) / content["temperature"]).sigmoid().mean().item()
        self.assertAlmostEqual(content["thresholds"]["edema"], border, places=6)

    def test_settings(self):
        with self.assertRaisesRegex(ValueError, r"sensitivity must be in \(0, 1\), got '0.9'"):
            ClassifierCalibrator(self.path, self.weights, CLASSES, sensitivity="0.9")
        with self.assertRaisesRegex(ValueError, "exclusive must be True or False, got 'false'"):
            ClassifierMetrics(CLASSES, exclusive="false")
        with self.assertRaisesRegex(ValueError, "classes must all be different, got 'a' twice"):
            ClassifierMetrics(["a", "a"])
        with self.assertRaisesRegex(ValueError, "num_samples must be a whole number of at least 1, got 0"):
            ClassifierMetrics(CLASSES, num_samples=0)

    def test_patients_are_kept_together(self):
        metrics = ClassifierMetrics(CLASSES, num_samples=5)
        _run(_loader(40, 0), metrics)
        self.assertEqual(metrics._patients[:4], ["p0", "p0", "p1", "p1"])

    def test_calibration_of_other_weights_or_classes(self):
        _run(_loader(64, 0), ClassifierCalibrator(self.path, self.weights, CLASSES))
        with self.assertRaisesRegex(ValueError, r"holds the classes \['edema', 'mass'\], not \['mass'\]"):
            read_classifier_calibration(self.path, file_sha256(self.weights), ["mass"])
        self.weights.write_bytes(b"others")
        with self.assertRaisesRegex(ValueError, "'calibration.json' belongs to other weights than those in use"):
            read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)
        self.path.write_text("{}")
        with self.assertRaisesRegex(ValueError, "'calibration.json' is no calibration"):
            read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)


if __name__ == "__main__":
    unittest.main()
