# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A model folder alone gives the results of its training's settings, on every way to use it."""

from __future__ import annotations

import csv
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import bundle
from tests.workflows import check_names, run_command, run_workflow, workflow_of, write_start

CLASSES = ["none", "square", "bar"]
# nothing here is a default
OF_TRAINING = {
    "adfa": {
        "image_size": [48, 64],
        "resize": [56, 72],
        "keep_aspect": False,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.3, 0.3, 0.3],
        "backbone": "resnet18",
        "weights": "random",
        "descriptor_channels": 12,
        "attention_weight": 0.2,
        "k": 5,
        "epsilon": 0.02,
        "scale": "batch_max",
        "map_stride": 4,
        "smoothing": 2.0,
        "top_fraction": 0.1,
        "adjustments": ["crop_border", "equalize"],
    },
    "sna": {
        "image_size": [64, 48],
        "classes": CLASSES,
        "normal_class": "none",
        "exclusive": False,
        "attention": "cbam",
        "frozen_stages": 3,
        "weights": None,
    },
    "msa": {
        "image_size": [64, 96],
        "classes": CLASSES,
        "backbone": "resnet18",
        "weights": None,
        "aggregate": False,
        "mining_steps": 1,
        "box_thresholds": [0.7],
        "adjustments": ["crop_region", "stretch"],
    },
    "detector": {
        "image_size": [64, 96],
        "classes": CLASSES,
        "backbone": "resnet18",
        "weights": None,
        "pyramid_channels": 16,
        "attention": "eca",
        "boxes_per_finding": 3,
        "adjustments": ["crop_region", "stretch"],
    },
}


def write_images(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(random.integers(0, 255, (40, 60)).astype(np.uint8)).save(folder / f"{i}.png")


def numbers(file: Path) -> list[list[float]]:
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if "score" in name or name.startswith("probability")]
    return [[float(row[name]) for name in names if row[name]] for row in rows]


