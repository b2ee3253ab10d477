# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch
from monai.data.box_utils import non_max_suppression

from bundle.detection import PyramidInferer, image_logits
from bundle.detection.inferer import selected_boxes

# logits of two findings and a box: the second overlaps the first by 80 of 120 pixels, the third lies elsewhere and
# reaches over the border, the fourth lies outside
ROWS = torch.tensor(
    [
        [2.0, -5.0, 0.0, 0.0, 10.0, 10.0],
        [1.0, 3.0, 2.0, 0.0, 12.0, 10.0],
        [0.0, -6.0, 20.0, 20.0, 40.0, 44.0],
        [9.0, 9.0, -9.0, 0.0, -1.0, 10.0],
    ]
)


class TestInferer(unittest.TestCase):
    def test_boxes_by_hand(self):
        boxes, logits = selected_boxes(ROWS, 32, 36, overlap=0.5, count=3)
        self.assertEqual(logits.tolist(), [[2.0, 0.0, -math.inf], [3.0, -6.0, -math.inf]])
        self.assertEqual(boxes[0, :2].tolist(), [[0, 0, 10, 10], [20, 20, 36, 32]])
        self.assertEqual(boxes[1, 0].tolist(), [2, 0, 12, 10])
        # 80 / 120 is no more than 0.7: both stay
        self.assertEqual(selected_boxes(ROWS, 32, 36, overlap=0.7)[1][0, :3].tolist(), [2.0, 1.0, 0.0])

    def test_boxes_are_those_of_monai(self):
        generator = torch.Generator().manual_seed(0)
        low = torch.rand(150, 2, generator=generator) * 20
        boxes = torch.cat([low, low + 2 + torch.rand(150, 2, generator=generator) * 10], dim=1)
        logits = torch.randn(150, 1, generator=generator)
        found, kept = selected_boxes(torch.cat([logits, boxes], dim=1), 40, 40, overlap=0.4, count=12)
        expected = non_max_suppression(boxes, logits[:, 0], 0.4, 12)
        torch.testing.assert_close(found[0], boxes[expected])
        torch.testing.assert_close(kept[0], logits[expected, 0])

    def test_an_image_is_as_sure_as_its_best_anchor(self):
        self.assertEqual(image_logits(ROWS[None, :3]).tolist(), [[2.0, 3.0]])

    def test_a_batch(self):
        found = PyramidInferer(0.5, 2)(torch.zeros(2, 3, 32, 36), lambda x: ROWS.expand(len(x), -1, -1).half())
        self.assertEqual(
            {key: tuple(value.shape) for key, value in found.items()},
            {"logits": (2, 2), "boxes": (2, 2, 2, 4), "box_logits": (2, 2, 2)},
        )
        self.assertTrue(all(value.dtype == torch.float32 for value in found.values()))

    def test_refused(self):
        with self.assertRaisesRegex(ValueError, "nms_overlap"):
            PyramidInferer(0.0)
        with self.assertRaisesRegex(ValueError, "boxes_per_finding"):
            PyramidInferer(0.5, 0)


if __name__ == "__main__":
    unittest.main()
