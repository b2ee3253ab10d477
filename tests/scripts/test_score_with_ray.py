# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.anomaly import ADFA
from tests.folders import FolderTestCase
from tests.workflows import write_start

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"batch_size": "2"}


@unittest.skipUnless(
    importlib.util.find_spec("ray") and importlib.util.find_spec("pyarrow"), "ray is not installed (extra 'ray')"
)
class TestScoreWithRay(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.images, self.out = self.root / "images", self.root / "scores"
        self.images.mkdir()
        torch.manual_seed(0)
        network = ADFA((32, 32), "resnet18", None, 0, epsilon=0, map_stride=8)
        network.center_bank.set_centers(torch.randn(network.center_bank.centers.shape))
        write_start(self.root, "adfa", network, image_size=[32, 32], backbone="resnet18")
        for i in range(7):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 40)).astype(np.uint8)
            Image.fromarray(pixels).save(self.images / f"{i}.png")
        whole = (self.images / "3.png").read_bytes()
        (self.images / "3.png").write_bytes(whole[: len(whole) // 2])

    def score(self, *settings: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / "score_with_ray.py")]
        command += ["--args_file", str(ROOT / "configs" / "args_adfa_inference.yaml"), "--input", str(self.images)]
        command += ["--output_dir", str(self.out), "--workers", "2", "--batches", "1", f"model_dir={self.root}"]
        command += [f"{key}={value}" for key, value in SETTINGS.items()]
        command += settings
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    def single_run(self) -> dict[str, float]:
        command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_inference.yaml"]
        settings = {**SETTINGS, "input": self.images, "model_dir": self.root, "output_dir": self.root / "single"}
        for key, value in {**settings, "formats": "[csv]"}.items():
            command += [f"--{key}", str(value)]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        with (self.root / "single" / "predictions.csv").open(newline="") as file:
            return {row["source"]: float(row["anomaly_score"]) for row in csv.DictReader(file)}

    def test_a_misspelled_setting_is_refused(self):
        done = self.score("top_fractoin=0.1")
        message = "error: '--top_fractoin' is no setting of this run: did you mean '--top_fraction'?\n"
        self.assertEqual((done.returncode, done.stderr[-len(message) :]), (1, message))
        self.assertFalse(self.out.exists())

    @pytest.mark.full
    def test_two_workers_do_what_is_missing_with_the_scores_of_one_run(self):
        import pyarrow as pa
        from pyarrow.parquet import read_table, write_table

        self.out.mkdir()
        write_table(pa.Table.from_pylist([{"source": "done before"}]), self.out / "part-000003.parquet")
        done = self.score()
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        self.assertIn("7 images in 4 parts, 3 to do", done.stdout)
        rows = [row for i in range(3) for row in read_table(self.out / f"part-{i:06d}.parquet").to_pylist()]
        expected = self.single_run()
        scores = {row["source"]: row["anomaly_score"] for row in rows if row["failure"] is None}
        self.assertEqual(scores, {name: expected[name] for name in ("0.png", "1.png", "2.png", "4.png", "5.png")})
        self.assertEqual([row["source"] for row in rows if row["failure"]], ["3.png"])
        self.assertEqual(read_table(self.out / "part-000003.parquet")["source"].to_pylist(), ["done before"])

        (self.images / "6.png").unlink()
        self.assertIn("holds scores of other images or settings", self.score().stderr)


if __name__ == "__main__":
    unittest.main()
