# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.resizing import resized_map
from bundle.anomaly.whitening import whitening_matrix


class TestWhiteningMatrix(unittest.TestCase):
    def test_whitened_features_vary_alike(self):
        x = torch.randn(4000, 3, dtype=torch.double) @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 3, 0.5]]).double()
        covariance = torch.cov(x.T)
        w = whitening_matrix(covariance, 1e-6)
        torch.testing.assert_close(w @ covariance @ w.T, torch.eye(3).double(), rtol=1e-3, atol=1e-3)

    def test_full_shrinkage_standardizes(self):
        covariance = torch.tensor([[4.0, 1.0], [1.0, 0.25]])
        torch.testing.assert_close(whitening_matrix(covariance, 1.0), torch.diag(torch.tensor([0.5, 2.0])))

    def test_constant_channel_stays_finite(self):
        self.assertTrue(bool(whitening_matrix(torch.diag(torch.tensor([1.0, 0.0])), 0.1).isfinite().all()))

    def test_bad_shrinkage(self):
        with self.assertRaisesRegex(ValueError, r"shrinkage must be in \(0, 1\], got 0"):
            whitening_matrix(torch.eye(2), 0)


class TestResizedMap(unittest.TestCase):
    def test_smaller_is_an_average_and_same_size_is_the_map(self):
        x = torch.arange(16.0).view(1, 1, 4, 4)
        torch.testing.assert_close(resized_map(x, [2, 2])[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
        self.assertIs(resized_map(x, [4, 4]), x)
        self.assertEqual(resized_map(x, [8, 8]).shape, (1, 1, 8, 8))
