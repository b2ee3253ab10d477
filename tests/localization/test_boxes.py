# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.lists.boxes import clipped_boxes
from bundle.localization.boxes import boxes_from_heatmaps, falling_fractions


class TestBoxesFromHeatmaps(unittest.TestCase):
    def test_hand_computed_boxes_in_source_pixels(self):
        heat = torch.zeros(1, 1, 4, 4)
        heat[0, 0, 1, 1:3] = 1.0
        heat[0, 0, 2, 1:3] = 0.5
        boxes, scores = boxes_from_heatmaps(heat, size=(400, 800), thresholds=(0.9, 0.4), upsample=1)
        # columns 1..2 are 200..600 of 800; rows 1 and 1..2 are 100..200 and 100..300 of 400
        self.assertEqual(boxes[0, 0].tolist(), [[200, 100, 600, 200], [200, 100, 600, 300]])
        self.assertEqual(scores[0, 0].tolist(), [1.0, 0.75])

    def test_repeated_box_is_left_out(self):
        heat = torch.zeros(1, 1, 4, 4)
        heat[0, 0, 1, 1] = 1.0
        boxes, scores = boxes_from_heatmaps(heat, size=(4, 4), upsample=1)
        self.assertEqual(scores[0, 0].tolist(), [1.0, 0.0, 0.0])
        self.assertEqual(boxes[0, 0].tolist(), [[1, 1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])

    def test_empty_map_has_no_box(self):
        boxes, scores = boxes_from_heatmaps(torch.zeros(2, 3, 4, 4), size=(64, 64))
        self.assertEqual(boxes.abs().sum().item() + scores.sum().item(), 0)

    def test_batch_equals_single_maps_and_boxes_stay_inside(self):
        heat = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
        boxes, scores = boxes_from_heatmaps(heat, size=(70, 33))
        for image in range(2):
            for label in range(3):
                alone = boxes_from_heatmaps(heat[image : image + 1, label : label + 1], size=(70, 33))
                torch.testing.assert_close(alone[0][0, 0], boxes[image, label])
                torch.testing.assert_close(alone[1][0, 0], scores[image, label])
        self.assertGreaterEqual(boxes.min().item(), 0)
        self.assertLessEqual(boxes[..., 2].max().item(), 33)
        self.assertLessEqual(boxes[..., 3].max().item(), 70)
        self.assertTrue((scores[..., :-1] >= scores[..., 1:]).all())

    def test_ascending_thresholds(self):
        with self.assertRaisesRegex(ValueError, "must descend within"):
            boxes_from_heatmaps(torch.zeros(1, 1, 2, 2), (2, 2), thresholds=(0.2, 0.4))
        with self.assertRaisesRegex(ValueError, r"thresholds must be in \(0, 1\], got 1.5"):
            boxes_from_heatmaps(torch.zeros(1, 1, 2, 2), (2, 2), thresholds=(1.5, 0.4))
        with self.assertRaisesRegex(ValueError, "upsample must be a whole number of at least 1, got 0"):
            boxes_from_heatmaps(torch.zeros(1, 1, 2, 2), (2, 2), upsample=0)

    def test_fractions_that_mean_nothing(self):
        self.assertEqual(falling_fractions("t", [1, 0.5]), (1.0, 0.5))
        for value in (float("nan"), True, "0.5", 0):
            with self.assertRaisesRegex(ValueError, r"^t must be in \(0, 1\], got "):
                falling_fractions("t", [value])
        for values in ("[0.8,0.6]", [], 0.5, None):
            with self.assertRaisesRegex(ValueError, "^t must be a list of one or more fractions, got "):
                falling_fractions("t", values)
        with self.assertRaisesRegex(ValueError, r"^t must descend within \(0, 1\], got \[0.5, 0.5\]"):
            falling_fractions("t", [0.5, 0.5])


class TestClippedBoxes(unittest.TestCase):
    def test_hand_computed_value(self):
        out = clipped_boxes(torch.tensor([[-5.0, 2.0, 12.0, 30.0]]), size=(20, 10))
        self.assertEqual(out.tolist(), [[0, 2, 10, 20]])

    def test_box_outside_the_image(self):
        with self.assertRaisesRegex(ValueError, "must overlap the image of 20 rows and 10 columns"):
            clipped_boxes(torch.tensor([[11.0, 2.0, 15.0, 9.0]]), size=(20, 10))


if __name__ == "__main__":
    unittest.main()
