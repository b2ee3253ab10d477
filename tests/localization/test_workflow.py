# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.classification import read_classifier_calibration
from bundle.files import file_sha256
from bundle.model.content import sealed
from tests.folders import FolderTestCase
from tests.workflows import check_names

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--image_size", "[64,64]", "--batch_size", "4", "--classes", "[Mass,Nodule]"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def run_bundle(task: str, *arguments: str) -> subprocess.CompletedProcess:
    return run("-m", "monai.bundle", "run", "--args_file", f"configs/args_msa_{task}.yaml", *SMALL, *arguments)


def make_dataset(folder: Path) -> None:
    """Write noisy pictures, bright squares in some, their label table and a box list of the test pictures."""
    random = np.random.default_rng(0)
    rows, boxes = [], [["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]]
    for i in range(24):
        pixels = random.integers(0, 100, (80, 96)).astype(np.uint8)
        label = [i % 2, int(i % 3 == 0)]
        pixels[20:40, 10:30] += np.uint8(120 * label[0])
        pixels[50:70, 60:80] += np.uint8(120 * label[1])
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"patient {i}", ("training", "training", "validation", "test")[i // 6], *label])
        if label[0]:
            boxes.append([f"{i}.png", "Mass", 10, 20, 20, 20, "", "", ""])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "split", "Mass", "Nodule"], *rows])
    with (folder / "BBox_List_2017.csv").open("w") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in boxes)


class TestMSAConfigs(FolderTestCase):
    def setUp(self):
        super().setUp()
        make_dataset(self.root)

    def succeed(self, done: subprocess.CompletedProcess) -> None:
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])

    @pytest.mark.full
    def test_all_phases_then_evaluation_and_inference(self):
        data, models = ["--dataset_dir", str(self.root)], self.root / "models"
        epochs = [v for p in ("backbone", "head", "end_to_end") for v in (f"--{p}_max_epochs", "1")]
        flags = [*SMALL, *epochs, "--mining_epochs_per_step", "1", "--mining_batch_size", "6"]
        done = run("scripts/train_msa.py", *data, "--output_dir", str(models), *flags)
        self.succeed(done)
        self.assertIn("mined step 3 of 3", done.stdout + done.stderr)
        state = torch.load(models / "mining" / "checkpoint.pt", weights_only=True)
        self.assertEqual(len(state["mining"]["bank"]["keys"]), 12)
        self.assertIn("frozen_copy.classifier.weight", state["loss"])
        for phase in ("backbone", "head", "end_to_end", "mining"):
            weights = models / phase / "model.pt"  # the best network's, in mining the last one's
            with self.assertNoLogs("bundle.classification.calibration"):
                content = read_classifier_calibration(
                    weights.with_name("calibration.json"), file_sha256(weights), ["Mass", "Nodule"]
                )
            self.assertEqual([curve["positives"] for curve in content["roc"].values()], [3, 2])
            self.assertTrue(all(0 < point < 1 for point in content["thresholds"].values()))

        trained = ["--model_dir", str(models / "mining")]
        boxes, out = str(self.root / "BBox_List_2017.csv"), self.root / "evaluation"
        self.succeed(run_bundle("evaluate", *data, *trained, "--boxes_path", boxes, "--output_dir", str(out)))
        check_names(out)
        metrics = json.loads((out / "metrics.json").read_text())
        mass = metrics["classes"]["Mass"]
        self.assertEqual(mass["images"], 3)
        # every annotated image has a box to judge; what is said of the images are the findings that are present
        self.assertGreater(mass["accuracy"]["0.1"] + mass["false_positives_per_image"]["0.1"], 0.99)
        images = json.loads((out / "predictions.json").read_text())["images"]
        points = read_classifier_calibration(models / "mining" / "calibration.json", None, ["Mass", "Nodule"])
        for image in images:
            self.assertIsNone(image.get("not_assessed"))
            present = {c for c, p in image["probabilities"].items() if p >= points["thresholds"][c]}
            self.assertLessEqual({box["label"] for box in image["boxes"]}, present)
            self.assertEqual(image["abnormal"], bool(present))

        out = self.root / "inference"
        self.succeed(run_bundle("inference", *trained, "--input", str(self.root / "1.png"), "--output_dir", str(out)))
        self.assertIn("step 3", (out / "report.html").read_text())
        # a threshold on a user's own word: at 1 nothing is present, near 0 everything is
        for threshold, present in (("1.0", False), ("0.0001", True)):
            out = self.root / f"inference {threshold}"
            flags = ["--input", str(self.root / "1.png"), "--output_dir", str(out)]
            self.succeed(run_bundle("inference", *trained, *flags, "--probability_threshold", threshold))
            (row,) = csv.DictReader((out / "predictions.csv").open())
            self.assertEqual((int(row["box_count"]) > 0, row["abnormal"]), (present, str(int(present))))
        (models / "mining" / "calibration.json").unlink()
        model = models / "mining" / "model.json"
        model.write_text(json.dumps(sealed({**json.loads(model.read_text()), "calibration": None})))
        out = self.root / "uncalibrated"
        done = run_bundle("inference", *trained, "--input", str(self.root / "1.png"), "--output_dir", str(out))
        self.succeed(done)
        self.assertIn("no calibration: probabilities are raw", done.stdout + done.stderr)
        (row,) = csv.DictReader((out / "predictions.csv").open())
        self.assertEqual((row["box_count"], row["abnormal"]), ("0", ""))
        self.assertGreater(float(row["probability_Mass"]), 0)

    @pytest.mark.full
    def test_boxes_of_some_images_guide_the_maps(self):
        layers = ["base", "train", "msa", "msa_train", "msa_end_to_end", "msa_boxes"]
        files = str([f"configs/{name}.yaml" for name in layers])
        boxes = ["--boxes_path", str(self.root / "BBox_List_2017.csv"), "--boxes_weight", "0.5"]
        losses = []
        for weight in ("0.5", "0.0"):
            out = self.root / f"model {weight}"
            flags = ["--dataset_dir", str(self.root), "--output_dir", str(out), "--max_epochs", "1"]
            boxes[-1] = weight
            done = run_bundle("train_end_to_end", *flags, "--config_file", files, *boxes)
            self.succeed(done)
            losses.append(float(re.search(r"loss ([\d.]+)", done.stdout + done.stderr)[1]))
        self.assertGreater(losses[0], losses[1] + 0.1)

    @pytest.mark.full
    def test_annotated_images_are_mined_and_the_others_preserve(self):
        boxes = str(self.root / "BBox_List_2017.csv")
        flags = [
            "--dataset_dir",
            str(self.root),
            "--boxes_path",
            boxes,
            "--epochs_per_step",
            "1",
            "--mining_steps",
            "2",
        ]
        out = self.root / "model"
        self.succeed(run_bundle("train_mining_chestxray14", *flags, "--output_dir", str(out)))
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        # rows of the table are counted from 2; every second training image has a box
        self.assertEqual(state["mining"]["bank"]["keys"], [f"{row:06d}" for row in range(3, 14, 2)])


if __name__ == "__main__":
    unittest.main()
