# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from torch import nn

from bundle.functional.heatmaps import normalized_maps
from bundle.inferers.attention_mining import AttentionMiningInferer


class CountingNet(nn.Module):
    """Gives its image, averaged over 4 x 4 pixels, as the map of both classes."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return nn.functional.avg_pool2d(x, 4).repeat(1, 2, 1, 1)


class TestAttentionMiningInferer(unittest.TestCase):
    def setUp(self):
        self.image = torch.zeros(2, 1, 32, 48)
        self.image[0, 0, 4:12, 4:12] = 3.0
        self.image[0, 0, 20:28, 32:44] = 1.0

    def test_half_precision_of_the_network_does_not_reach_the_figures(self):
        class Half(nn.Module):
            def forward(self, x):
                return torch.stack([x[:, 0] * 0 + logit for logit in (9.0, 10.0)], dim=1).half()

        out = AttentionMiningInferer(steps=1)(self.image, Half())
        self.assertEqual({value.dtype for value in out.values()}, {torch.float32})
        self.assertLess(out["probability"][0, 0], out["probability"][0, 1])

    def test_one_pass_gives_everything(self):
        net = CountingNet()
        out = AttentionMiningInferer(steps=3, upsample=1)(self.image, net)
        self.assertEqual(net.calls, 1)
        shapes = {name: tuple(value.shape) for name, value in out.items()}
        expected = {"probability": (2, 2), "maps": (2, 3, 2, 8, 12), "heatmap": (2, 2, 8, 12)}
        self.assertEqual(shapes, {**expected, "boxes": (2, 2, 3, 4), "scores": (2, 2, 3)})
        # the hottest square first, in pixels of the image
        self.assertEqual(out["boxes"][0, 0, 0].tolist(), [4, 4, 12, 12])
        # the second object, invisible at half of the first, is found in step 2
        self.assertEqual(out["maps"][0, 1, 0, 5, 8].item(), 1.0)
        mean = (64 * 3 + 96) / (32 * 48)
        self.assertAlmostEqual(out["probability"][0, 0].item(), torch.tensor(mean).sigmoid().item(), places=5)

    def test_empty_map_gives_no_box(self):
        out = AttentionMiningInferer()(self.image, CountingNet())
        self.assertEqual(out["scores"][1].sum().item() + out["boxes"][1].sum().item(), 0)
        self.assertEqual(out["probability"][1, 0].item(), 0.5)

    def test_one_step_is_the_plain_map(self):
        net = CountingNet()
        out = AttentionMiningInferer(steps=1)(self.image, net)
        torch.testing.assert_close(out["heatmap"], normalized_maps(net(self.image)))

    def test_flip_of_a_symmetric_network_changes_nothing(self):
        net = CountingNet()
        plain, flipped = AttentionMiningInferer()(self.image, net), AttentionMiningInferer(flip=True)(self.image, net)
        torch.testing.assert_close(plain, flipped)

    def test_steps_below_one(self):
        with self.assertRaisesRegex(ValueError, "steps must be at least 1, got 0"):
            AttentionMiningInferer(steps=0)


if __name__ == "__main__":
    unittest.main()
