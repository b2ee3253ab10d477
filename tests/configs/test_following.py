# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How a person follows a run: a bar on a terminal, plain lines elsewhere, MLflow by a switch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import unittest
import unittest.mock
import warnings
from pathlib import Path

import numpy as np
from monai.utils import optional_import, path_to_sqlite_uri
from PIL import Image

from bundle.command.run import _one_line as one_line
from tests.folders import FolderTestCase
from tests.workflows import run_workflow

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"image_size": [32, 32], "resize": [32, 32], "batch_size": 4, "max_epochs": 2, "weights": "random"}
TRACKING = ("mlflow", "sqlalchemy", "alembic")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestFollowing(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.images, self.out = self.root / "images", self.root / "out"
        self.images.mkdir()
        random = np.random.default_rng(0)
        for i in range(8):
            Image.fromarray(random.integers(0, 256, (32, 32)).astype(np.uint8)).save(self.images / f"{i}.png")

    def train(self, errors: io.StringIO, **settings) -> None:
        with contextlib.redirect_stderr(errors):
            run_workflow("adfa_train", **SMALL, dataset_dir=self.images, output_dir=self.out, **settings)

    def test_a_bar_where_a_person_watches(self):
        terminal = _Terminal()
        self.train(terminal, tensorboard=False)
        self.assertIn("reading images: 100%", terminal.getvalue())
        self.assertRegex(terminal.getvalue(), r"Epoch \[2/2\]")

    def test_plain_lines_elsewhere_and_curves_by_default(self):
        file = io.StringIO()
        with self.assertLogs("training", logging.INFO) as log:
            self.train(file)
        self.assertNotIn("%|", file.getvalue())
        lines = [line for line in log.output if "epoch" in line]
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[1], r"epoch 2/2: loss [\d.]+, .*synthetic_anomaly_auroc [\d.]+, 0:00 left$")
        self.assertTrue(list((self.out / "tensorboard").iterdir()))
        self.assertFalse((self.out / "mlruns.db").exists())

    @unittest.skipUnless(all(map(importlib.util.find_spec, TRACKING)), "needs the extra `tracking`")
    def test_mlflow_by_a_switch(self):
        from mlflow import MlflowClient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.train(io.StringIO(), tensorboard=False, tracking="mlflow", experiment_name="films")
            client = MlflowClient(path_to_sqlite_uri(str(self.out / "mlruns.db")))
            (run,) = client.search_runs([client.get_experiment_by_name("films").experiment_id])
        self.assertEqual(run.info.status, "FINISHED")
        for name in ("synthetic_anomaly_auroc", "train_loss"):
            self.assertGreater(len({p.step for p in client.get_metric_history(run.info.run_id, name)}), 1)

    def test_the_switch_without_mlflow_is_one_line(self):
        absent, _ = optional_import("not_there", descriptor="Please install mlflow before using MLFlowHandler.")
        errors = io.StringIO()
        with unittest.mock.patch("monai.handlers.mlflow_handler.mlflow", absent):
            try:
                self.train(errors, tracking="mlflow")
            except RuntimeError as error:
                with contextlib.redirect_stderr(errors):
                    one_line(type(error), error, error.__traceback__)
        last = errors.getvalue().splitlines()[-1]
        self.assertRegex(last, "^error: Please install mlflow before using MLFlowHandler")
        self.assertNotIn("raceback", errors.getvalue())


if __name__ == "__main__":
    unittest.main()
