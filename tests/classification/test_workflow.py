# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bundle.networks.attention.make import ATTENTION_NAMES
from tests.workflows import check_names, run_workflow

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--image_size", "[64,64]"]


def run_bundle(task: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run one task as a user would."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", f"configs/args_sna_{task}.yaml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def make_dataset(folder: Path) -> None:
    """Write noisy pictures, a bright square in every second one, and their label table."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for i in range(32):
        pixels = random.integers(60, 90, (70, 80)).astype(np.uint8)
        pixels[20:40, 45:65] += np.uint8(110 * (i % 2))
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        split = ("training", "training", "validation", "test")[i // 2 % 4]
        rows.append([f"images/{i}.png", f"patient {i // 2}", split, 1 - i % 2, i % 2])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "split", "normal", "square"], *rows])


class TestSNAConfigs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        make_dataset(cls.root)
        cls.common = ["--dataset_dir", str(cls.root), "--classes", "[normal,square]", *SMALL]

    @pytest.mark.full
    def test_train_evaluate_and_infer(self):
        model = self.root / "model"
        done = run_bundle("train", *self.common, "--output_dir", str(model), "--max_epochs", "1", "--averaging", "0.1")
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertTrue((model / "calibration.json").is_file())

        trained = [*self.common, "--model_dir", str(model)]
        out = self.root / "evaluation"
        done = run_bundle("evaluate", *trained, "--output_dir", str(out), "--bootstrap_samples", "20")
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        check_names(out)
        metrics = json.loads((out / "metrics.json").read_text())
        self.assertEqual(metrics["images"], 8)
        self.assertEqual(len(metrics["classes"]["square"]["auroc_interval"]), 2)
        report = (out / "report.html").read_text()
        self.assertIn("Reliability", report)
        self.assertIn("<figcaption>attention</figcaption>", report)

        out = self.root / "inference"
        arguments = ["--input", str(self.root / "images"), "--output_dir", str(out), "--explained_class", "square"]
        done = run_bundle("inference", *trained, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        rows = list(csv.DictReader((out / "predictions.csv").open()))
        self.assertEqual(len(rows), 32)
        self.assertAlmostEqual(float(rows[0]["probability_normal"]) + float(rows[0]["probability_square"]), 1, places=5)

    def test_a_setting_of_the_calibration_is_refused_before_training(self):
        for name in ("sna_train", "msa_train_end_to_end"):
            out = self.root / f"refused {name}"
            settings = {"dataset_dir": self.root, "output_dir": out, "classes": ["normal", "square"]}
            with self.assertRaises(Exception) as caught:
                run_workflow(name, **settings, sensitivity=1.5, resize=[64, 64], image_size=[64, 64])
            error: BaseException = caught.exception
            while error.__cause__ is not None:
                error = error.__cause__
            self.assertRegex(str(error), r"sensitivity must be .*\(0, 1\).*, got 1\.5\.")
            self.assertEqual([path.name for path in out.glob("*.pt")], [])

    def test_unknown_block_lists_the_known(self):
        done = run_bundle("train", *self.common, "--output_dir", str(self.root / "x"), "--attention", "senet")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"error: attention must be one of {list(ATTENTION_NAMES)}, got 'senet'.", done.stderr)

    def test_families_set_top_level_slots_only(self):
        for path in (ROOT / "configs").glob("sna*.yaml"):
            self.assertFalse([key for key in yaml.safe_load(path.read_text()) if "::" in key or "#" in key], path.name)


if __name__ == "__main__":
    unittest.main()
