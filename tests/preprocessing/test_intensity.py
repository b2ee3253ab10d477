# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from monai.data import MetaTensor

from bundle.preprocessing.dictionary import DictTransform
from bundle.preprocessing.intensity import (
    EqualizeLocally,
    ReduceSpeckle,
    ScaleForeground,
)


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


class TestScaleForeground(unittest.TestCase):
    def test_hand_computed_value(self):
        # the foreground is 0.2, 0.4, 0.6: its extremes become 0 and 1, and what was 0 stays 0
        image = torch.tensor([[[0.0, 0.2, 0.4, 0.6]]])
        torch.testing.assert_close(ScaleForeground(0, 100)(image), torch.tensor([[[0.0, 0.0, 0.5, 1.0]]]))

    def test_matches_numpy_percentiles(self):
        image = noise(1, 20, 20) * 0.5 + 0.1
        low, high = np.percentile(image.numpy(), (1, 99))
        expected = np.clip((image.numpy() - low) / (high - low), 0, 1)
        np.testing.assert_allclose(ScaleForeground(1, 99)(image).numpy(), expected, atol=1e-5)

    def test_no_contrast_becomes_black(self):
        for value in (0.0, 0.3):
            self.assertEqual(ScaleForeground()(torch.full((1, 4, 4), value)).sum().item(), 0)

    def test_keeps_metadata_and_refuses_crossed_percentiles(self):
        out = DictTransform("image", ScaleForeground())({"image": MetaTensor(noise(3, 5, 5), meta={"frame": 2})})[
            "image"
        ]
        self.assertEqual(out.meta["frame"], 2)
        with self.assertRaisesRegex(ValueError, "lower < upper <= 100, got 60 and 40"):
            ScaleForeground(60, 40)


class TestEqualizeLocally(unittest.TestCase):
    def test_raises_local_contrast_within_range(self):
        image = torch.full((1, 24, 48), 0.2)
        image[..., 24:] = 0.8
        image += 0.04 * noise(1, 24, 48)
        out = DictTransform("image", EqualizeLocally(radius=6))({"image": image})["image"]
        self.assertEqual(out.shape, image.shape)
        self.assertGreater(out[..., 2:16].std().item(), 3 * image[..., 2:16].std().item())
        self.assertTrue(0 <= out.min() and out.max() <= 1)

    def test_beta_one_leaves_the_image(self):
        image = noise(1, 16, 16)
        torch.testing.assert_close(EqualizeLocally(4, alpha=1, beta=1)(image), image, atol=0.5 / 255 + 1e-6, rtol=0)

    def test_bad_radius(self):
        with self.assertRaisesRegex(ValueError, "radius must be at least 1.*got 0, 0.3 and 0.3"):
            EqualizeLocally(0)


class TestReduceSpeckle(unittest.TestCase):
    def test_noise_shrinks_and_the_edge_stays(self):
        image = torch.full((1, 32, 32), 0.2)
        image[..., 16:] = 0.8
        noisy = image + 0.05 * (noise(1, 32, 32) - 0.5)
        out = DictTransform("image", ReduceSpeckle(iterations=8))({"image": noisy})["image"]
        self.assertLess(out[0, 4:28, 4:12].std().item(), 0.6 * noisy[0, 4:28, 4:12].std().item())
        self.assertGreater((out[..., 17].mean() - out[..., 14].mean()).item(), 0.5)

    def test_bad_iterations(self):
        with self.assertRaisesRegex(ValueError, "iterations must be at least 1.*got 0 and 1.0"):
            ReduceSpeckle(0)


if __name__ == "__main__":
    unittest.main()
