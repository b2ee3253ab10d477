# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Methods by name. tests/configs/test_every_setting.py runs each from training to DICOM results and exports."""

from __future__ import annotations

import inspect
import json
import tempfile
import unittest
from pathlib import Path

import torch
import yaml
from PIL import Image

import bundle.anomaly
from bundle.anomaly import METHODS, Normals, make_detector
from bundle.model import read_model
from bundle.model.content import sealed
from tests.workflows import ROOT, run_command, run_workflow, write_start

SMALL = {"image_size": (32, 32), "weights": None}


class TestEveryMethod(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_it_is_fitted_to_the_images_outside_of_a_fold(self):
        images = torch.rand(6, 3, 32, 32)
        fold = torch.tensor([0, 0, 1, 1, 0, 0])
        folded = [{"image": images[i : i + 3], "fold": fold[i : i + 3]} for i in (0, 3)]
        for method in METHODS:
            with self.subTest(method=method):
                net = make_detector(method, **SMALL).eval()
                net.fit(Normals([{"image": torch.rand(5, 3, 32, 32)}]))  # forgotten by the next fit
                net.fit(Normals(folded).without(1))
                alone = make_detector(method, **SMALL).eval()
                alone.load_state_dict(net.state_dict())
                alone.fit(Normals([{"image": images[fold == 0]}]))
                with torch.no_grad():
                    found, expected = net(images), alone(images)
                self.assertEqual(found.shape, (6, 1, 4, 4))
                self.assertGreaterEqual(found.min().item(), 0)
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)

    def test_a_model_folder_can_name_it_and_has_its_settings(self):
        layer = yaml.safe_load((ROOT / "configs" / "adfa_train.yaml").read_text())
        for made in METHODS.values():
            self.assertIn(made.__name__, bundle.anomaly.NETWORKS)
            self.assertEqual(make_detector(**SMALL).get_submodule(made.feature_layer).channels[:3], (24, 40, 112))
            own = set(inspect.signature(made).parameters) & set(layer)
            self.assertEqual(own - set(layer["network_def"]), set())
            self.assertEqual(own - set(layer["+model_settings"]), set())


class TestMakeDetector(unittest.TestCase):
    def test_unknown_method(self):
        with self.assertRaisesRegex(ValueError, "method must be one of adfa, padim, patch_memory, got 'cutpaste'"):
            make_detector("cutpaste")

    def test_on_the_command_line(self):
        with tempfile.TemporaryDirectory() as name:
            Image.effect_noise((40, 40), 20).save(Path(name) / "noise.png")
            places = ["--dataset_dir", name, "--output_dir", f"{name}/out"]
            status, errors = run_command("--args_file", "configs/args_adfa_train.yaml", *places, "--method", "padmi")
        self.assertEqual(status, 1)
        self.assertRegex(
            errors.strip().splitlines()[-1], "^error: method must be one of adfa, padim, patch_memory, got"
        )

    def test_a_setting_of_another_method(self):
        with self.assertRaisesRegex(ValueError, "k 5 is a setting of method adfa, padim has none of this name"):
            make_detector("padim", **SMALL, k=5)
        with self.assertRaisesRegex(ValueError, "memory_size 7 is a setting of method patch_memory, adfa has none"):
            make_detector("adfa", **SMALL, memory_size=7)


class TestModelFolders(unittest.TestCase):
    def test_one_from_before_is_of_adfa(self):
        with tempfile.TemporaryDirectory() as name:
            model, out = Path(name) / "model", Path(name) / "out"
            write_start(model, "adfa", image_size=[32, 32])
            content = json.loads((model / "model.json").read_text())
            for setting in ("method", "kept_channels", "memory_size"):  # that came later
                del content["settings"][setting]
            (model / "model.json").write_text(json.dumps(sealed(content)))
            run_workflow(
                "adfa_inference", input=_picture(Path(name)), model_dir=model, output_dir=out, formats=["json"]
            )
            found = json.loads((out / "predictions.json").read_text())
        self.assertEqual(found["algorithm"]["name"], "ADFA, efficientnet_lite0")

    def test_the_method_belongs_to_the_weights(self):
        with tempfile.TemporaryDirectory() as name:
            write_start(Path(name), "adfa", image_size=[32, 32], method="padim")
            self.assertEqual(read_model(name)["method"], "padim")
            self.assertEqual(type(read_model(name).network()).__name__, "PaDiM")
            with self.assertRaises(Exception) as caught:
                run_workflow(
                    "adfa_inference", input=_picture(Path(name)), model_dir=name, output_dir=name, method="adfa"
                )
            self.assertRegex(str(caught.exception.__cause__ or caught.exception), "--method adfa contradicts the model")


def _picture(folder: Path) -> Path:
    Image.effect_noise((40, 40), 20).save(folder / "noise.png")
    return folder / "noise.png"


if __name__ == "__main__":
    unittest.main()
