# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import gzip
import json
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import yaml
from PIL import Image

from tests.folders import FolderTestCase

ROOT = Path(__file__).resolve().parents[2]
with mock.patch.object(sys, "path", [str(ROOT / "scripts"), str(ROOT / "scripts/studies"), *sys.path]):
    import card_pictures
    import set_parts
    import train_models

    from tests.workflows import write_start


def films_of(path):
    with gzip.open(path, "rt", newline="") as stream:
        return list(csv.DictReader(stream))


class TestTrainModels(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.data, self.out = self.root / "data", self.root / "models/small"
        (self.data / "nih_part/images").mkdir(parents=True)
        (self.data / "nih_part/boxes.csv").write_text("image,label,x,y,width,height\n")
        self.shown = sorted(set_parts.demo_patients())[0]
        patients = [("1", 0, 1, 18), ("2", 1, 1, 60), ("3", 2, 0, 60), ("4", 3, 1, 60), (self.shown, 0, 1, 60)]
        patients.append(("6", 0, 1, 17))
        lines = ["image,patient,fold,view,age,no_finding"]
        for number, (patient, fold, normal, age) in enumerate(patients):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(self.data / f"nih_part/images/{number}.png")
            lines.append(f"{number}.png,{patient},{fold},PA,{age},{normal}")
        (self.data / "nih_part/manifest.csv").write_text("\n".join(lines) + "\n")
        self.registry = self.root / "models.yaml"
        self.registry.write_text(yaml.safe_dump({"small": {"family": "adfa", "set": "nih_pa", "flags": {"k": 2}}}))

    def train(self):
        def training(command):
            self.flags = dict(zip((word[2:] for word in command[5::2]), command[6::2], strict=True))
            write_start(Path(self.flags["output_dir"]), "adfa", image_size=[32, 32])

        with mock.patch("run_study.run_command", training):
            return train_models.train("small", self.data, self.out, self.root / "work", self.registry)

    def test_a_folder_with_small_weights_and_the_films_without_demo_patients(self):
        self.assertRegex(self.train(), "small: 2 images of 2 patients, .* MB in .*; seed 0, commit")
        self.assertEqual((self.flags["k"], self.flags["seed"]), ("2", "0"))
        films = films_of(self.out / "training_images.csv.gz")
        # 2 is abnormal, 3 is of a fold that is kept for later, 4 is of a demo patient, 5 of a child
        self.assertEqual(
            [(row["image"], row["patient"], row["fold"]) for row in films], [("0.png", "1", "0"), ("1.png", "2", "1")]
        )
        self.assertEqual(json.loads((self.out / "model.json").read_text())["format_version"], 2)

    def test_a_set_with_a_demo_patient_is_refused(self):
        with mock.patch.object(train_models, "demo_patients", return_value={"2"}):
            with self.assertRaisesRegex(SystemExit, "'small': demo patients must take no part .* patient 2 does"):
                self.train()

    def test_an_unknown_name_gives_the_known_ones(self):
        with self.assertRaisesRegex(SystemExit, "NAME must be one of small, got 'other'"):
            train_models.entry_of("other", self.registry)


class TestShippedModels(unittest.TestCase):
    def test_no_demo_patient_was_trained_on(self):
        for path in sorted((ROOT / "models").glob("*/training_images.csv.gz")):
            with self.subTest(path.parent.name):
                patients = {row["patient"] for row in films_of(path)}
                self.assertTrue(patients)
                self.assertEqual(patients & set_parts.demo_patients(), set())

    def test_every_folder_is_complete_and_in_the_registry(self):
        known = yaml.safe_load((ROOT / "models/models.yaml").read_text())
        for path in sorted((ROOT / "models").glob("*/model.json")):
            for name in ("model.pt", "README.md", "training_images.csv.gz"):
                self.assertTrue((path.parent / name).is_file(), f"{path.parent.name}/{name}")
            self.assertEqual(json.loads(path.read_text())["family"], known[path.parent.name]["family"])
            card = (path.parent / "README.md").read_text()
            for picture in path.parent.glob("*.jpg"):
                self.assertIn(f"]({picture.name})", card)
                self.assertLess(picture.stat().st_size, 150_000)
                with Image.open(picture) as page:
                    self.assertGreater(np.asarray(page).std(), 10)

    def test_labels_below_the_films_of_a_card(self):
        labels = card_pictures.labels_of_films()
        # rows of NIH's Data_Entry_2017_v2020.csv
        self.assertEqual(labels["00016064_010"], "Effusion, Mass, Pneumonia")
        self.assertEqual(labels["00000342_000"], "no finding")


if __name__ == "__main__":
    unittest.main()
