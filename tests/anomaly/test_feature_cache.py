# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch

from bundle.anomaly import FeatureCache, keep_features
from bundle.networks import FeatureBackbone


class _Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = FeatureBackbone("efficientnet_lite0", None)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in self.backbone.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)


def _images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))


class TestFeatureCache(unittest.TestCase):
    def test_an_image_that_comes_again_is_kept_and_one_that_does_not_is_not(self):
        cache, calls = FeatureCache(), []

        def compute(images: torch.Tensor) -> list[torch.Tensor]:
            calls.append(len(images))
            return [images[:, :1] + 1, images[:, :2, ::2, ::2], images[..., ::4, ::4]]

        images = _images()
        for batch in (images, images[:2], images[[1, 2]], images[[2, 0, 1]], images + 1):
            for got, expected in zip(cache(batch, compute), compute(batch), strict=True):
                self.assertTrue(torch.equal(got, expected))
            calls.pop()
        # first, second, only the third image for the second time, none, all new
        self.assertEqual((calls, cache.computed), ([3, 2, 1, 3], 9))

    def test_equals_the_backbone(self):
        network = _Network()
        expected = network.backbone(_images())
        for half, tolerance in ((False, 1e-6), (True, 2e-3)):
            keep_features(network, half=half)
            for _ in range(3):
                for got, wanted in zip(network.backbone(_images()), expected, strict=True):
                    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)
            self.assertEqual(network.backbone.cache.computed, 6)
        keep_features(network, None)
        self.assertIsNone(network.backbone.cache)

    def test_a_folder_serves_the_next_run_of_the_same_backbone_only(self):
        with tempfile.TemporaryDirectory() as folder:
            network = _Network()
            expected = network.backbone(_images())
            keep_features(network, folder)
            for _ in range(2):
                network.backbone(_images())
            keep_features(network, folder)
            for got, wanted in zip(network.backbone(_images()), expected, strict=True):
                torch.testing.assert_close(got, wanted)
            self.assertEqual(network.backbone.cache.computed, 0)
            self.assertEqual(len(list(Path(folder).glob("*/*.npy"))), 9)
            other = _Network()
            next(other.backbone.parameters()).data += 1
            keep_features(other, folder)
            other.backbone(_images())
            self.assertEqual(other.backbone.cache.computed, 3)
            keep_features(network, folder)  # another preprocessing
            network.backbone(_images() * 2)
            self.assertEqual(network.backbone.cache.computed, 3)

    def test_what_does_not_fit_is_computed(self):
        cache, image = FeatureCache(max_bytes=10), _images(1)
        for _ in range(4):
            cache(image, lambda x: [x, x, x])
        self.assertEqual(cache.computed, 4)


if __name__ == "__main__":
    unittest.main()
