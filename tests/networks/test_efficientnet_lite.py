# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
import torch.nn.functional as F

from bundle.networks.efficientnet_lite import EfficientNetLite0, InvertedResidual, _SameConv2d
from bundle.networks.pretrained import efficientnet_lite0_weights, load_pretrained


class TestSamePadding(unittest.TestCase):
    def test_hand_computed_value(self):
        # TensorFlow pads 4 pixels, kernel 3, stride 2 only at the end: windows (1 2 3) and (3 4 0)
        conv = _SameConv2d(1, 1, 3, 2, bias=False)
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, 0] = 1  # sums the first row of each window
        x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 4, 4)
        self.assertEqual(conv(x)[0, 0].tolist(), [[6, 7], [6, 7]])

    def test_equals_plain_padding_where_it_is_symmetric(self):
        for size, stride, kernel in ((7, 2, 3), (8, 1, 5), (9, 2, 5)):
            conv, x = _SameConv2d(2, 3, kernel, stride), torch.randn(1, 2, size, size)
            torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, stride, kernel // 2))


class TestInvertedResidual(unittest.TestCase):
    def test_shortcut_only_where_shapes_agree(self):
        x = torch.randn(2, 8, 6, 6)
        for out_channels, stride, shortcut in ((8, 1, True), (8, 2, False), (12, 1, False)):
            block = InvertedResidual(8, out_channels, 3, stride, 6).eval()
            torch.nn.init.zeros_(block.bn2.weight)  # the branch gives 0
            self.assertEqual(block(x).shape, (2, out_channels, 6 // stride, 6 // stride))
            torch.testing.assert_close(block(x), x if shortcut else torch.zeros_like(block(x)))


class TestEfficientNetLite0(unittest.TestCase):
    def test_the_published_checkpoint_fits_tensor_for_tensor(self):
        network = EfficientNetLite0(num_classes=1000)
        report = load_pretrained(network, efficientnet_lite0_weights(), ignore="^$", rename=r"(?<![^.])_")
        self.assertEqual((len(report.matched), report.missing, report.unused), (len(network.state_dict()), [], []))
        self.assertEqual(sum(p.numel() for p in network.parameters()), 4_652_008)

    def test_stages(self):
        network = EfficientNetLite0().eval()
        x = torch.randn(1, 3, 64, 96)
        maps = network.stages(x)
        expected = [
            (1, c, 64 // s, 96 // s) for c, s in zip(network.stage_channels, network.stage_strides, strict=True)
        ]
        self.assertEqual([tuple(m.shape) for m in maps], expected)
        torch.testing.assert_close(network(x), maps[-1])

    def test_classifier_and_odd_sizes(self):
        network = EfficientNetLite0(in_channels=1, num_classes=4).eval()
        x = torch.randn(2, 1, 45, 33)
        self.assertEqual(network(x).shape, (2, 4))
        torch.testing.assert_close(network(x)[1:], network(x[1:]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.jit.script(network)(x), network(x))

    def test_every_parameter_gets_a_gradient(self):
        network = EfficientNetLite0(num_classes=2)
        network(torch.randn(2, 3, 64, 64)).square().sum().backward()
        self.assertEqual([n for n, p in network.named_parameters() if p.grad is None], [])


if __name__ == "__main__":
    unittest.main()
