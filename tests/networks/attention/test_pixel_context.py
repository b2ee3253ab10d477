# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.networks.attention.pixel_context import PyramidPixelContextRecalibration


class TestPyramidPixelContextRecalibration(unittest.TestCase):
    def test_starts_as_a_gate_of_one_half(self):
        x = torch.rand(2, 8, 3, 5)
        torch.testing.assert_close(PyramidPixelContextRecalibration(8, (3, 5))(x), x / 2)

    def test_hand_computed_value(self):
        # channels 1 and 3: averages 2 | 1 3; mean 2, deviation sqrt(2/3); weight 1 on the last gives 1 / 0.8165
        block = PyramidPixelContextRecalibration(2, (1, 1), groups=(1, 2))
        block.weight.data[0, 2] = 1.0
        x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
        expected = torch.sigmoid(torch.tensor(1.5).sqrt())
        torch.testing.assert_close(block.attention(x).squeeze(), expected, atol=1e-4, rtol=0)

    def test_every_pixel_on_its_own(self):
        block = PyramidPixelContextRecalibration(4, (3, 3))
        torch.nn.init.normal_(block.weight)
        x = torch.rand(1, 4, 3, 3)
        y = x.clone()
        y[..., 0, 0] = 9.0
        torch.testing.assert_close(block(x)[..., 1:, :], block(y)[..., 1:, :])

    def test_other_sizes(self):
        block = PyramidPixelContextRecalibration(4, (4, 4))
        torch.nn.init.constant_(block.weight, 0.3)
        x = torch.rand(2, 4, 1, 1)
        torch.testing.assert_close(block(x.expand(2, 4, 7, 6))[..., 2:3, 2:3], block(x))

    def test_constant_pixels_and_gradient(self):
        block = PyramidPixelContextRecalibration(4, (2, 2)).double()
        torch.nn.init.normal_(block.weight)
        torch.testing.assert_close(
            block.attention(torch.ones(1, 4, 2, 2).double()), torch.full((1, 1, 2, 2), 0.5).double()
        )
        self.assertTrue(torch.autograd.gradcheck(block, (torch.rand(1, 4, 2, 2).double().requires_grad_(),)))

    def test_torchscript(self):
        block, x = PyramidPixelContextRecalibration(4, (4, 4)), torch.rand(1, 4, 5, 5)
        torch.testing.assert_close(torch.jit.script(block)(x), block(x))

    def test_channels_must_divide(self):
        with self.assertRaisesRegex(ValueError, "divisible by 4 groups, got 6"):
            PyramidPixelContextRecalibration(6, (4, 4))


if __name__ == "__main__":
    unittest.main()
