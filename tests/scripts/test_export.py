# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from bundle.anomaly import ADFA
from bundle.networks.exported import EXPORT_FORMATS, can_export
from tests.folders import FolderTestCase
from tests.workflows import write_start

ROOT = Path(__file__).resolve().parents[2]


class TestExport(FolderTestCase):
    def setUp(self):
        super().setUp()
        torch.manual_seed(0)
        network = ADFA((32, 32), "resnet18", None, 0, epsilon=0, map_stride=8)
        network.center_bank.set_centers(torch.randn(network.center_bank.centers.shape))
        write_start(self.root, "adfa", network, image_size=[32, 32], backbone="resnet18")
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 40)).astype(np.uint8)
            Image.fromarray(pixels).save(self.root / f"{i}.png")

    def run_script(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / "export.py"), "--images", str(self.root), "--formats", ".ts"]
        model = ["--model", str(self.root)]
        places = os.pathsep.join([str(self.root), os.environ.get("PYTHONPATH", "")])  # for a sitecustomize.py of a test
        environment = {**os.environ, "PYTHONPATH": places}
        return subprocess.run([*command, *model, *arguments], capture_output=True, text=True, env=environment)

    def test_a_row_for_the_network_and_each_format(self):
        done = self.run_script("--number", "3", "--repeats", "1")
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
        self.assertEqual([row[:2] for row in rows[2:]], [["adfa", "model.pt"], ["adfa", ".ts"]])
        self.assertTrue(all(float(row[2]) <= 1e-4 for row in rows[2:]))
        self.assertTrue((self.root / "model.ts").is_file())

    def test_without_onnx_the_other_formats_are_made_and_a_word_says_so(self):
        # Python runs it first; None in sys.modules is a package that is not there
        (self.root / "sitecustomize.py").write_text("import sys; sys.modules['onnxscript'] = None\n")
        done = self.run_script("--number", "2", "--repeats", "1", "--formats", ".ts", ".onnx")
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertIn(".onnx left out, a package is missing: pip install", done.stderr)
        self.assertTrue((self.root / "model.ts").is_file())
        self.assertFalse((self.root / "model.onnx").exists())

    def test_what_each_format_needs(self):
        with mock.patch("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object()):
            self.assertEqual([can_export(suffix) for suffix in EXPORT_FORMATS], [True, True, False])

    def test_what_it_refuses(self):
        self.assertIn("above -1", self.run_script("--number", "2", "--repeats", "1", "--tolerance", "-1").stderr)


if __name__ == "__main__":
    unittest.main()
