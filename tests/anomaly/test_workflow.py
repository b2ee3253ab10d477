# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from bundle.files import file_sha256
from bundle.model.content import sealed
from tests.workflows import check_names, run_workflow

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"image_size": [32, 32], "held_back": 0.5}


def run_here(task: str, **settings) -> None:
    run_workflow(f"adfa_{task}", **{**of_training(task), **settings})


def of_training(task: str) -> dict:
    """Return what training is told; the model's file tells the other tasks."""
    return SMALL if task == "train" else {}


def run_outside(task: str, **settings) -> subprocess.CompletedProcess:
    """Run one task as a user would."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", f"configs/args_adfa_{task}.yaml"]
    for name, value in {**of_training(task), **settings}.items():
        command += [f"--{name}", str(value).replace(" ", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def write_pictures(folder: Path, count: int, seed: int, blot: bool = False) -> None:
    """Write noise of 48 rows and 40 columns, with a white square where it is to be abnormal."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = random.integers(60, 90, (48, 40)).astype(np.uint8)
        if blot:
            pixels[8:24, 20:36] = 250
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestADFAWorkflow(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.data, cls.model = cls.root / "data", cls.root / "model"
        write_pictures(cls.data / "train" / "good", 20, seed=0)
        write_pictures(cls.data / "test" / "good", 4, seed=1)
        write_pictures(cls.data / "test" / "blot", 4, seed=2, blot=True)
        run_here("train", dataset_dir=cls.data, output_dir=cls.model, max_epochs=2)

    def test_training_leaves_a_model_and_its_calibration(self):
        self.assertTrue(list((self.model / "tensorboard").iterdir()))
        state = torch.load(self.model / "model.pt", weights_only=True)
        self.assertEqual(state["center_bank.centers"].shape[0], 16)
        self.assertGreater(state["center_bank.centers"].abs().sum().item(), 0)
        checkpoint = torch.load(self.model / "checkpoint.pt", weights_only=True)
        self.assertEqual(checkpoint["trainer"]["epoch"], 2)
        calibration = json.loads((self.model / "calibration.json").read_text())
        self.assertEqual(calibration["weights_sha256"], file_sha256(self.model / "model.pt"))
        self.assertEqual(len(calibration["scores"]), 20)  # all normals, each scored without its fold
        self.assertEqual(calibration["threshold"], sorted(calibration["scores"])[-2])  # 20 normals, rate 0.1

    def test_evaluation(self):
        out = self.root / "evaluation"
        run_here("evaluate", dataset_dir=self.data, model_dir=self.model, output_dir=out)
        check_names(out)
        metrics = json.loads((out / "metrics.json").read_text())
        self.assertEqual((metrics["negatives"], metrics["positives"]), (4, 4))
        self.assertEqual((metrics["auroc"], metrics["auroc_interval"]), (1, [1, 1]))  # a white square in noise
        self.assertEqual(metrics["sensitivity"], 1)
        self.assertIn("specificity", metrics)
        self.assertEqual(metrics["false_alarms_at_10"], 1 - metrics["specificity"])  # the rate of the threshold
        rows = rows_of(out / "scores.csv")
        self.assertEqual([row["label"] for row in rows], ["1"] * 4 + ["0"] * 4)
        for row in rows[:4]:
            self.assertEqual((row["abnormal"], round(float(row["p_value"]), 6)), ("1", round(1 / 21, 6)))
        self.assertEqual(rows_of(out / "failures.csv"), [])
        self.assertEqual(len(list((out / "overlays").glob("*.png"))), 8)
        self.assertIn("ROC", (out / "report.html").read_text())

    def test_evaluation_with_boxes(self):
        names = [f"test/blot/{i:02d}.png" for i in range(4)]
        coco = {
            "images": [{"id": i, "file_name": name, "width": 40, "height": 48} for i, name in enumerate(names)],
            "annotations": [{"image_id": i, "category_id": 0, "bbox": [20, 8, 16, 16]} for i in range(4)],
            "categories": [{"id": 0, "name": "blot"}],
        }
        (self.root / "boxes.json").write_text(json.dumps(coco))
        out, boxes = self.root / "boxed", self.root / "boxes.json"
        run_here("evaluate", dataset_dir=self.data, model_dir=self.model, output_dir=out, boxes_path=boxes)
        check_names(out)
        metrics = json.loads((out / "metrics.json").read_text())
        self.assertEqual((metrics["annotated_images"], metrics["annotated_boxes"]), (4, 4))
        self.assertAlmostEqual(metrics["area_of_boxes"], 16 * 16 / (48 * 40))
        self.assertGreater(metrics["pixel_auroc"], max(0.6, metrics["pixel_auroc_of_mean_map"]))
        self.assertGreater(metrics["heat_in_boxes"], metrics["area_of_boxes"])

    def test_the_heatmap_lies_on_the_pixels_of_the_file(self):
        out = self.root / "heat"
        source = self.data / "test" / "blot" / "00.png"
        run_here("inference", input=source, model_dir=self.model, output_dir=out, smoothing=1.0, override_model=True)
        (file,) = (out / "heatmaps").glob("*.nii.gz")
        heat = np.squeeze(nibabel.load(file).get_fdata())
        self.assertEqual(heat.shape, (48, 40))
        row, column = np.unravel_index(np.nanargmax(heat), heat.shape)
        self.assertTrue(16 <= column < 40 and 4 <= row < 28, (column, row))  # the square and one position around it

    def test_sizes_and_modes_mix_and_bad_files_are_listed(self):
        folder, out = self.root / "messy", self.root / "messy_out"
        folder.mkdir()
        gray = Image.open(self.data / "test" / "good" / "00.png")
        for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"):
            picture = (
                Image.fromarray(np.asarray(gray).astype(np.uint16) * 200) if mode == "I;16" else gray.convert(mode)
            )
            picture.resize((40 + len(mode), 60)).save(folder / f"good_{mode.replace(';', '')}.png")
        gray.convert("RGB").save(folder / "good.jpg")
        (folder / "bad_empty.png").touch()
        (folder / "bad_text.png").write_text("no picture")
        whole = (folder / "good_RGB.png").read_bytes()
        (folder / "bad_cut.png").write_bytes(whole[: len(whole) // 2])
        run_here("inference", input=folder, model_dir=self.model, output_dir=out)
        rows = rows_of(out / "predictions.csv")
        self.assertEqual({Path(row["source"]).name for row in rows}, {p.name for p in folder.glob("good*")})
        self.assertTrue(all(np.isfinite(float(row["anomaly_score"])) for row in rows))
        failures = rows_of(out / "failures.csv")
        self.assertEqual({Path(row["file"]).name for row in failures}, {p.name for p in folder.glob("bad*")})
        self.assertTrue(all(row["reason"].strip() and "\n" not in row["reason"] for row in failures))

    def test_training_goes_on_without_unreadable_files(self):
        data = self.root / "partly"
        write_pictures(data, 6, seed=5)
        whole = (data / "00.png").read_bytes()
        (data / "cut.png").write_bytes(whole[: len(whole) // 2])
        (data / "empty.png").touch()
        run_here("train", dataset_dir=data, output_dir=self.root / "partly_out", max_epochs=1)
        self.assertTrue((self.root / "partly_out" / "calibration.json").is_file())

    def test_no_abnormal_test_image(self):
        data, out = self.root / "normals", self.root / "normals_out"
        write_pictures(data / "train" / "good", 4, seed=0)
        write_pictures(data / "test" / "good", 3, seed=1)
        run_here("evaluate", dataset_dir=data, model_dir=self.model, output_dir=out)
        metrics = json.loads((out / "metrics.json").read_text())
        self.assertNotIn("auroc", metrics)
        self.assertEqual(metrics["note"], "No AUROC: the list has no abnormal image.")
        self.assertIn("No AUROC", (out / "report.html").read_text())

    def test_no_images_and_one_image(self):
        empty, one = self.root / "empty", self.root / "one"
        empty.mkdir()
        write_pictures(one, 1, seed=0)
        for folder, message in (
            (empty, "no normal training images found in 'empty'"),
            (one, "training needs at least 4 normal images, found 1"),
            (self.root / "absent", "dataset_dir must be an existing folder, CSV or JSON file, got '.*absent'"),
        ):
            with self.assertRaisesRegex(Exception, ".*") as caught:
                run_here("train", dataset_dir=folder, output_dir=self.root / "none")
            self.assertRegex(_innermost(caught.exception), message)
        with self.assertRaises(Exception) as caught:
            run_here("inference", input=empty, model_dir=self.model, output_dir=self.root / "none")
        self.assertIn("the input must hold files", _innermost(caught.exception))

    def test_a_model_without_calibration_gives_scores_and_no_verdicts(self):
        model, out = self.root / "bare", self.root / "bare_out"
        model.mkdir()
        shutil.copy(self.model / "model.pt", model)
        content = json.loads((self.model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps(sealed({**content, "calibration": None})))
        run_here("inference", input=self.data / "test", model_dir=model, output_dir=out, formats=["csv"])
        self.assertEqual({(row["p_value"], row["abnormal"]) for row in rows_of(out / "scores.csv")}, {("", "")})

    @pytest.mark.full
    def test_errors_are_one_line_on_the_command_line(self):
        blocked = self.root / "blocked"
        blocked.write_text("a file where a folder should be")
        for task, settings, message in (
            ("train", {"dataset_dir": self.data, "output_dir": blocked}, "output_dir '.*blocked' cannot be written"),
            (
                "inference",
                {"input": self.data, "model_dir": self.model, "output_dir": self.root / "o", "backbone": "resnet18"},
                "--backbone resnet18 contradicts the model 'model', which was trained with efficientnet_lite0",
            ),
        ):
            with self.subTest(task=task):
                done = run_outside(task, **settings)
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr.strip().splitlines()[-1], f"^error: {message}")
                self.assertNotIn("Traceback", done.stderr)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


if __name__ == "__main__":
    unittest.main()
