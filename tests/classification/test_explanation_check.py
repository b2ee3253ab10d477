# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from torch import nn

from bundle.classification.explanation_check import randomization_check


class TestRandomizationCheck(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
        self.image = torch.rand(2, 1, 12, 12)

    def test_edges_stay_and_the_network_does_not(self):
        layers = ["2", "0"]
        blind = randomization_check(self.network, lambda net, x: x, self.image, layers)
        self.assertEqual(list(blind), layers)
        self.assertAlmostEqual(blind["0"], 1.0)
        seeing = randomization_check(self.network, lambda net, x: net(x).detach(), self.image, layers)
        self.assertLess(seeing["0"], 0.9)

    def test_the_network_itself_is_left_alone(self):
        before = {k: v.clone() for k, v in self.network.state_dict().items()}
        randomization_check(self.network, lambda net, x: net(x).detach(), self.image, ["2"])
        for key, value in self.network.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]))

    def test_constant_maps_count_nothing(self):
        alike = randomization_check(self.network, lambda net, x: torch.zeros_like(x), self.image, ["2"])
        self.assertEqual(alike, {"2": 0.0})

    def test_a_map_that_is_none_is_refused(self):
        with self.assertRaisesRegex(ValueError, "maps of the trained network must be finite, .* nan for image 0"):
            randomization_check(self.network, lambda net, x: x / 0 * 0, self.image, ["2"])
        maps = iter((self.image, self.image * torch.nan))
        with self.assertRaisesRegex(ValueError, "maps once '2' is random must be finite"):
            randomization_check(self.network, lambda net, x: next(maps), self.image, ["2"])

    def test_layer_without_parameters(self):
        for name in ("1", "9"):
            with self.assertRaisesRegex(ValueError, f"parameters to randomize, got '{name}'"):
                randomization_check(self.network, lambda net, x: x, self.image, [name])


if __name__ == "__main__":
    unittest.main()
