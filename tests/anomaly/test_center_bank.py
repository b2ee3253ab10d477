# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.anomaly import CenterBank
from bundle.anomaly.topk import soft_topk_distance


class TestCenterBank(unittest.TestCase):
    def test_hand_computed_value(self):
        bank = CenterBank(3, 2, k=2, epsilon=0)
        bank.set_centers(torch.tensor([[3.0, 4.0], [6.0, 8.0], [30.0, 40.0]]))
        torch.testing.assert_close(bank(torch.zeros(1, 1, 2)), torch.tensor([[15.0]]))  # 5 + 10

    def test_is_the_function_of_its_buffer(self):
        bank = CenterBank(9, 4, k=2, epsilon=0.05, scale="row_max")
        bank.set_centers(torch.randn(9, 4))
        patches = torch.randn(2, 5, 4)
        torch.testing.assert_close(bank(patches), soft_topk_distance(patches, bank.centers, 2, 0.05, "row_max"))
        torch.testing.assert_close(torch.jit.script(bank)(patches), bank(patches))

    def test_a_traced_graph_takes_any_batch_size(self):
        bank = CenterBank(9, 4, k=2, epsilon=0)  # an integer, as YAML gives it
        bank.set_centers(torch.randn(9, 4))
        sizes = ({0: torch.export.Dim("images", min=1, max=64)},)
        graph = torch.export.export(bank, (torch.randn(2, 9, 4),), dynamic_shapes=sizes).module()
        for count in (1, 33):  # 33 images make more rows than a block has
            patches = torch.randn(count, 9, 4)
            torch.testing.assert_close(graph(patches), bank(patches))
            torch.testing.assert_close(torch.jit.script(bank)(patches), bank(patches))

    def test_the_centers_are_saved_and_take_no_gradient(self):
        bank, other = CenterBank(5, 3), CenterBank(5, 3)
        bank.set_centers(torch.randn(5, 3))
        other.load_state_dict(bank.state_dict())
        torch.testing.assert_close(other.centers, bank.centers)
        self.assertEqual(list(bank.parameters()), [])
        patches = torch.randn(1, 5, 3, requires_grad=True)
        bank(patches).sum().backward()
        self.assertIsNone(bank.centers.grad)

    def test_set_centers_copies(self):
        bank, centers = CenterBank(2, 2, k=1), torch.ones(2, 2)
        bank.set_centers(centers)
        centers.zero_()
        self.assertEqual(bank.centers.sum().item(), 4)

    def test_rejects_bad_centers(self):
        bank = CenterBank(2, 2, k=1)
        with self.assertRaisesRegex(ValueError, r"centers must have shape \(2, 2\), got \(2, 3\)"):
            bank.set_centers(torch.zeros(2, 3))
        for value in (math.nan, math.inf):
            with self.assertRaisesRegex(ValueError, "centers must be finite"):
                bank.set_centers(torch.tensor([[0.0, value], [0.0, 0.0]]))

    def test_rejects_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, r"k must be in \[1, 2\], got 3"):
            CenterBank(2, 2)
        with self.assertRaisesRegex(ValueError, "epsilon must be at least 0, got -1"):
            CenterBank(4, 2, epsilon=-1)
        with self.assertRaisesRegex(ValueError, "scale must be one of .* got 'mean'"):
            CenterBank(4, 2, scale="mean")


if __name__ == "__main__":
    unittest.main()
