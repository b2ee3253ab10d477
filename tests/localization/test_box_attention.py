# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.localization.box_attention import BoxAttentionLoss


class TestBoxAttentionLoss(unittest.TestCase):
    def test_hand_computed_value(self):
        maps = torch.zeros(1, 2, 4)  # softmax is 1/8 everywhere, the box covers two cells: log(8 / 2)
        target = torch.zeros(1, 2, 4)
        target[0, 0, :2] = 1.0
        self.assertAlmostEqual(BoxAttentionLoss()(maps, target).item(), math.log(4), places=6)

    def test_partly_covered_cells(self):
        target = torch.tensor([[[1.0, 0.5]]])
        maps = torch.tensor([[[2.0, 2.0 - math.log(2)]]])  # softmax 2/3 and 1/3, as the covered parts
        self.assertAlmostEqual(BoxAttentionLoss()(maps, target).item(), 0.0, places=6)

    def test_a_constant_changes_nothing(self):
        maps, target = torch.randn(3, 5, 5), torch.rand(3, 5, 5)
        loss = BoxAttentionLoss()
        torch.testing.assert_close(loss(maps - 40, target), loss(maps, target), rtol=1e-4, atol=1e-5)

    def test_gradient(self):
        maps = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(BoxAttentionLoss(), (maps, torch.rand(2, 3, 3, dtype=torch.float64))))

    def test_no_map_and_another_shape(self):
        self.assertEqual(BoxAttentionLoss()(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).item(), 0)
        with self.assertRaisesRegex(ValueError, r"target must be of shape \(1, 2, 2\), got \(1, 2, 3\)"):
            BoxAttentionLoss()(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))


if __name__ == "__main__":
    unittest.main()
