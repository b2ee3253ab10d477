# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from monai.apps.detection.utils.box_coder import BoxCoder

from bundle.detection.grids import anchor_cells, decoded_boxes, grid_anchors


class TestGrids(unittest.TestCase):
    def test_anchors_are_monais(self):
        strides, ratios = [8, 16], (0.5, 1.0, 2.0)
        generator = AnchorGenerator([(32,), (64,)], [ratios] * 2, indexing="xy")
        maps = [torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 3, 2)]
        (expected,) = generator(torch.zeros(1, 3, 40, 32), [*maps[:1], torch.zeros(1, 1, 2, 2)])
        found = grid_anchors(anchor_cells(strides, 4, ratios), strides, 40, 32)
        self.assertEqual(len(found), (5 * 4 + 3 * 2) * 3)
        # MONAI takes the stride from the sizes: level 0 is the same, level 1 has 40 // 2 rows
        torch.testing.assert_close(found[: 5 * 4 * 3], expected[: 5 * 4 * 3])

    def test_a_tall_anchor_has_its_area(self):
        # ratio 4: sides 32 / 2 and 32 * 2
        self.assertEqual(anchor_cells([8], 4, [4.0]).tolist(), [[[-8.0, -32.0, 8.0, 32.0]]])

    def test_boxes_are_monais(self):
        generator = torch.Generator().manual_seed(0)
        steps = torch.randn(6, 4, generator=generator)
        low = torch.rand(6, 2, generator=generator) * 50
        anchors = torch.cat([low, low + 5 + torch.rand(6, 2, generator=generator) * 20], dim=1)
        expected = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(steps, anchors)
        torch.testing.assert_close(decoded_boxes(steps[None], anchors)[0], expected)

    def test_a_side_grows_no_further_than_monais(self):
        anchors = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        found = decoded_boxes(torch.tensor([[[0.0, 0.0, 99.0, 0.0]]]), anchors)[0, 0]
        self.assertAlmostEqual(float(found[2] - found[0]), 1000.0, places=2)

    def test_gradient(self):
        steps = torch.rand(1, 2, 4, dtype=torch.double, requires_grad=True)
        anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 2.0, 5.0, 9.0]], dtype=torch.double)
        self.assertTrue(torch.autograd.gradcheck(decoded_boxes, (steps, anchors)))


if __name__ == "__main__":
    unittest.main()
