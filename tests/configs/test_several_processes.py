# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# Steps are small, or batch normalization of maps of one pixel makes rounding grow with every step. Parameters that
# start at zero (biases) show whether the steps agree. Adam takes steps of one size and would hide a wrong gradient.
SGD = {
    "_target_": "torch.optim.SGD",
    "params": "$[p for p in @network.parameters() if p.requires_grad]",
    "lr": "@learning_rate",
}
SMALL = {"image_size": [32, 32], "resize": [32, 32], "batch_size": 4, "optimizer": SGD, "logging_file": False}
CLASSES = {"classes": ["dark", "bright"], "weights": None}
RUNS = {
    "adfa": {"max_epochs": 2, "held_back": 0.5, "backbone": "resnet18", "weights": None, "learning_rate": 0.1},
    # no dropout, no blending of the images of a batch: they draw per process
    "sna": {
        "max_epochs": 2,
        "classes": ["dark", "bright"],
        "mixup_alpha": 0,
        "averaging": 0.1,
        "warmup_epochs": 1,
        "learning_rate": 1e-5,
    },
    "msa_end_to_end": {**CLASSES, "backbone": "resnet18", "max_epochs": 2, "learning_rate": 1e-5},
    "msa_mining": {
        **CLASSES,
        "backbone": "resnet18",
        "mined_fraction": 0.5,
        # at the start the features are those of the frozen copy, where the gradient of their distance is any direction
        "preservation_weight": 0.0,
        "mining_steps": 2,
        "epochs_per_step": 1,
        "learning_rate": 1e-5,
    },
}
# what `monai.bundle run` does, for several workflows after each other
PROGRAM = """
import os, sys, yaml, torch
from monai.bundle import ConfigWorkflow
torch.set_num_threads(1)
for settings in yaml.safe_load(sys.argv[1]):
    os.environ["MASTER_PORT"] = settings.pop("port")  # a group of its own: the last one may still hold its port
    workflow = ConfigWorkflow(workflow_type="train", **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
"""


def arguments_of(run: str) -> list[str]:
    family, _, phase = run.partition("_")
    name = f"args_{family}_train_{phase}.yaml" if phase else f"args_{family}_train.yaml"
    layers = yaml.safe_load((ROOT / "configs" / name).read_text())["config_file"]
    return [*layers, "configs/multi_gpu.yaml"]


def make_dataset(folder: Path) -> None:
    """Write 20 pictures, every second one bright, and a label table: 12 to train on, 5 for validation."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(20):
        pixels = random.integers(0, 120, (32, 32)).astype(np.uint8) + np.uint8(60 * (i % 2))
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append(
            [
                f"{i:02d}.png",
                f"patient {i}",
                "training" if i < 12 else "validation" if i < 17 else "test",
                1 - i % 2,
                i % 2,
            ]
        )
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "split", "dark", "bright"], *rows])


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(data: Path, output_dir: Path, processes: int) -> list[subprocess.Popen]:
    """Start every run in as many processes as asked, with the variables that SLURM's srun would set."""
    runs = [
        {"config_file": arguments_of(name), **SMALL, **settings, "dataset_dir": str(data)}
        | {"output_dir": str(output_dir / name), "port": free_port()}
        for name, settings in RUNS.items()
    ]
    started = []
    for rank in range(processes):
        slurm = {
            "SLURM_JOB_ID": "1",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NTASKS": str(processes),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_NUM_NODES": "1",
        }
        torchs = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        torchs |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        environment = {**os.environ, **slurm, **torchs, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM, yaml.safe_dump(runs)]
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    return started


@pytest.mark.full
class TestSeveralProcesses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        make_dataset(cls.root)
        started = {n: start(cls.root, cls.root / f"of_{n}", n) for n in (1, 2)}
        try:
            cls.output = {n: [p.communicate(timeout=600)[0].decode() for p in group] for n, group in started.items()}
        finally:
            for process in (p for group in started.values() for p in group):
                process.kill()
        for n, group in started.items():
            for process, output in zip(group, cls.output[n], strict=True):
                assert process.returncode == 0, output[-3000:]

    def states(self, run: str, name: str) -> tuple[dict, dict]:
        first, second = (torch.load(self.root / f"of_{n}" / run / name, weights_only=True) for n in (1, 2))
        return first, second

    def assert_same_weights(self, run: str) -> None:
        one, two = self.states(run, "checkpoint.pt")
        self.assertEqual(one["trainer"], two["trainer"])
        self.assertEqual(one["best_epoch"], two["best_epoch"])
        self.assertAlmostEqual(one["best_metric"], two["best_metric"], places=6)
        for key, value in one["network"].items():
            difference = (two["network"][key].double() - value.double()).abs().max()
            self.assertLessEqual(difference.item(), 0.02 * value.double().abs().max().item(), f"{run}: {key}")

    def test_adfa(self):
        self.assert_same_weights("adfa")
        one, two = (json.loads((self.root / f"of_{n}" / "adfa" / "calibration.json").read_text()) for n in (1, 2))
        self.assertEqual(len(two["scores"]), len(one["scores"]))  # none lost, none twice: an odd number of images
        np.testing.assert_allclose(two["scores"], one["scores"], rtol=1e-3)

    def test_sna(self):
        self.assert_same_weights("sna")
        one, two = (json.loads((self.root / f"of_{n}" / "sna" / "calibration.json").read_text()) for n in (1, 2))
        self.assertAlmostEqual(one["temperature"], two["temperature"], places=2)

    def test_msa(self):
        self.assert_same_weights("msa_end_to_end")

    def test_attention_mining(self):
        self.assert_same_weights("msa_mining")
        one, two = (state["mining"]["bank"] for state in self.states("msa_mining", "checkpoint.pt"))
        self.assertEqual(one["keys"], two["keys"])
        self.assertEqual(len(one["keys"]), 12)
        for heat, expected in zip(two["heats"], one["heats"], strict=True):
            torch.testing.assert_close(heat, expected, rtol=1e-2, atol=1e-3)

    def test_the_first_process_alone_writes(self):
        for run in RUNS:
            files = [sorted(p.name for p in (self.root / f"of_{n}" / run).iterdir()) for n in (1, 2)]
            self.assertEqual(files[0], files[1])
            self.assertEqual(len(list((self.root / "of_2" / run / "tensorboard").rglob("events*"))), 1)
        self.assertNotIn("epoch 1/2", self.output[2][1])


if __name__ == "__main__":
    unittest.main()
