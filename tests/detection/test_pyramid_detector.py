# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.networks.utils import convert_to_torchscript

from bundle.detection import PyramidDetector


def small(**settings) -> PyramidDetector:
    torch.manual_seed(0)
    return PyramidDetector(2, **{"backbone": "resnet18", "weights": None, "pyramid_channels": 16, **settings})


class TestPyramidDetector(unittest.TestCase):
    def test_as_many_rows_as_anchors_for_any_size(self):
        for backbone in ("efficientnet_lite0", "resnet18"):
            network = small(backbone=backbone).eval()
            for height, width in ((64, 64), (75, 100)):
                with self.subTest(backbone=backbone, height=height, width=width):
                    # 75 x 100: 10 x 13, 5 x 7, 3 x 4 and 2 x 2 positions of three anchors
                    expected = 3 * (10 * 13 + 5 * 7 + 3 * 4 + 2 * 2) if height == 75 else 3 * (64 + 16 + 4 + 1)
                    self.assertEqual(network(torch.rand(1, 3, height, width)).shape, (1, expected, 6))
                    self.assertEqual(network.anchors(height, width).shape, (expected, 4))
                    self.assertEqual(sum(network.positions(height, width)) * 3, expected)

    def test_boxes_begin_near_their_anchors_and_logits_at_the_prior(self):
        network = small().eval()
        output = network(torch.rand(1, 3, 64, 64))[0]
        anchors = network.anchors(64, 64)
        moved = (output[:, 2:] - anchors).abs() / (anchors[:, 2:] - anchors[:, :2]).repeat(1, 2)
        self.assertLess(moved.max().item(), 0.4)  # of a side
        # the focal loss paper begins at a probability of 0.01
        self.assertLess((output[:, :2].sigmoid() - 0.01).abs().max().item(), 0.01)

    def test_rows_belong_to_their_anchors(self):
        # a box head that moves only the second of three anchors shows in every third row, from the second on
        network = small().eval()
        torch.nn.init.zeros_(network.box_head.bbox_reg.weight)
        with torch.no_grad():
            network.box_head.bbox_reg.bias.copy_(torch.tensor([0.0] * 4 + [1.0, 0, 0, 0] + [0.0] * 4))
        moved = network(torch.rand(1, 3, 64, 64))[0, :, 2:] - network.anchors(64, 64)
        self.assertEqual((moved.abs().sum(dim=1) > 0).int().tolist(), [0, 1, 0] * 85)

    def test_a_batch_gives_what_its_images_give(self):
        network, images = small(attention="sna").eval(), torch.rand(3, 3, 64, 48)
        torch.testing.assert_close(network(images), torch.cat([network(x[None]) for x in images]), atol=1e-4, rtol=1e-4)

    def test_torchscript(self):
        network, images = small(attention="sna").eval(), torch.rand(1, 3, 64, 48)
        torch.testing.assert_close(convert_to_torchscript(network)(images), network(images))

    def test_attention_stands_in_the_pyramid(self):
        counts = {name: sum(p.numel() for p in small(attention=name).parameters()) for name in ("none", "sna", "eca")}
        self.assertEqual(counts["sna"], counts["none"])  # spectral norm attention has no parameter
        self.assertEqual(counts["eca"], counts["none"] + 4 * 3)  # a kernel of 3 a level for 16 channels
        images = torch.rand(1, 3, 64, 64)
        self.assertFalse(torch.equal(small(attention="sna").eval()(images), small().eval()(images)))

    def test_every_parameter_is_used_or_frozen(self):
        network = small(attention="se", frozen=("shallow",), fixed_statistics=False).train()
        network(torch.rand(2, 3, 64, 64)).square().mean().backward()
        self.assertFalse(network.shallow.training)
        for name, parameter in network.named_parameters():
            self.assertEqual(parameter.grad is None, name.startswith("shallow."), name)

    def test_batch_statistics_stand_still(self):
        network = small().train()
        before = [buffer.clone() for buffer in network.buffers()]
        network(torch.rand(2, 3, 64, 64))
        torch.testing.assert_close(list(network.buffers()), before)

    def test_refused(self):
        for settings, words in (
            ({"backbone": "vgg"}, "backbone must be one of"),
            ({"frozen": ("stem",)}, "frozen must name stages among"),
            ({"pyramid_channels": 12}, "multiple of 16, got 12"),
            ({"anchor_ratios": (0.0,)}, "anchors must have sides above 0"),
            ({"attention": "other"}, "attention must be one of"),
        ):
            with self.assertRaisesRegex(ValueError, words):
                small(**settings)


if __name__ == "__main__":
    unittest.main()
