# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly import MeanDistanceLoss


class TestMeanDistanceLoss(unittest.TestCase):
    def test_hand_computed_value(self):
        x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
        self.assertEqual(MeanDistanceLoss()(x).item(), 3)
        self.assertEqual(MeanDistanceLoss()(x, torch.zeros(1)).item(), 3)  # a target is ignored

    def test_gradcheck(self):
        x = torch.rand(2, 1, 3, 3, dtype=torch.double, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(MeanDistanceLoss(), (x,)))


if __name__ == "__main__":
    unittest.main()
