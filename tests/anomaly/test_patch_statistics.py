# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.patch_statistics import PatchStatistics


class TestPatchStatistics(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        place = 3 * torch.randn(1, 5, 4, 6)  # what is usual at a position
        self.features = place + torch.randn(20, 5, 4, 6)
        self.found = PatchStatistics.of(self.features)

    def test_equals_torch(self):
        rows = self.features.double().permute(1, 0, 2, 3).flatten(1)
        torch.testing.assert_close(self.found.mean(), rows.mean(dim=1))
        torch.testing.assert_close(self.found.covariance(False), torch.cov(rows, correction=0))
        deviations = (self.features - self.features.mean(dim=0)).double().permute(1, 0, 2, 3).flatten(1)
        torch.testing.assert_close(self.found.covariance(), torch.cov(deviations, correction=0))

    def test_parts_add_up_and_can_be_taken_away(self):
        first, rest = PatchStatistics.of(self.features[:7]), PatchStatistics.of(self.features[7:])
        for found, expected in (((first + rest), self.found), (self.found - first, rest)):
            self.assertEqual(found.count, expected.count)
            torch.testing.assert_close(found.total, expected.total)
            torch.testing.assert_close(found.products, expected.products)


if __name__ == "__main__":
    unittest.main()
