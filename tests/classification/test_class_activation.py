# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.classification.class_activation import class_activation_map, grad_cam, grad_cam_plus_plus

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.rand(3, 4, 5, 6, generator=GENERATOR)
GRADIENTS = torch.randn(3, 4, 5, 6, generator=GENERATOR)


class TestClassActivation(unittest.TestCase):
    def test_mean_of_the_map_is_the_logit(self):
        weight = torch.rand(4)
        maps = class_activation_map(FEATURES, weight.expand(3, 4))
        torch.testing.assert_close(maps.mean(dim=(1, 2, 3)), FEATURES.mean(dim=(2, 3)) @ weight)

    def test_grad_cam_of_a_linear_head_is_the_positive_part_of_cam(self):
        weight = torch.randn(4)
        gradients = (weight / 30).view(1, 4, 1, 1).expand_as(FEATURES)
        cam = class_activation_map(FEATURES, weight.expand(3, 4))
        torch.testing.assert_close(grad_cam(FEATURES, gradients), cam.relu() / 30)

    def test_grad_cam_plus_plus_matches_the_formula_in_loops(self):
        for b in range(3):
            expected = torch.zeros(5, 6)
            for c in range(4):
                a, g = FEATURES[b, c], GRADIENTS[b, c]
                weight = sum(
                    (g[i, j] ** 2 / (2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3)) * max(g[i, j], 0)
                    for i in range(5)
                    for j in range(6)
                )
                expected += weight * a
            torch.testing.assert_close(
                grad_cam_plus_plus(FEATURES, GRADIENTS)[b, 0], expected.relu(), rtol=1e-4, atol=1e-4
            )

    def test_images_do_not_mix(self):
        for function in (grad_cam, grad_cam_plus_plus):
            single = [function(FEATURES[i : i + 1], GRADIENTS[i : i + 1]) for i in range(3)]
            torch.testing.assert_close(function(FEATURES, GRADIENTS), torch.cat(single))

    def test_tiny_and_zero_gradients(self):
        torch.testing.assert_close(grad_cam_plus_plus(FEATURES, torch.zeros_like(GRADIENTS)), torch.zeros(3, 1, 5, 6))
        tiny = grad_cam_plus_plus(FEATURES, GRADIENTS.abs() * 1e-15)
        self.assertTrue(tiny.isfinite().all() and (tiny > 0).all())


if __name__ == "__main__":
    unittest.main()
