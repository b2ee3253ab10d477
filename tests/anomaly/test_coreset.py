# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from scipy.spatial.distance import cdist

from bundle.anomaly.coreset import greedy_coreset


class TestGreedyCoreset(unittest.TestCase):
    def test_hand_computed_choice(self):
        # three pairs on a line: from any start, the farthest point is always of a pair that has none yet
        points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]])
        for seed in range(8):
            kept = greedy_coreset(points, 3, torch.Generator().manual_seed(seed))
            self.assertEqual(sorted((kept // 2).tolist()), [0, 1, 2])

    def test_equals_the_algorithm_on_all_distances(self):
        points = 1000 + torch.randn(60, 20, generator=torch.Generator().manual_seed(1))
        kept = greedy_coreset(points, 15, torch.Generator()).tolist()
        distances = cdist(points.numpy().astype(float), points.numpy().astype(float))
        expected = kept[:1]
        while len(expected) < 15:
            expected.append(int(np.argmax(distances[expected].min(axis=0))))
        self.assertEqual(kept, expected)

    def test_one_of_each_cluster_of_wide_features(self):
        centers = 10 * torch.randn(30, 300, generator=torch.Generator().manual_seed(2))
        points = centers[torch.arange(600) % 30] + 0.1 * torch.randn(600, 300)
        kept = greedy_coreset(points, 30, torch.Generator())
        self.assertLess(torch.cdist(points, points[kept]).amin(dim=1).max().item(), 10)  # clusters are about 240 apart

    def test_points_that_are_alike_are_kept_once(self):
        kept = greedy_coreset(torch.ones(5, 2), 5, torch.Generator())
        self.assertEqual(sorted(kept.tolist()), list(range(5)))

    def test_bad_size(self):
        for size in (0, 4):
            with self.assertRaisesRegex(ValueError, rf"size must be in \[1, 3\], got {size}"):
                greedy_coreset(torch.zeros(3, 2), size, torch.Generator())


if __name__ == "__main__":
    unittest.main()
