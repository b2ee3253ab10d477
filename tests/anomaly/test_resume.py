# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
SMALL = {
    "image_size": [32, 32],
    "resize": [32, 32],
    "weights": None,
    "descriptor_channels": 8,
    "batch_size": 4,
    "held_back": 0.5,
    "max_epochs": EPOCHS,
}
# what `monai.bundle run` does, with a pause after each epoch that leaves time to kill
PROGRAM = """
import sys, time, yaml, torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
torch.set_num_threads(1)
settings = yaml.safe_load(sys.argv[1])
pause = settings.pop("pause")
workflow = ConfigWorkflow(**settings)
workflow.initialize()
if pause:
    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: time.sleep(pause))
workflow.run()
"""


def start(data: Path, output_dir: Path, resume: bool = False, pause: float = 0) -> subprocess.Popen:
    arguments = yaml.safe_load((ROOT / "configs" / "args_adfa_train.yaml").read_text())
    settings = {**SMALL, "dataset_dir": str(data), "output_dir": str(output_dir), "resume": resume, "pause": pause}
    command = [sys.executable, "-c", PROGRAM, yaml.safe_dump({**arguments, **settings, "logging_file": False})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen) -> None:
    output = process.communicate(timeout=600)[0].decode()
    assert process.returncode == 0, output[-2000:]


def kill_after(process: subprocess.Popen, checkpoint: Path, epoch: int) -> int:
    """Kill a run once its checkpoint says that an epoch is done, and return that epoch."""
    deadline = time.monotonic() + 600
    done = 0
    while done < epoch and time.monotonic() < deadline and process.poll() is None:
        if checkpoint.is_file():
            done = torch.load(checkpoint, weights_only=True)["trainer"]["epoch"]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output[-2000:]
    return torch.load(checkpoint, weights_only=True)["trainer"]["epoch"]


class TestResume(unittest.TestCase):
    @pytest.mark.full
    def test_a_killed_training_ends_like_one_that_was_not(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            random = np.random.default_rng(0)
            (root / "data").mkdir()
            for i in range(20):
                Image.fromarray(random.integers(0, 255, (32, 32)).astype(np.uint8)).save(root / "data" / f"{i}.png")
            whole = start(root / "data", root / "whole")
            killed = start(root / "data", root / "killed", pause=5)
            epoch = kill_after(killed, root / "killed" / "checkpoint.pt", 2)
            finish(whole)
            self.assertTrue(2 <= epoch < EPOCHS)
            finish(start(root / "data", root / "killed", resume=True))
            for name in ("checkpoint.pt", "model.pt"):
                expected, got = (torch.load(root / run / name, weights_only=True) for run in ("whole", "killed"))
                if name == "checkpoint.pt":
                    self.assertEqual(got["trainer"], expected["trainer"])
                    self.assertEqual(got["best_epoch"], expected["best_epoch"])
                    self.assertEqual(got["best_metric"], expected["best_metric"])
                    self.assertEqual(got["center_bank_updater"], expected["center_bank_updater"])
                    expected, got = expected["network"], got["network"]
                for key, value in expected.items():
                    torch.testing.assert_close(got[key], value, atol=0, rtol=0, msg=f"{name}: {key}")
            self.assertEqual(
                (root / "killed" / "calibration.json").read_text(), (root / "whole" / "calibration.json").read_text()
            )
            self.assertEqual(list((root / "killed").glob(".*.tmp")), [])


if __name__ == "__main__":
    unittest.main()
