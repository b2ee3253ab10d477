# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly import AdaptiveChannelAttention
from bundle.anomaly.channel_attention import adaptive_kernel_size


class TestAdaptiveKernelSize(unittest.TestCase):
    def test_hand_computed_values(self):
        # (log2(C) + 1) / 2 rounded down: 1, 2, 3, 4, 4, 5, 6; even ones go up by one
        for channels, size in ((2, 1), (8, 3), (32, 3), (128, 5), (448, 5), (512, 5), (2048, 7)):
            self.assertEqual(adaptive_kernel_size(channels), size, channels)


class TestAdaptiveChannelAttention(unittest.TestCase):
    def test_hand_computed_value(self):
        # one channel, kernel weight 1: maximum 3 and mean 2 give sigmoid(5), and x (1 + 0.1 sigmoid(5))
        block = AdaptiveChannelAttention(1, kernel_size=1)
        torch.nn.init.ones_(block.conv.weight)
        x = torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]])
        torch.testing.assert_close(block(x), x * 1.0993307)

    def test_matches_the_equations(self):
        block = AdaptiveChannelAttention(6, weight=0.3, kernel_size=3)
        x = torch.randn(2, 6, 4, 5)
        kernel = block.conv.weight.flatten().tolist()
        expected = torch.empty_like(x)
        for b in range(2):
            maxima, means = [[p.item() for p in (f(x[b, c]) for c in range(6))] for f in (torch.max, torch.mean)]
            for c in range(6):
                logit = sum(
                    kernel[j] * (pooled[c + j - 1])
                    for pooled in (maxima, means)
                    for j in range(3)
                    if 0 <= c + j - 1 < 6
                )
                expected[b, c] = x[b, c] * (1 + 0.3 * torch.sigmoid(torch.tensor(logit)))
        torch.testing.assert_close(block(x), expected)

    def test_weight_zero_is_the_identity(self):
        x = torch.randn(2, 8, 3, 3)
        torch.testing.assert_close(AdaptiveChannelAttention(8, weight=0)(x), x)

    def test_gradcheck(self):
        block = AdaptiveChannelAttention(4).double()
        x = torch.randn(1, 4, 2, 3, dtype=torch.double, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(block, (x,)))

    def test_rejects_an_even_kernel(self):
        for size in (0, 4):
            with self.assertRaisesRegex(ValueError, f"kernel_size must be odd and at least 1, got {size}"):
                AdaptiveChannelAttention(8, kernel_size=size)


if __name__ == "__main__":
    unittest.main()
