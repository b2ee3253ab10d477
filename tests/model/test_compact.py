# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import jsonschema
import numpy as np
import torch
from PIL import Image

import bundle
from bundle.anomaly import ADFA
from bundle.anomaly.calibration import write_calibration
from bundle.files import file_sha256
from bundle.model import compact, own_or_shipped, read_file, read_model
from bundle.model.compact import compact_model
from bundle.model.content import sealed
from bundle.networks.pretrained import efficientnet_lite0_weights
from tests.workflows import ROOT, write_start


class TestCompactModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.whole, cls.small = cls.root / "whole", cls.root / "shipped" / "small"
        torch.manual_seed(0)
        network = ADFA((64, 64), weights=efficientnet_lite0_weights())
        with torch.no_grad():
            network.center_bank.centers.normal_()
        weights = write_start(cls.whole, "adfa", network, image_size=[64, 64])
        write_calibration(cls.whole / "calibration.json", weights, [1.0, 2.0, 3.0], 0.5, 0.3)
        file = cls.whole / "model.json"
        calibration = {"file": "calibration.json", "sha256": file_sha256(cls.whole / "calibration.json")}
        file.write_text(json.dumps(sealed({**json.loads(file.read_text()), "calibration": calibration})))
        cls.images = []
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (80, 72), dtype=np.uint8)
            cls.images.append(cls.root / f"{number}.png")
            Image.fromarray(pixels).save(cls.images[-1])
        cls.half, cls.difference = compact_model(cls.whole, cls.small, cls.images)

    def test_scores_stay_the_same_to_three_digits(self):
        one, other = (bundle.load_model(folder, "cpu") for folder in (self.whole, self.small))
        for image in self.images:
            wanted, found = one.predict(image), other.predict(image)
            self.assertAlmostEqual(found.anomaly_score / wanted.anomaly_score, 1, delta=1e-3)
            self.assertEqual(found.p_value, wanted.p_value)
        self.assertLessEqual(self.difference, 5e-4)

    def test_the_file_holds_what_was_learnt_alone(self):
        self.assertLess((self.small / "model.pt").stat().st_size, (self.whole / "model.pt").stat().st_size / 2)

    def test_model_and_calibration_are_bound_to_the_small_file(self):
        model, before = read_model(self.small), read_model(self.whole)
        digest = file_sha256(self.small / "model.pt")
        self.assertEqual(model.weights_sha256, digest)
        self.assertEqual(json.loads((self.small / "calibration.json").read_text())["weights_sha256"], digest)
        self.assertEqual((model.content["format_version"], before.content["format_version"]), (2, 1))
        self.assertEqual(model.settings, before.settings)
        jsonschema.validate(model.content, json.loads((ROOT / "docs/model.schema.json").read_text()))

    def test_half_precision_is_left_where_scores_would_change(self):
        scores = [[1.0, 2.0], [1.0, 2.002], [1.0, 2.0]]  # of the model, in half precision, in float32
        with mock.patch.object(compact, "_scores", side_effect=scores):
            self.assertEqual(compact_model(self.whole, self.root / "single", self.images), (False, 0.0))
        kept = torch.load(self.root / "single/model.pt", weights_only=True)["state_dict"]
        self.assertNotIn(torch.float16, {tensor.dtype for tensor in kept.values()})

    def test_a_model_that_float32_changes_is_refused(self):
        scores = [[1.0], [2.0], [2.0]]
        with mock.patch.object(compact, "_scores", side_effect=scores):
            with self.assertRaisesRegex(ValueError, "must stay the same to three digits, they differ by 1"):
                compact_model(self.whole, self.root / "never", self.images)
        self.assertFalse((self.root / "never").exists())

    def test_images_are_needed(self):
        with self.assertRaisesRegex(ValueError, "images must be one or more that can be read, got 0"):
            compact_model(self.whole, self.root / "never", [])

    def test_a_shipped_model_is_found_by_name_and_a_folder_comes_first(self):
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(elsewhere)
        with mock.patch.object(read_file, "SHIPPED_MODELS", self.root / "shipped"):
            self.assertEqual(read_model("small").folder, self.small)
            with self.assertRaisesRegex(ValueError, "'other' does not exist. Shipped ones, by name: small."):
                read_model("other")
            shutil.copytree(self.whole, elsewhere / "small")
            self.assertEqual(read_model("small").folder, Path("small"))

    def test_the_shipped_model_answers_where_no_own_one_was_trained(self):
        with mock.patch.object(read_file, "SHIPPED_MODELS", self.root / "shipped"):
            with self.assertLogs(read_file.logger, "WARNING") as log:
                self.assertEqual(own_or_shipped(self.root / "no model", "small", "adfa"), "small")
            self.assertRegex(log.output[0], "no --model_dir, .* the shipped model 'small' is used")
            self.assertEqual(own_or_shipped(self.whole, "small", "adfa"), str(self.whole))
            with self.assertRaisesRegex(
                ValueError, "--model_dir must name the folder .*'here' has none, and no model of family msa is shipped"
            ):
                own_or_shipped("here", "", "msa")


if __name__ == "__main__":
    unittest.main()
