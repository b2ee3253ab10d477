# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math
import unittest

import torch

from bundle.anomaly.topk.smallest import k_smallest


class TestKSmallest(unittest.TestCase):
    def test_hand_computed_value(self):
        values, places = k_smallest(torch.tensor([[5.0, 1.0, 4.0, 2.0]]), 2)
        self.assertEqual((values.tolist(), places.tolist()), ([[1.0, 2.0]], [[1, 3]]))

    def test_equals_topk_for_every_length(self):
        generator = torch.Generator().manual_seed(0)
        for n, k in itertools.product((3, 127, 128, 131, 1000, 3136, 9001), (1, 3)):
            x = torch.rand(5, n, generator=generator, dtype=torch.double)
            values, places = k_smallest(x, k)
            expected = torch.topk(x, k, dim=-1, largest=False)
            self.assertTrue(torch.equal(values, expected.values), n)
            self.assertTrue(torch.equal(places, expected.indices), n)

    def test_ties_and_infinities(self):
        x = torch.full((2, 1003), math.inf)
        x[0, [7, 500, 900]] = torch.tensor([2.0, 1.0, 1.0])
        values, places = k_smallest(x, 3)
        self.assertEqual(values[0].tolist(), [1.0, 1.0, 2.0])
        self.assertEqual(sorted(places[0].tolist()), [7, 500, 900])
        self.assertTrue(values[1].isinf().all())

    def test_torchscript(self):
        x = torch.rand(2, 300)
        torch.testing.assert_close(torch.jit.script(k_smallest)(x, 4), k_smallest(x, 4))


if __name__ == "__main__":
    unittest.main()
