# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
import torch.multiprocessing
from ignite.engine import Engine, Events
from torch import nn

from bundle.anomaly import CenterBank
from bundle.anomaly.center_bank import mean_embedding
from bundle.anomaly.center_bank_updater import CenterBankUpdater


class _Network(nn.Module):
    """Pixels times a factor are the patch features."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.center_bank = CenterBank(4, 2)

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * image.flatten(2).transpose(1, 2)


def _images() -> torch.Tensor:
    return torch.randn(7, 2, 2, 2, generator=torch.Generator().manual_seed(0))


def _batches(images: torch.Tensor, size: int) -> list[dict]:
    return [{"image": part} for part in images.split(size)]


def _mean(images: torch.Tensor) -> torch.Tensor:
    return images.mean(0).flatten(1).T


def _run(updater: CenterBankUpdater, epochs: int, factors: dict[int, float] | None = None) -> tuple[Engine, list]:
    """Run epochs whose only step sets the factor, and return the engine and the bank after each epoch."""
    network, banks = updater.network, []

    def step(engine, _):
        with torch.no_grad():
            network.factor.fill_((factors or {}).get(engine.state.epoch, 1.0))

    engine = Engine(step)
    updater.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: banks.append(network.center_bank.centers.clone()))
    engine.run([0], max_epochs=epochs)
    return engine, banks


def _two_processes(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    idist.sync()
    images = _images()
    part = images[:5] if rank == 0 else images[5:]  # unequal shares
    torch.save(mean_embedding(_Network(), _batches(part, 2)), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class TestCenterBankUpdater(unittest.TestCase):
    def test_hand_computed_value(self):
        # two batches of 2 and 1 images: (1 + 2 + 6) / 3, not ((1 + 2) / 2 + 6) / 2
        images = torch.tensor([1.0, 2.0, 6.0]).view(3, 1, 1, 1).expand(3, 2, 2, 2)
        torch.testing.assert_close(mean_embedding(_Network(), _batches(images, 2)), torch.full((4, 2), 3.0))

    def test_exact_whatever_the_batch_size(self):
        images = _images()
        for size in (1, 2, 3, 7):
            updater = CenterBankUpdater(_Network(), _batches(images, size))
            _run(updater, 1)
            torch.testing.assert_close(updater.network.center_bank.centers, _mean(images))

    @pytest.mark.full
    def test_two_processes_give_the_same_mean(self):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_two_processes, (folder,), nprocs=2)
            for rank in (0, 1):
                torch.testing.assert_close(torch.load(Path(folder) / f"{rank}.pt"), _mean(_images()))

    def test_modes(self):
        mean = _mean(_images())
        factors = {1: 2.0, 2: 4.0, 3: 8.0}  # of the network after each epoch
        for mode, expected in (
            ("once", [1, 1, 1]),
            ("epoch", [2, 4, 8]),
            ("ema", [0.75 * 1 + 0.25 * 2, 0.75 * 1.25 + 0.25 * 4, 0.75 * 1.9375 + 0.25 * 8]),
        ):
            updater = CenterBankUpdater(_Network(), _batches(_images(), 3), mode, momentum=0.75)
            for bank, factor in zip(_run(updater, 3, factors)[1], expected, strict=True):
                torch.testing.assert_close(bank, factor * mean, msg=mode)

    def test_collapse_is_logged_and_warned_of(self):
        updater = CenterBankUpdater(_Network(), _batches(_images(), 3), name="center_bank_test")
        with self.assertLogs("center_bank_test", "WARNING") as logs:
            engine, _ = _run(updater, 2, {1: 0.5, 2: 0.1})
        self.assertAlmostEqual(engine.state.metrics["embedding_variance"], 0.01, places=5)
        self.assertEqual(len(logs.output), 1)  # a quarter of the variance is no collapse
        self.assertIn("The embedding has collapsed: 1.0 %", logs.output[0])

    def test_a_resumed_run_keeps_its_bank_and_its_start(self):
        first = CenterBankUpdater(_Network(), _batches(_images(), 3), "once")
        _run(first, 1, {1: 2.0})
        second = CenterBankUpdater(_Network(), _batches(_images(), 3), "once")
        second.load_state_dict(first.state_dict())
        second.network.load_state_dict(first.network.state_dict())
        engine = Engine(lambda *_: None)
        second.attach(engine)
        engine.load_state_dict({"epoch_length": 1, "max_epochs": 2, "iteration": 1})
        engine.run([0])
        torch.testing.assert_close(second.network.center_bank.centers, _mean(_images()))  # not twice that
        self.assertAlmostEqual(engine.state.metrics["embedding_variance"], 4, places=4)

    def test_rejects_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, r"mode must be one of .* got 'never'"):
            CenterBankUpdater(_Network(), [], "never")
        for momentum in (1.0, -0.1):
            with self.assertRaisesRegex(ValueError, rf"momentum must be in \[0, 1\), got {momentum}"):
                CenterBankUpdater(_Network(), [], "ema", momentum)


if __name__ == "__main__":
    unittest.main()
