# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
import torch.nn.functional as F
from torch import nn

from bundle.localization.preservation import KnowledgePreservationLoss


class TinyNet(nn.Module):
    """Two layers with batch statistics; returns maps of two classes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.classifier = nn.Conv2d(3, 2, 1, bias=False)

    def forward(self, x):
        return self.classifier(self.first(x))


LAYERS = ("first", "classifier")


class TestKnowledgePreservationLoss(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.net = TinyNet().train()
        self.x, self.y = torch.rand(8, 1, 6, 6), torch.randint(0, 2, (8, 2)).float()

    def test_split_of_the_batch(self):
        loss = KnowledgePreservationLoss(self.net, LAYERS)
        self.assertEqual([loss.num_mined(n) for n in (1, 8, 16, 20)], [1, 1, 2, 2])
        self.assertEqual(KnowledgePreservationLoss(self.net, LAYERS, mode="none").num_mined(8), 8)

    def test_full_equals_the_equations_written_out(self):
        loss = KnowledgePreservationLoss(self.net, LAYERS, mined_fraction=0.25, weight=0.5)
        with torch.no_grad():
            for p in self.net.parameters():
                p.add_(0.1)
        maps = self.net(self.x)
        copy = loss.frozen_copy
        distance = 0.0
        for name in LAYERS:
            new = self.net.first(self.x) if name == "first" else self.net(self.x)
            old = copy.first(self.x) if name == "first" else copy(self.x)
            gap = new.mean((2, 3))[2:] - old.mean((2, 3))[2:]
            distance = distance + sum(row.square().sum().sqrt() for row in gap) / 6 / 2
        expected = F.binary_cross_entropy_with_logits(maps.mean((2, 3))[:2], self.y[:2]) + 0.5 * distance
        torch.testing.assert_close(loss(maps, self.y), expected)

    def test_vanilla_and_none_are_the_mean_over_all_images(self):
        maps = self.net(self.x)
        expected = F.binary_cross_entropy_with_logits(maps.mean((2, 3)), self.y)
        for mode in ("vanilla", "none"):
            torch.testing.assert_close(KnowledgePreservationLoss(self.net, LAYERS, mode)(maps, self.y), expected)

    def test_identical_networks_are_at_no_distance_and_give_finite_gradients(self):
        self.net.eval()
        self.net.training = True  # images are kept while training; the statistics stand still
        loss = KnowledgePreservationLoss(self.net, LAYERS)
        maps = self.net(self.x)
        value = loss(maps, self.y)
        torch.testing.assert_close(value, F.binary_cross_entropy_with_logits(maps.mean((2, 3))[:1], self.y[:1]))
        value.backward()
        self.assertTrue(all(p.grad.isfinite().all() for p in self.net.parameters()))

    def test_frozen_copy_never_moves_until_told_to_remember(self):
        loss = KnowledgePreservationLoss(self.net, LAYERS)
        before = {k: v.clone() for k, v in loss.frozen_copy.state_dict().items()}
        optimizer = torch.optim.SGD([*self.net.parameters(), *loss.parameters()], lr=0.5)
        for _ in range(3):
            loss.train()
            loss(self.net(self.x), self.y).backward()
            optimizer.step()
        for name, value in loss.frozen_copy.state_dict().items():
            torch.testing.assert_close(value, before[name])
        self.assertFalse(torch.equal(self.net.classifier.weight, loss.frozen_copy.classifier.weight))
        loss.remember()
        torch.testing.assert_close(self.net.state_dict(), loss.frozen_copy.state_dict())

    def test_state_dict_holds_the_copy_and_not_the_network(self):
        names = set(KnowledgePreservationLoss(self.net, LAYERS).state_dict())
        self.assertEqual(names, {f"frozen_copy.{k}" for k in self.net.state_dict()})
        self.assertEqual(KnowledgePreservationLoss(self.net, LAYERS, mode="none").state_dict(), {})

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "mode must be 'full', 'vanilla' or 'none', got 'half'"):
            KnowledgePreservationLoss(self.net, LAYERS, mode="half")
        with self.assertRaisesRegex(ValueError, r"mined_fraction must be in \(0, 1\], got 0"):
            KnowledgePreservationLoss(self.net, LAYERS, mined_fraction=0)
        with self.assertRaisesRegex(ValueError, "it has no 'layer3'"):
            KnowledgePreservationLoss(self.net, ("layer3",))
        with self.assertRaisesRegex(ValueError, r"target must be of shape \(8, 2\), got \(8,\)"):
            KnowledgePreservationLoss(self.net, LAYERS, "none")(self.net(self.x), torch.zeros(8))


if __name__ == "__main__":
    unittest.main()
