# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import ignite.distributed as idist
import torch
from torch import nn

from bundle.anomaly import AdaptationLoss
from bundle.training.processes import (
    SynchronizedBatchNorm2d,
    gathered,
    parallel_network,
    refuse_processes,
    same_everywhere,
    share_of_batch,
    shared_mean,
    start_processes,
    summed,
)


def images() -> torch.Tensor:
    return 5 + 3 * torch.randn(7, 2, 3, 4, generator=torch.Generator().manual_seed(0))


def share(values: torch.Tensor) -> torch.Tensor:
    return values[idist.get_rank() :: idist.get_world_size()]


def normalized() -> dict[str, torch.Tensor]:
    """Train a batch normalization one step on this process's images, 4 and 3 of them with two processes."""
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 2.0]))
        network[1].weight.fill_(0.5)
        network[1].bias.zero_()
    x = share(images()).requires_grad_()
    model = parallel_network(network)
    shared_mean((model(x) - share(images()[:, :1])).square()).backward()
    norm = network[0]
    out = {"weight": norm.weight.grad, "bias": norm.bias.grad, "convolution": network[1].weight.grad}
    out |= {"mean": norm.running_mean, "variance": norm.running_var}
    # the processes' parts of the loss are averaged, those of the images are not
    return {**out, "x": torch.stack(gathered(list(x.grad / idist.get_world_size())))}


def adapted() -> torch.Tensor:
    """Return the gradient of ADFA's loss for a batch whose changed images are in the second process only."""
    x = images()[:4, :1].abs().requires_grad_()
    target = torch.zeros(4, 1, 3, 4)
    target[1::2, :, :2] = 1
    AdaptationLoss()(share(x), share(target)).backward()
    return summed(x.grad)[0] / idist.get_world_size()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    module = nn.Linear(2, 1)
    nn.init.constant_(module.weight, rank)
    same_everywhere(module)
    out = {
        "sums": summed(torch.tensor([1.0, 2.0]) * (rank + 1), rank),
        "mean": shared_mean(torch.tensor([1.0, 2.0, 6.0])[: 3 - 2 * rank]),
        "items": gathered([["a", "c", "e"], ["b", "d"]][rank]),
        "first": module.weight.detach(),
        "share": share_of_batch(6),
        "normalized": normalized(),
        "adapted": adapted(),
    }
    try:
        share_of_batch(5)
    except ValueError as error:
        out["message"] = str(error)
    try:
        refuse_processes()
    except ValueError as error:
        out["refusal"] = str(error)
    torch.save(out, Path(folder) / f"{rank}.pt")


class TestTwoProcesses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            idist.spawn("gloo", work, (folder,), nproc_per_node=2)
            cls.found = [torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)]

    def test_sums_and_lists(self):
        for found in self.found:
            torch.testing.assert_close(found["sums"][0], torch.tensor([3.0, 6.0], dtype=torch.float64))
            self.assertEqual(found["sums"][1].item(), 1)
            self.assertEqual(found["items"], ["a", "b", "c", "d", "e"])
            self.assertEqual(found["first"].abs().sum().item(), 0)
            self.assertEqual(found["share"], 3)
            self.assertEqual(found["message"], "batch_size must be a multiple of the 2 processes, got 5.")
            self.assertIn("write their results from one process, got 2", found["refusal"])

    def test_the_parts_of_a_mean_have_it_as_their_mean(self):
        # (1 + 2 + 6 + 1) / 4
        parts = [found["mean"].item() for found in self.found]
        self.assertEqual(parts, [4.5, 0.5])
        self.assertEqual(sum(parts) / 2, 2.5)

    def test_batch_normalization_is_that_of_all_images(self):
        expected = normalized()
        for found in self.found:
            for name, value in expected.items():
                torch.testing.assert_close(found["normalized"][name], value, msg=lambda m, n=name: f"{n}: {m}")

    def test_the_loss_of_adfa_has_the_gradient_of_the_whole_batch(self):
        for found in self.found:
            torch.testing.assert_close(found["adapted"], adapted())


class TestOneProcess(unittest.TestCase):
    def test_nothing_changes(self):
        network = nn.BatchNorm2d(1)
        self.assertIs(parallel_network(network), network)
        with mock.patch.object(idist, "get_world_size", return_value=2):
            network.requires_grad_(False)  # torch's own refuses one without a gradient
            self.assertIs(parallel_network(network), network)
        self.assertEqual(gathered([1, 2]), [1, 2])
        self.assertEqual(share_of_batch(5), 5)
        refuse_processes()
        self.assertEqual(shared_mean(torch.tensor([1.0, 2.0])).item(), 1.5)
        start_processes(None)
        self.assertEqual(logging.root.manager.disable, 0)

    def test_evaluation_is_that_of_plain_batch_normalization(self):
        plain = nn.Sequential(nn.BatchNorm2d(2)).eval()
        nn.init.constant_(plain[0].running_mean, 3)
        expected = plain(images())
        converted = SynchronizedBatchNorm2d.convert(plain)
        self.assertIsInstance(converted[0], SynchronizedBatchNorm2d)
        torch.testing.assert_close(converted(images()), expected, rtol=0, atol=0)

    def test_unknown_backend(self):
        with self.assertRaisesRegex(ValueError, "backend must be auto, gloo or nccl, got 'mpi'"):
            start_processes("mpi")


if __name__ == "__main__":
    unittest.main()
