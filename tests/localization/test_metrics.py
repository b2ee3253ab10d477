# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.localization.metrics import (
    compute_localization_accuracy,
    compute_mean_iou,
    overlaps,
    summarize_localization,
)

NONE = torch.zeros(0, 4)
# image 0: one annotation, first box misses, second fits by half; image 1: two annotations, first box fits one exactly
BOXES = [
    torch.tensor([[50.0, 50, 60, 60], [0, 0, 10, 20]]),
    torch.tensor([[20.0, 20, 30, 30], [20, 20, 30, 31], [70, 70, 80, 80]]),
    torch.tensor([[5.0, 5, 6, 6]]),
]
TRUTHS = [torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 20, 30, 30], [0, 50, 10, 60]]), NONE]


class TestOverlaps(unittest.TestCase):
    def test_hand_computed_values(self):
        box, truth = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 25, 10]])
        self.assertAlmostEqual(overlaps(box, truth).item(), 50 / 250, places=6)
        self.assertAlmostEqual(overlaps(box, truth, "iobb").item(), 50 / 100, places=6)
        self.assertEqual(overlaps(box, torch.tensor([[20.0, 20, 30, 30]]), "iobb").item(), 0)

    def test_unknown_kind(self):
        with self.assertRaisesRegex(ValueError, "kind must be 'iou' or 'iobb', got 'dice'"):
            overlaps(NONE, NONE, "dice")


class TestLocalizationAccuracy(unittest.TestCase):
    def test_hand_computed_values(self):
        out = compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3, 0.5))
        # of three annotations two are found; false: 50..60, 70..80 and the box on the image without a finding
        self.assertAlmostEqual(out[0.3].accuracy, 2 / 3)
        self.assertAlmostEqual(out[0.3].average_false_positives, 3 / 3)
        # at 0.5 the second box of image 0, which fits by exactly one half, is false
        self.assertAlmostEqual(out[0.5].accuracy, 1 / 3)
        self.assertAlmostEqual(out[0.5].average_false_positives, 4 / 3)

    def test_bound_ends_the_list_that_is_ordered_by_rank_first(self):
        # all first boxes hold two false ones: a third image-mean of false boxes lets only the first of them through
        out = compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3,), bounds={0.3: 0.5})
        self.assertAlmostEqual(out[0.3].accuracy, 1 / 3)  # image 1's first box, before the bound is reached
        self.assertAlmostEqual(out[0.3].average_false_positives, 1 / 3)
        out = compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3,), bounds={0.3: 0.0})
        self.assertEqual(out[0.3], (0.0, 0.0))

    def test_bounds_from_json_count_and_others_are_told(self):
        out = compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3,), bounds={"0.3": 0.0})
        self.assertEqual(out[0.3], (0.0, 0.0))
        with self.assertRaisesRegex(ValueError, r"bounds must be for thresholds among \[0.3\], got \[0.35\]"):
            compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3,), bounds={0.35: 0.0})
        with self.assertLogs("bundle.localization.metrics", "WARNING") as logs:
            summarize_localization({}, {"a.png": {"Mass": torch.zeros(1, 4)}}, {"Mas": {0.3: 1.0}})
        self.assertIn("bounds of false positives for Mas, which no image is annotated with", logs.output[0])

    def test_intersection_over_found_box(self):
        out = compute_localization_accuracy([torch.tensor([[2.0, 2, 4, 4]])], TRUTHS[:1], (0.7,), kind="iobb")
        self.assertEqual(out[0.7], (1.0, 0.0))

    def test_no_boxes_and_no_annotations(self):
        self.assertEqual(compute_localization_accuracy([NONE], TRUTHS[:1], (0.1,))[0.1], (0.0, 0.0))
        out = compute_localization_accuracy(BOXES[:1], [NONE], (0.1,))[0.1]
        self.assertTrue(math.isnan(out.accuracy))
        self.assertEqual(out.average_false_positives, 2.0)

    def test_settings(self):
        for bad in (-0.1, 1.1, math.nan, True):
            with self.assertRaisesRegex(ValueError, r"thresholds must be in \[0, 1\], got"):
                compute_localization_accuracy(BOXES, TRUTHS, thresholds=(bad,))
        for bad in (-1, math.nan, "1"):
            with self.assertRaisesRegex(ValueError, "bounds must be a finite number of at least 0, got"):
                compute_localization_accuracy(BOXES, TRUTHS, thresholds=(0.3,), bounds={0.3: bad})

    def test_what_is_no_box_is_refused_by_image(self):
        nan, turned = torch.tensor([[0.0, 0, math.nan, 9]]), torch.tensor([[9.0, 9, 0, 0]])
        for unfit in (nan, turned):
            for compute in (compute_localization_accuracy, compute_mean_iou):
                with self.assertRaisesRegex(ValueError, "one of those found for image 1 is not"):
                    compute([BOXES[0], unfit], TRUTHS[:2])
                with self.assertRaisesRegex(ValueError, "one of those annotated for image 0 is not"):
                    compute(BOXES[:1], [unfit])
            with self.assertRaisesRegex(ValueError, "one of those found for 'a.png', class 'Mass' is not"):
                summarize_localization({"a.png": {"Mass": unfit}}, {"a.png": {"Mass": TRUTHS[0]}})

    def test_lengths_differ(self):
        with self.assertRaisesRegex(ValueError, "one list of annotations is needed for each image, got 1 for 3"):
            compute_localization_accuracy(BOXES, TRUTHS[:1])


class TestSummary(unittest.TestCase):
    def test_each_class_over_the_images_annotated_with_it(self):
        annotated = {"a.png": {"Mass": TRUTHS[0]}, "b.png": {"Mass": TRUTHS[1], "Nodule": TRUTHS[0]}, "c.png": {}}
        found = {"a.png": {"Mass": BOXES[0], "Nodule": BOXES[1]}, "b.png": {"Mass": BOXES[1]}, "d.png": {}}
        metrics = summarize_localization(found, annotated)
        self.assertEqual(metrics["overlap"], "iou")
        mass, nodule = metrics["classes"]["Mass"], metrics["classes"]["Nodule"]
        self.assertEqual((mass["images"], nodule["images"]), (2, 1))
        # by hand above: both images' three annotations, two of them found
        self.assertAlmostEqual(mass["accuracy"]["0.3"], 2 / 3)
        self.assertEqual((nodule["accuracy"]["0.3"], nodule["mean_iou"]), (0.0, 0.0))  # no box at all
        self.assertEqual(summarize_localization({"d.png": {}}, annotated), {})


class TestOtherMetrics(unittest.TestCase):
    def test_mean_iou_of_first_boxes(self):
        self.assertAlmostEqual(compute_mean_iou(BOXES, TRUTHS), (0 + 1) / 2)
        self.assertAlmostEqual(compute_mean_iou([BOXES[0][1:], NONE], TRUTHS[:2]), 0.5 / 2)
        self.assertTrue(math.isnan(compute_mean_iou([NONE], [NONE])))


if __name__ == "__main__":
    unittest.main()
