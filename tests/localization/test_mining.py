# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn

from bundle.localization.heatmaps import mined_heatmaps
from bundle.localization.mining import AttentionMiningHandler, MaskBank
from bundle.localization.preservation import KnowledgePreservationLoss


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.classifier = nn.Conv2d(4, 2, 1, bias=False)

    def forward(self, x):
        return self.classifier(self.first(x))


def samples(count=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    return [{"image": x, "label": (torch.arange(2) + i) % 2.0, "key": f"s{i}"} for i, x in enumerate(images)]


def make_run(data, epochs, mode="none", save=None, load=None, shuffle=True, steps=3, learning_rate=0.1):
    torch.manual_seed(7)
    network = TinyNet()
    loss = KnowledgePreservationLoss(network, ("first", "classifier"), mode, mined_fraction=0.5)
    optimizer = torch.optim.SGD(network.parameters(), learning_rate)
    miner = AttentionMiningHandler(network, DataLoader(Dataset(data), batch_size=4), loss, steps, epochs // steps)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=3, shuffle=shuffle),
        network=network,
        optimizer=optimizer,
        loss_function=loss,
    )
    state = {"network": network, "loss": loss, "mining": miner, "trainer": trainer}
    if load is not None:
        CheckpointLoader(load, state).attach(trainer)
    miner.attach(trainer)
    if save is not None:
        CheckpointSaver(save, state, save_interval=1).attach(trainer)
    return trainer, miner


def mine_on_two_processes(rank, folder):
    torch.set_num_threads(1)
    torch.manual_seed(7)
    network = TinyNet()
    loss = KnowledgePreservationLoss(network, ("first",), "none")
    part = samples()[rank::2]
    handler = AttentionMiningHandler(network, DataLoader(Dataset(part), batch_size=2), loss)
    handler.mine("cpu")
    handler.mine("cpu")
    torch.save(handler.state_dict(), Path(folder) / f"{rank}.pt")


class TestMaskBank(unittest.TestCase):
    def test_ones_before_the_first_step_and_for_unknown_keys(self):
        bank, like = MaskBank(), torch.zeros(2, 1, 2, 2)
        self.assertTrue(bank.masks_of(["a", "b"], like).all())
        bank.add_step({"a": (like[0], torch.zeros(1, 2, 2, dtype=torch.bool))})
        self.assertEqual(bank.masks_of(["b", "a"], like).flatten(1).any(dim=1).tolist(), [True, False])

    def test_another_size_of_maps(self):
        bank = MaskBank()
        bank.add_step({"a": (torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))})
        with self.assertRaisesRegex(ValueError, r"shape \(1, 2, 2\) that was mined, got \(1, 3, 3\)"):
            bank.masks_of(["a"], torch.zeros(1, 1, 3, 3))
        with self.assertRaisesRegex(ValueError, "every step must mine the same samples, got 1 after 1"):
            bank.add_step({"b": (torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))})


