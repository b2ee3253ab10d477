# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.anomaly.losses import AdaptationLoss, MeanDistanceLoss


class TestAdaptationLoss(unittest.TestCase):
    def test_hand_computed_value(self):
        # normal distances 2, changed ones 3: margin 2 is short by 1, temperature 0.5 * 2 = 1, softplus(1)
        distances = torch.stack([torch.full((1, 2, 2), 2.0), torch.full((1, 2, 2), 3.0)])
        region = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
        loss = AdaptationLoss(margin=2.0, push=0.5, temperature=0.5)(distances, region)
        self.assertAlmostEqual(float(loss), 1 + 0.5 * math.log1p(math.e), places=5)

    def test_scale_of_the_features_does_not_matter(self):
        distances, region = torch.rand(4, 1, 4, 4) + 0.1, torch.zeros(4, 1, 8, 8)
        region[2:, :, :4] = 1
        loss = AdaptationLoss()
        torch.testing.assert_close(loss(7 * distances, region), loss(distances, region))

    def test_pulls_normal_patches_and_pushes_changed_ones(self):
        distances, region = torch.ones(2, 1, 2, 2, requires_grad=True), torch.zeros(2, 1, 2, 2)
        region[1, 0, 0] = 1
        AdaptationLoss()(distances, region).backward()
        self.assertTrue(bool((distances.grad[0] > 0).all()))
        self.assertTrue(bool((distances.grad[1, 0, 0] < 0).all()))
        self.assertTrue(bool((distances.grad[1, 0, 1] == 0).all()))

    def test_gradient(self):
        region = torch.zeros(2, 1, 2, 2, dtype=torch.double)
        region[1] = 1
        distances = torch.rand(1, 1, 2, 2, dtype=torch.double, requires_grad=True)
        normal = torch.rand(1, 1, 2, 2, dtype=torch.double)  # the scale stops the gradient of normal distances
        self.assertTrue(
            torch.autograd.gradcheck(lambda d: AdaptationLoss()(torch.cat([normal, d]), region), (distances,))
        )

    def test_batches_of_one_kind(self):
        distances = torch.rand(1, 1, 4, 4) + 1
        self.assertAlmostEqual(float(AdaptationLoss()(distances, torch.zeros(1, 1, 8, 8))), 1.0, places=5)
        half = torch.zeros(1, 1, 8, 8)
        half[..., :4, :] = 1
        self.assertTrue(bool(AdaptationLoss()(distances, half).isfinite()))

    def test_bad_arguments(self):
        for name, value, rule in (
            ("margin", 1.0, "above 1"),
            ("push", -1.0, "at least 0"),
            ("temperature", 0.0, "above 0"),
        ):
            with self.assertRaisesRegex(ValueError, f"{name} must be {rule}, got {value}"):
                AdaptationLoss(**{name: value})


class TestMeanDistanceLoss(unittest.TestCase):
    def test_hand_computed_value(self):
        x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
        self.assertEqual(MeanDistanceLoss()(x).item(), 3)
        self.assertEqual(MeanDistanceLoss()(x, torch.zeros(1)).item(), 3)  # a target is ignored

    def test_gradcheck(self):
        x = torch.rand(2, 1, 3, 3, dtype=torch.double, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(MeanDistanceLoss(), (x,)))
