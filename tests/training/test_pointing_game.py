# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.training.pointing_game import compute_pointing_game

NONE = torch.zeros(0, 4)
TRUTHS = [torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]), torch.tensor([[0.0, 50, 10, 60]]), NONE]


class TestPointingGame(unittest.TestCase):
    def test_by_hand(self):
        points = torch.tensor([[9.5, 9.5], [10.0, 55.0], [0.0, 0.0]])  # the right edge is outside
        self.assertEqual(compute_pointing_game(points, TRUTHS), 0.5)
        self.assertTrue(math.isnan(compute_pointing_game(points[:1], [NONE])))

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, "points must be finite, 1 of 2 are not, first: nan for image 0"):
            compute_pointing_game(torch.tensor([[math.nan, 1.0]]), TRUTHS[:1])
        with self.assertRaisesRegex(ValueError, "annotated boxes must be finite, 1 of 4 are not"):
            compute_pointing_game(torch.tensor([[1.0, 1.0]]), [torch.tensor([[0.0, 0, math.inf, 1]])])
        with self.assertRaisesRegex(ValueError, "one list of annotations is needed for each point, got 3 for 1"):
            compute_pointing_game(torch.tensor([[1.0, 1.0]]), TRUTHS)


if __name__ == "__main__":
    unittest.main()