class TestAttentionMiningHandler(unittest.TestCase):
    def test_standing_network_mines_what_the_pure_function_mines(self):
        trainer, miner = make_run(samples(), epochs=3, learning_rate=0.0)
        trainer.run()
        raw = miner.network(torch.stack([s["image"] for s in samples()])).detach()
        heats, masks, final = mined_heatmaps(raw, steps=3)
        for step in range(3):
            torch.testing.assert_close(miner.bank.heats[step], heats[step])
            self.assertTrue(torch.equal(miner.bank.masks[step], masks[step]))
        torch.testing.assert_close(torch.stack(list(miner.final_heatmaps().values())), final)

    def test_only_the_head_of_a_batch_is_erased(self):
        trainer, miner = make_run(samples(), epochs=3, mode="vanilla", shuffle=False, learning_rate=0.0)
        whole = []

        @trainer.on(IterationEvents.LOSS_COMPLETED)
        def _look(engine):
            untouched = miner.network(engine.state.batch["image"])
            whole.append((engine.state.output["pred"] == untouched).flatten(1).all(dim=1).tolist())

        trainer.run()
        self.assertEqual(whole[0], [True, True, True])  # step 1 erases nothing
        self.assertEqual(whole[-1], [False, False, True])  # n = round(0.5 * 3) = 2

    def test_masks_follow_their_samples_when_shuffled(self):
        trainer, miner = make_run(samples(), epochs=3, learning_rate=0.0)
        wrong = []

        @trainer.on(IterationEvents.LOSS_COMPLETED)
        def _look(engine):
            if engine.state.epoch != 2:
                return
            rows = [miner.bank.index[key] for key in engine.state.batch["key"]]
            wrong.append((engine.state.output["pred"][~miner.bank.masks[0][rows]] != 0).any().item())

        trainer.run()
        self.assertEqual(wrong, [False, False])

    def test_killed_in_step_2_and_resumed_in_step_2_with_the_same_masks(self):
        class KilledError(Exception):
            pass

        with tempfile.TemporaryDirectory() as folder:
            trainer, first = make_run(samples(), epochs=6, mode="full", save=folder)

            @trainer.on(Events.ITERATION_COMPLETED(once=7))  # two batches an epoch: epoch 4, the second of step 2
            def _kill(engine):
                raise KilledError

            with self.assertRaises(KilledError), self.assertLogs("ignite.engine.engine.SupervisedTrainer", "ERROR"):
                trainer.run()
            saved = max(Path(folder).glob("checkpoint_epoch=*.pt"), key=lambda path: path.stat().st_mtime)
            self.assertEqual(saved.name, "checkpoint_epoch=3.pt")
            trainer, second = make_run(samples(), epochs=6, mode="full", load=str(saved))
            seen = []

            @trainer.on(Events.EPOCH_STARTED(once=4))
            def _look(engine):
                seen.append(len(second.bank.masks))
                self.assertTrue(torch.equal(second.bank.masks[0], first.bank.masks[0]))
                torch.testing.assert_close(second.loss.frozen_copy.state_dict(), first.loss.frozen_copy.state_dict())

            trainer.run()
        self.assertEqual(seen, [1])
        self.assertEqual(len(second.bank.masks), 3)

    @pytest.mark.full
    def test_two_processes_share_what_each_mined(self):
        with tempfile.TemporaryDirectory() as folder:
            idist.spawn("gloo", mine_on_two_processes, (folder,), nproc_per_node=2)
            states = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
        torch.manual_seed(7)
        network = TinyNet()
        loss = KnowledgePreservationLoss(network, ("first",), "none")
        alone = AttentionMiningHandler(network, DataLoader(Dataset(samples()), batch_size=6), loss)
        alone.mine("cpu")
        alone.mine("cpu")
        for state in states:
            self.assertEqual(state["bank"]["keys"], [f"s{i}" for i in range(6)])
            for step in range(2):
                self.assertTrue(torch.equal(state["bank"]["masks"][step], alone.bank.masks[step]))

    def test_sample_without_a_key(self):
        data = [{k: v for k, v in s.items() if k != "key"} for s in samples()]
        trainer, _ = make_run(data, epochs=3)
        with (
            self.assertLogs("ignite.engine.engine.SupervisedTrainer", "ERROR"),
            self.assertRaisesRegex(ValueError, "attention mining needs the item 'key' in each sample, got"),
        ):
            trainer.run()

    def test_two_samples_with_one_key(self):
        _, miner = make_run([*samples(2), samples(1)[0]], epochs=3)
        with self.assertRaisesRegex(ValueError, "each sample needs its own 'key', got 's0' twice"):
            miner.mine("cpu")

    def test_epochs_that_do_not_fit_the_steps(self):
        trainer, miner = make_run(samples(), epochs=3)
        miner.epochs_per_step = 2
        with (
            self.assertLogs("ignite.engine.engine.SupervisedTrainer", "ERROR"),
            self.assertRaisesRegex(ValueError, r"max_epochs must be steps \* epochs_per_step = 6, got 3"),
        ):
            trainer.run()
        with self.assertRaisesRegex(ValueError, "steps must be a whole number of at least 1, got 0"):
            AttentionMiningHandler(TinyNet(), [], miner.loss, steps=0)
        with self.assertRaisesRegex(ValueError, r"threshold must be in \(0, 1\], got nan"):
            AttentionMiningHandler(TinyNet(), [], miner.loss, threshold=float("nan"))

    def test_a_map_that_is_none_is_named(self):
        _, miner = make_run(samples(), epochs=3)
        with torch.no_grad():
            next(miner.network.parameters()).fill_(float("nan"))
        with self.assertRaisesRegex(ValueError, "maps must be finite to be mined, that of the sample 's0' is not"):
            miner.mine("cpu")


if __name__ == "__main__":
    unittest.main()
