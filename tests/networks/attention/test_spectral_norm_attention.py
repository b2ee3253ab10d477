# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.networks.attention.spectral_norm_attention import SpectralNormAttention


class TestSpectralNormAttention(unittest.TestCase):
    def test_hand_computed_weights(self):
        # two channels whose mean is the rank-one matrix [[ln 2, 0], [0, 0]]: softmax gives 2/5 and 1/5
        x = torch.zeros(1, 2, 2, 2)
        x[0, 0, 0, 0] = 2 * torch.log(torch.tensor(2.0))
        weights = SpectralNormAttention(preserve_mean=False).attention(x)
        torch.testing.assert_close(weights, torch.tensor([[[[0.4, 0.2], [0.2, 0.2]]]]))
        torch.testing.assert_close(SpectralNormAttention().attention(x), 4 * weights)

    def test_one_image_does_not_change_another(self):
        x = torch.rand(4, 3, 7, 5)
        block = SpectralNormAttention(rank=2)
        torch.testing.assert_close(block(x), torch.cat([block(image[None]) for image in x]))

    def test_deterministic_and_without_parameters(self):
        x = torch.rand(2, 3, 6, 6)
        self.assertEqual(list(SpectralNormAttention().parameters()), [])
        self.assertTrue(torch.equal(SpectralNormAttention()(x), SpectralNormAttention()(x)))

    def test_agrees_with_the_exact_decomposition(self):
        x = torch.rand(2, 16, 12, 9)
        for rank in (1, 2):
            exact = SpectralNormAttention(rank, exact=True)(x)
            torch.testing.assert_close(SpectralNormAttention(rank)(x), exact, atol=1e-4, rtol=1e-3)

    def test_zero_and_constant_maps_get_equal_weights(self):
        x = torch.stack([torch.zeros(3, 4, 6), torch.full((3, 4, 6), 5.0)])
        for rank in (1, 2):
            torch.testing.assert_close(
                SpectralNormAttention(rank).attention(x), torch.ones(2, 1, 4, 6), atol=1e-4, rtol=0
            )

    def test_add(self):
        x = torch.rand(2, 3, 4, 4)
        block = SpectralNormAttention(combine="add", preserve_mean=False)
        torch.testing.assert_close(block(x), x + block.attention(x))

    def test_half_precision(self):
        x = torch.rand(2, 8, 6, 10)
        block = SpectralNormAttention()
        half = block(x.bfloat16())
        self.assertEqual(half.dtype, torch.bfloat16)
        torch.testing.assert_close(half.float(), block(x), atol=0.02, rtol=0.02)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(block.attention(x), block.attention(x.float()))
            self.assertEqual(block.attention(x).dtype, torch.float32)

    def test_torchscript(self):
        x = torch.rand(2, 3, 6, 5)
        for kwargs in ({}, {"rank": 3}, {"combine": "add"}, {"exact": True}):
            block = SpectralNormAttention(**kwargs)
            torch.testing.assert_close(torch.jit.script(block)(x), block(x))

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "at least 1, got 0 and 8"):
            SpectralNormAttention(rank=0)
        with self.assertRaisesRegex(ValueError, "'multiply' or 'add', got 'max'"):
            SpectralNormAttention(combine="max")


if __name__ == "__main__":
    unittest.main()