class TestModelFolder(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        write_images(cls.root / "images")
        for family, settings in OF_TRAINING.items():
            torch.manual_seed(0)
            write_start(cls.root / family, family, **settings)

    def infer(self, family: str, name: str, **settings) -> list[list[float]]:
        out = self.root / f"{family}_{name}"
        common = {"input": self.root / "images", "model_dir": self.root / family, "formats": ["csv", "json"]}
        run_workflow(f"{family}_inference", output_dir=out, **common, **settings)
        check_names(out)
        return numbers(out / "predictions.csv")

    def test_all_settings_given_or_none_is_the_same(self):
        for family, settings in OF_TRAINING.items():
            with self.subTest(family=family):
                alone = self.infer(family, "alone")
                given = self.infer(family, "given", **{k: v for k, v in settings.items() if k in self.bound(family)})
                self.assertGreater(len(alone[0]), 0)
                np.testing.assert_array_equal(alone, given)

    def test_the_configurations_defaults_are_not_used(self):
        for family in OF_TRAINING:
            workflow = workflow_of(f"{family}_inference", input=self.root, model_dir=self.root / family)
            model = json.loads((self.root / family / "model.json").read_text())
            for name, value in {**model["settings"], **model["changeable"]}.items():
                if name not in workflow.parser:  # a setting of the network, which is the model's
                    continue
                with self.subTest(family=family, setting=name):
                    self.assertEqual(json.loads(json.dumps(workflow.parser.get_parsed_content(name))), value)
                    self.assertTrue(str(workflow.parser[name]).startswith("$@model"), workflow.parser[name])

    def test_each_bound_setting_is_refused_when_it_is_another(self):
        others = {"image_size": [32, 32], "classes": CLASSES[::-1], "exclusive": True, "keep_aspect": True}
        others["adjustments"] = ["reduce_speckle"]
        for family in OF_TRAINING:
            for name in self.bound(family):
                value = self.bound(family)[name]
                number = isinstance(value, int | float) and not isinstance(value, bool)
                other = (
                    (value * 2 + 1 if value >= 1 else value / 2 or 1)
                    if number
                    else others.get(name, f"other {name}" if isinstance(value, str) else [1])
                )
                if isinstance(value, bool):
                    other = not value
                with self.subTest(family=family, setting=name), self.assertRaises((RuntimeError, ValueError)) as caught:
                    self.infer(family, "refused", **{name: other})
                error: BaseException = caught.exception
                while error.__cause__ is not None:
                    error = error.__cause__
                self.assertRegex(str(error), f"--{name} .* contradicts the model '{family}'")

    def bound(self, family: str) -> dict:
        return json.loads((self.root / family / "model.json").read_text())["settings"]

    def test_a_setting_of_the_network_on_the_command_line(self):
        # adfa was made with k 5; no configuration of inference has a key of this name
        words = ["--args_file", "configs/args_adfa_inference.yaml", f"--input={self.root / 'images'}"]
        words += [f"--model_dir={self.root / 'adfa'}", f"--output_dir={self.root / 'typed'}", "--formats", "csv"]
        self.assertEqual(run_command(*words, "--k", "5")[0], 0)
        for flags, message in (
            (["--k", "2"], "--k 2 contradicts the model 'adfa', which was trained with 5: leave it out."),
            (["--k", "0"], "k must be a whole number of at least 1, got '0'."),
            (["--epsilom", "0"], "'--epsilom' is no setting of this run"),
        ):
            with self.subTest(flags=flags):
                status, errors = run_command(*words, *flags)
                self.assertEqual(status, 1)
                self.assertIn(f"error: {message}", errors)

    def test_a_setting_of_the_network_in_a_layer(self):
        places = {"input": self.root / "images", "output_dir": self.root / "of_layer", "model_dir": self.root / "adfa"}
        with self.assertRaisesRegex(ValueError, "--descriptor_channels null contradicts the model 'adfa'"):
            run_workflow("adfa_inference", ["adfa_paper"], **places, override_model=True)

    def test_python_gives_what_the_command_gives(self):
        for family in OF_TRAINING:
            with self.subTest(family=family):
                model = bundle.load_model(self.root / family, device="cpu")
                results = model.predict(self.root / "images")
                expected = self.infer(family, "command")
                for result, row in zip(results, expected, strict=True):
                    found = [*result.probabilities.values()]
                    found += [] if result.anomaly_score is None else [result.anomaly_score]
                    self.assertTrue(set(np.round(found, 5)) <= set(np.round(row, 5)), (found, row))
                    if family != "detector":  # which has boxes and no map
                        self.assertEqual(result.heatmap.shape, (40, 60))
                one = model.predict(self.root / "images" / "1.png")
                pixels = np.asarray(Image.open(self.root / "images" / "1.png")) / 255
                for other in (model.predict(pixels), model.predict(torch.from_numpy(pixels)[None])):
                    if family != "detector":
                        np.testing.assert_allclose(other.heatmap, one.heatmap, rtol=1e-4, atol=1e-5)
                    for name, value in one.probabilities.items():
                        self.assertAlmostEqual(other.probabilities[name], value, places=4)

    def test_python_refuses_what_the_command_refuses(self):
        with self.assertRaisesRegex(ValueError, r"--k 2 contradicts the model 'adfa', which was trained with 5"):
            bundle.load_model(self.root / "adfa", k=2)
        with self.assertRaisesRegex(ValueError, "'epsilom' is no setting of adfa's inference"):
            bundle.load_model(self.root / "adfa", epsilom=2)
        model = bundle.load_model(self.root / "sna")
        for image, message in (
            (np.zeros((3, 3, 3, 3)), r"must have shape .* got \[3, 3, 3, 3\]"),
            (np.full((8, 8), 200), "must have display values 0..1, got 200 to 200"),
            (np.full((8, 8), np.nan), "must have display values 0..1"),
            (object(), "must be a path, an array or a tensor, got object"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                model.predict(image)
        (self.root / "broken.png").write_bytes((self.root / "images" / "0.png").read_bytes()[:200])
        with self.assertRaisesRegex(ValueError, "broken.png"):
            model.predict(self.root / "broken.png")
        found = model.predict([self.root / "broken.png", self.root / "images" / "0.png"])
        self.assertEqual((len(found), len(found.failures)), (1, 1))


if __name__ == "__main__":
    unittest.main()
