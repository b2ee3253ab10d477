# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.stacked_maps import stacked_maps


class TestStackedMaps(unittest.TestCase):
    def test_hand_computed_sizes_and_values(self):
        maps = [torch.arange(16.0).view(1, 1, 4, 4), torch.full((1, 2, 1, 1), 7.0)]
        out = stacked_maps(maps, [2, 2], pool_size=1)
        self.assertEqual(out.shape, (1, 3, 2, 2))
        torch.testing.assert_close(out[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
        self.assertTrue(bool((out[0, 1:] == 7).all()))


if __name__ == "__main__":
    unittest.main()
