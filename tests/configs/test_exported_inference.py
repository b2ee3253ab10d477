# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import importlib.util
import json
import unittest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bundle.anomaly import ADFA
from bundle.classification import AttentionLite0
from bundle.files import file_sha256
from bundle.localization import MSA
from bundle.networks.exported import export_network
from tests.folders import FolderTestCase
from tests.workflows import run_workflow, write_start

ROOT = Path(__file__).resolve().parents[2]
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
SIZE = [32, 32]
FAMILIES = {  # a small network, and the settings that make it
    "adfa": (
        lambda: ADFA(SIZE, "resnet18", None, 0, epsilon=0, map_stride=8),
        {"backbone": "resnet18"},
    ),
    "sna": (lambda: AttentionLite0(2, SIZE, weights=None), {}),
    "msa": (lambda: MSA(2, "resnet18", weights=None), {"backbone": "resnet18", "classes": ["a", "b"]}),
}


def infer(family: str, **settings) -> None:
    run_workflow(f"{family}_inference", batch_size=2, formats=["csv"], **settings)


def figures(folder: Path) -> list[list[float]]:
    """Return the numbers of predictions.csv: scores, p-values, probabilities, boxes."""
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "source" and rows[0][name].replace(".", "", 1).isdecimal()]
    return [[float(row[name]) for name in names] for row in rows]


class TestExportedInference(FolderTestCase):
    def setUp(self):
        super().setUp()
        (self.root / "images").mkdir()
        random = np.random.default_rng(0)
        for i in range(3):
            Image.fromarray(random.integers(0, 255, (40, 40)).astype(np.uint8)).save(self.root / "images" / f"{i}.png")
        torch.manual_seed(0)

    def model(self, family: str) -> torch.nn.Module:
        """Save a network, for ADFA with centers and a calibration."""
        network = FAMILIES[family][0]().eval()
        calibration = {"temperature": 2.0, "thresholds": {"normal": 0.5, "pneumonia": 0.5}}
        if family == "adfa":
            network.center_bank.set_centers(network.describe(torch.randn(1, 3, *SIZE))[0])
            calibration = {"threshold": 1, "scores": [1], "false_alarm_rate": 0.5, "heat_low": 0}
        settings = {"image_size": SIZE, **FAMILIES[family][1]}
        write_start(self.root, family, network, **settings)
        if family != "msa":
            calibration["weights_sha256"] = file_sha256(self.root / "model.pt")
            (self.root / "calibration.json").write_text(json.dumps(calibration))
            write_start(self.root, family, network, **settings)  # once more, with the calibration
        return network

    def check(self, family: str, *formats: str) -> None:
        network = self.model(family)
        common = {"input": str(self.root / "images"), "model_dir": str(self.root)}
        infer(family, **common, output_dir=str(self.root / "plain"))
        expected = figures(self.root / "plain")
        self.assertEqual(len(expected), 3)
        self.assertGreater(len(expected[0]), 1)
        for suffix in formats:
            path = self.root / f"exported{suffix}"
            export_network(network, path, (3, *SIZE), self.root / "model.pt")
        (self.root / "model.pt").unlink()  # the exported file is enough
        for suffix in formats:
            with self.subTest(family=family, format=suffix):
                out = self.root / f"out{suffix}"
                infer(family, **common, exported=str(self.root / f"exported{suffix}"), output_dir=str(out))
                np.testing.assert_allclose(figures(out), expected, atol=1e-4)

    def test_adfa(self):
        self.check("adfa", ".ts", ".pt2")

    @unittest.skipUnless(ONNX, "onnx, onnxscript or onnxruntime is not installed (extra 'onnx')")
    def test_adfa_by_onnx(self):
        self.check("adfa", ".onnx")

    def test_sna(self):
        self.check("sna", ".ts")

    def test_msa(self):
        self.check("msa", ".pt2")

    def test_the_calibration_of_other_weights_is_refused(self):
        network = self.model("adfa")
        export_network(network, self.root / "model.ts", (3, *SIZE), self.root / "images" / "0.png")
        with self.assertRaisesRegex(Exception, ".*") as caught:
            infer(
                "adfa",
                input=str(self.root / "images"),
                model_dir=str(self.root),
                exported=str(self.root / "model.ts"),
                output_dir=str(self.root / "out"),
            )
        error: BaseException = caught.exception
        while error.__cause__ is not None:
            error = error.__cause__
        self.assertIn("the weights in use are not those of the model", str(error))


if __name__ == "__main__":
    unittest.main()
