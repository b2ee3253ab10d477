# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.topk import euclidean_distances, squared_distances


class TestDistances(unittest.TestCase):
    def test_hand_computed_value(self):
        # a 3-4-5 triangle: 3^2 + 4^2 = 25
        patches, centers = torch.zeros(1, 1, 2), torch.tensor([[3.0, 4.0]])
        torch.testing.assert_close(squared_distances(patches, centers), torch.tensor([[[25.0]]]))
        torch.testing.assert_close(euclidean_distances(patches, centers), torch.tensor([[[5.0]]]))

    def test_matches_cdist(self):
        p, c = torch.rand(2, 5, 3, dtype=torch.double), torch.rand(4, 3, dtype=torch.double)
        expected = torch.cdist(p, c.expand(2, 4, 3))
        torch.testing.assert_close(squared_distances(p, c), expected.square())
        torch.testing.assert_close(euclidean_distances(p, c), expected)

    def test_gradcheck(self):
        p = torch.rand(1, 3, 2, dtype=torch.double, requires_grad=True)
        c = 2 + torch.rand(4, 2, dtype=torch.double)
        for function in (squared_distances, euclidean_distances):
            self.assertTrue(torch.autograd.gradcheck(function, (p, c)))

    def test_a_zero_distance_is_never_negative_and_has_a_finite_gradient(self):
        c = torch.randn(50, 64) * 100
        p = c.clone().requires_grad_()
        self.assertGreaterEqual(squared_distances(p, c).min().item(), 0)
        (gradient,) = torch.autograd.grad(euclidean_distances(p, c).diagonal().sum(), p)
        self.assertTrue(gradient.isfinite().all())
        exact = euclidean_distances(torch.ones(1, 2), torch.ones(1, 2))
        torch.testing.assert_close(exact, torch.tensor([[1e-6]]), rtol=1e-5, atol=0)

    def test_feature_size_mismatch(self):
        for function in (squared_distances, euclidean_distances):
            with self.assertRaisesRegex(ValueError, "must share C, got 2 and 3"):
                function(torch.zeros(1, 1, 2), torch.zeros(1, 3))


if __name__ == "__main__":
    unittest.main()
