# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from torch import nn

from bundle.localization.inferer import AttentionMiningInferer
from bundle.networks.maps import normalized_maps


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
        self.assertEqual(out["logits"][0].tolist(), [9, 10])

    def test_one_pass_gives_everything(self):
        net = CountingNet()
        out = AttentionMiningInferer(steps=3, upsample=1)(self.image, net)
        self.assertEqual(net.calls, 1)
        shapes = {name: tuple(value.shape) for name, value in out.items()}
        expected = {"logits": (2, 2), "maps": (2, 3, 2, 8, 12), "heatmap": (2, 2, 8, 12)}
        self.assertEqual(shapes, {**expected, "boxes": (2, 2, 3, 4), "map_heights": (2, 2, 3)})
        # the hottest square first, in pixels of the image
        self.assertEqual(out["boxes"][0, 0, 0].tolist(), [4, 4, 12, 12])
        # the second object, invisible at half of the first, is found in step 2
        self.assertEqual(out["maps"][0, 1, 0, 5, 8].item(), 1.0)
        mean = (64 * 3 + 96) / (32 * 48)
        self.assertAlmostEqual(out["logits"][0, 0].item(), mean, places=5)

    def test_empty_map_gives_no_box(self):
        out = AttentionMiningInferer()(self.image, CountingNet())
        self.assertEqual(out["map_heights"][1].sum().item() + out["boxes"][1].sum().item(), 0)
        self.assertEqual(out["logits"][1, 0].item(), 0)

    def test_one_step_is_the_plain_map(self):
        net = CountingNet()
        out = AttentionMiningInferer(steps=1)(self.image, net)
        torch.testing.assert_close(out["heatmap"], normalized_maps(net(self.image)))

    def test_flip_of_a_symmetric_network_changes_nothing(self):
        net = CountingNet()
        plain, flipped = AttentionMiningInferer()(self.image, net), AttentionMiningInferer(flip=True)(self.image, net)
        torch.testing.assert_close(plain, flipped)

    def test_the_flip_changes_the_maps_and_not_the_logits(self):
        class LeftOnly(nn.Module):
            def forward(self, x):
                maps = nn.functional.avg_pool2d(x, 4)
                return maps * (torch.arange(maps.shape[-1]) < maps.shape[-1] // 2)

        plain, flipped = (AttentionMiningInferer(flip=flip)(self.image, LeftOnly()) for flip in (False, True))
        torch.testing.assert_close(plain["logits"], flipped["logits"])  # the calibration was fitted to these
        self.assertGreater((plain["heatmap"] - flipped["heatmap"]).abs().max(), 0.1)

    def test_settings_that_mean_nothing(self):
        for setting, value, rule in (
            ("steps", 0, "steps must be a whole number of at least 1, got 0"),
            ("steps", True, "steps must be a whole number of at least 1, got True"),
            ("threshold", 0, r"threshold must be in \(0, 1\], got 0"),
            ("threshold", float("nan"), r"threshold must be in \(0, 1\], got nan"),
            ("box_thresholds", "[0.8,0.6]", "box_thresholds must be a list of one or more fractions"),
            ("box_thresholds", [0.4, 0.8], r"box_thresholds must descend within \(0, 1\]"),
            ("upsample", 0, "upsample must be a whole number of at least 1, got 0"),
            ("flip", "false", "flip must be True or False, got 'false'"),
        ):
            with self.assertRaisesRegex(ValueError, rule):
                AttentionMiningInferer(**{setting: value})


if __name__ == "__main__":
    unittest.main()
