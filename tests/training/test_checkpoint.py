# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest
import unittest.mock
from types import SimpleNamespace

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from bundle.localization import MinedFirstBatchSampler
from bundle.training import EpochSeeder, TrainingCheckpoint
from bundle.training.checkpoint import save_atomically
from tests.folders import FolderTestCase


class CheckpointTestCase(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.checkpoint, self.best = self.root / "checkpoint.pt", self.root / "model.pt"

    def run_epochs(self, epochs: int, figures: list[float] | None, resume: bool = False) -> nn.Module:
        """Run a trainer that adds 1 to a weight in each epoch, ``figures`` being the metric from epoch 0 on."""
        network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(network.weight)
        trainer = Engine(lambda *_: network.weight.data.add_(1))
        trainer.state.max_epochs = epochs
        evaluator = None
        if figures is not None:
            evaluator = SimpleNamespace(state=SimpleNamespace(metrics={}, key_metric_name="figure"))

            def validate(engine):
                evaluator.state.metrics["figure"] = figures[engine.state.epoch]

            trainer.add_event_handler(Events.STARTED, validate)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        handler = TrainingCheckpoint(self.checkpoint, self.best, {"network": network}, evaluator, resume)
        handler.attach(trainer)
        trainer.run([0], max_epochs=epochs, epoch_length=1)
        return network

    def best_weight(self) -> float:
        return torch.load(self.best, weights_only=True)["weight"].item()


class TestTrainingCheckpoint(CheckpointTestCase):
    def test_keeps_the_best_network(self):
        self.run_epochs(4, [0.1, 0.5, 0.9, 0.9, 0.2])
        self.assertEqual(self.best_weight(), 2)  # the first of two equal ones
        state = torch.load(self.checkpoint, weights_only=True)
        self.assertEqual((state["best_epoch"], state["best_metric"], state["network"]["weight"].item()), (2, 0.9, 4))
        self.assertEqual({p.name for p in self.root.iterdir()}, {"checkpoint.pt", "model.pt"})

    def test_the_untrained_network_can_be_the_best(self):
        self.run_epochs(2, [0.9, 0.5, 0.6])
        self.assertEqual(self.best_weight(), 0)

    def test_a_resumed_run_goes_on_and_remembers_the_best(self):
        self.run_epochs(2, [0.1, 0.9, 0.2])
        network = self.run_epochs(4, [0, 0, 0.2, 0.8, 0.3], resume=True)
        self.assertEqual(network.weight.item(), 4)
        self.assertEqual(self.best_weight(), 1)
        network = self.run_epochs(5, [0, 0, 0, 0, 0.3, 0.95], resume=True)
        self.assertEqual((network.weight.item(), self.best_weight()), (5, 5))

    def test_a_metric_that_is_no_number_replaces_nothing(self):
        self.run_epochs(4, [0.1, 0.9, math.nan, 0.1, 0.8])
        self.assertEqual(self.best_weight(), 1)
        self.run_epochs(3, [math.nan, math.nan, 0.1, 0.05])
        self.assertEqual(self.best_weight(), 2)

    def test_the_scale_of_losses_in_half_precision_is_kept(self):
        def run(epochs: int, scale: float, resume: bool, amp: bool = True) -> SupervisedTrainer:
            network = nn.Linear(1, 1)
            trainer = SupervisedTrainer(
                device=torch.device("cpu"),
                max_epochs=epochs,
                train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}],
                network=network,
                optimizer=torch.optim.SGD(network.parameters(), 0.1),
                loss_function=nn.MSELoss(),
                amp=amp,
            )
            TrainingCheckpoint(self.checkpoint, self.best, {"network": network}, resume=resume).attach(trainer)
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            with unittest.mock.patch("torch.cuda.amp.GradScaler", return_value=scaler):  # MONAI's is for a GPU
                trainer.run()
            return trainer

        run(1, 8.0, False)
        self.assertEqual(run(2, 2.0, True).scaler.get_scale(), 8.0)
        run(3, 2.0, True, amp=False)
        self.assertEqual(run(4, 2.0, True).scaler.get_scale(), 2.0)

    def test_without_resume_it_starts_anew(self):
        self.run_epochs(2, [0.1, 0.9, 0.2])
        self.assertEqual(self.run_epochs(1, [0.1, 0.2]).weight.item(), 1)

    def test_without_an_evaluator_it_keeps_the_last(self):
        self.run_epochs(3, None)
        self.assertEqual(self.best_weight(), 3)

    def test_a_checkpoint_of_another_network_is_one_line(self):
        save_atomically({"network": {"other": torch.ones(1)}, "trainer": {}}, self.checkpoint)
        with self.assertRaisesRegex(ValueError, "cannot resume from 'checkpoint.pt': .*Was it written with") as caught:
            self.run_epochs(2, None, resume=True)
        self.assertNotIn("\n", str(caught.exception))
        self.checkpoint.write_text("cut off")
        with self.assertRaisesRegex(ValueError, "cannot resume from 'checkpoint.pt'"):
            self.run_epochs(2, None, resume=True)

    def test_a_word_is_no_boolean(self):
        with self.assertRaisesRegex(ValueError, "resume must be True or False, spelled so, got 'false'"):
            self.run_epochs(1, None, resume="false")

    def test_needs_a_network(self):
        with self.assertRaisesRegex(ValueError, r"save_dict must hold 'network', got \['net'\]"):
            TrainingCheckpoint(self.checkpoint, self.best, {"net": nn.Identity()})


class TestSaveAtomically(CheckpointTestCase):
    def test_a_failed_write_leaves_the_old_file(self):
        save_atomically({"a": 1}, self.root / "new" / "file.pt")
        with self.assertRaises(Exception):  # noqa: B017 pickle's error depends on the Python version
            save_atomically({"a": lambda: 0}, self.root / "new" / "file.pt")
        self.assertEqual(torch.load(self.root / "new" / "file.pt"), {"a": 1})
        self.assertEqual(len(list((self.root / "new").iterdir())), 1)


class TestEpochSeeder(unittest.TestCase):
    def draws(self, seed: int, start: int) -> list[float]:
        out = []
        engine = Engine(lambda *_: out.append(torch.rand(()).item()))
        transform = SimpleNamespace(seeds=[])
        transform.set_random_state = lambda seed: transform.seeds.append(seed)
        EpochSeeder(seed, transform).attach(engine)
        engine.load_state_dict({"epoch_length": 1, "max_epochs": 3, "iteration": start})
        engine.run([0])
        self.assertEqual(len(set(transform.seeds)), 3 - start)
        return out

    def test_an_epoch_draws_the_same_wherever_the_run_began(self):
        whole = self.draws(0, 0)
        self.assertEqual(len(set(whole)), 3)
        self.assertEqual(self.draws(0, 1), whole[1:])
        self.assertNotEqual(self.draws(1, 0), whole)

    def test_mined_batches_are_the_same_wherever_the_run_began(self):
        def epochs(start: int) -> list:
            batches = []
            engine = Engine(lambda _, batch: batches.append(batch.tolist()))
            EpochSeeder(0).attach(engine)
            sampler = MinedFirstBatchSampler([i % 4 == 0 for i in range(40)], 4, 1)
            loader = DataLoader(torch.arange(40), batch_sampler=sampler)
            engine.load_state_dict({"epoch_length": len(loader), "max_epochs": 3, "epoch": start})
            engine.run(loader)
            return batches

        whole = epochs(0)
        self.assertNotEqual(whole[:10], whole[10:20])
        self.assertEqual(epochs(1), whole[10:])


if __name__ == "__main__":
    unittest.main()
