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

from bundle.data.classifier_calibration import read_classifier_calibration
from bundle.data.files import file_sha256
from bundle.handlers.classifier_figures import ClassifierCalibrator, ClassifierFigures

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


def _run(loader: DataLoader, handler) -> None:
    SupervisedEvaluator(torch.device("cpu"), loader, _Overconfident(), val_handlers=[handler]).run()


class TestClassifierFigures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path, self.weights = Path(folder.name) / "calibration.json", Path(folder.name) / "model.pt"
        self.weights.write_bytes(b"weights")

    def test_calibrate_then_report(self):
        _run(_loader(600, 0), ClassifierCalibrator(self.path, self.weights, CLASSES, False, 0.9))
        calibration = read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)
        self.assertAlmostEqual(calibration["temperature"], 3.0, delta=0.5)
        figures = ClassifierFigures(CLASSES, False, calibration, num_samples=30)
        _run(_loader(400, 1), figures)
        report = figures.summarize()
        self.assertEqual(report["images"], 400)
        value, low, high = report["mean AUROC"]
        self.assertTrue(low < value < high)
        self.assertEqual(report["scaling made the error"], "smaller")
        self.assertAlmostEqual(report["Findings"]["edema"]["sensitivity"][0], 0.9, delta=0.08)
        ((title, picture),) = figures.figures()
        self.assertEqual((title, picture[:4]), ("Reliability", b"\x89PNG"))

    def test_without_calibration(self):
        figures = ClassifierFigures(CLASSES, num_samples=5)
        _run(_loader(64, 0), figures)
        self.assertNotIn("threshold", figures.summarize()["Findings"]["mass"])

    def test_patients_are_kept_together(self):
        figures = ClassifierFigures(CLASSES, num_samples=5)
        _run(_loader(40, 0), figures)
        self.assertEqual(figures._patients[:4], ["p0", "p0", "p1", "p1"])

    def test_calibration_of_other_weights_or_classes(self):
        _run(_loader(64, 0), ClassifierCalibrator(self.path, self.weights, CLASSES))
        with self.assertRaisesRegex(ValueError, r"holds the classes \['edema', 'mass'\], not \['mass'\]"):
            read_classifier_calibration(self.path, file_sha256(self.weights), ["mass"])
        self.weights.write_bytes(b"others")
        with self.assertRaisesRegex(ValueError, "'calibration.json' belongs to other weights than those in use"):
            read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)
        self.path.write_text("{}")
        with self.assertRaisesRegex(ValueError, "'calibration.json' is no classifier calibration"):
            read_classifier_calibration(self.path, file_sha256(self.weights), CLASSES)


if __name__ == "__main__":
    unittest.main()
