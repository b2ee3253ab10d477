# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.detection import summarize_detection

TRUTH = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def scored(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows)


class TestAveragePrecision(unittest.TestCase):
    def test_hit_miss_hit_by_hand(self):
        # by falling score: hit, false, hit. Precision 1 up to recall 1/2, which is 51 of COCO's 101 recalls, and 2/3 at
        # the other 50: (51 + 50 * 2/3) / 101
        found = {
            "a": {"Mass": scored((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.8))},
            "b": {"Mass": scored((0, 0, 10, 10, 0.7))},
        }
        truths = {"a": {"Mass": TRUTH}, "b": {"Mass": TRUTH}}
        metrics = summarize_detection(found, truths, ["Mass", "Nodule"])
        expected = (51 + 50 * 2 / 3) / 101
        for value in metrics["mean_average_precision"].values():
            self.assertAlmostEqual(value, expected, places=5)
        self.assertEqual(list(metrics["classes"]), ["Mass"])  # no nodule is annotated
        self.assertEqual((metrics["classes"]["Mass"]["boxes"], metrics["classes"]["Mass"]["images"]), (2, 2))

    def test_overlaps_by_hand(self):
        # intersection over union 45 / 100: a hit at 0.4 and none above
        found = {"a": {"Mass": scored((0, 0, 10, 4.5, 0.9))}}
        values = summarize_detection(found, {"a": {"Mass": TRUTH}}, ["Mass"])["mean_average_precision"]
        self.assertEqual(values, {"0.4": 1.0, "0.5": 0.0, "0.5 to 0.95": 0.0})
        # 0.72: a hit at 0.5, 0.55, 0.6, 0.65 and 0.7, five of ten
        found = {"a": {"Mass": scored((0, 0, 10, 7.2, 0.9))}}
        values = summarize_detection(found, {"a": {"Mass": TRUTH}}, ["Mass"])["mean_average_precision"]
        self.assertEqual(values, {"0.4": 1.0, "0.5": 1.0, "0.5 to 0.95": 0.5})

    def test_a_second_box_on_one_annotation_is_false(self):
        found = {
            "a": {"Mass": scored((0, 0, 10, 9, 0.9), (0, 0, 10, 10, 0.8))},
            "b": {"Mass": scored((0, 0, 9, 9, 0.5))},
        }
        truths = {"a": {"Mass": TRUTH}, "b": {"Mass": TRUTH}}
        value = summarize_detection(found, truths, ["Mass"])["mean_average_precision"]["0.4"]
        self.assertAlmostEqual(value, (51 + 50 * 2 / 3) / 101, places=5)

    def test_a_finding_at_an_unknown_place_is_not_judged(self):
        found = {"a": {"Mass": scored((0, 0, 10, 10, 0.5))}, "b": {"Mass": scored((0, 0, 10, 10, 0.9))}}
        truths = {"a": {"Mass": TRUTH}}
        # the false box of b stands before the hit: precision 1/2
        self.assertAlmostEqual(summarize_detection(found, truths, ["Mass"])["mean_average_precision"]["0.4"], 0.5)
        known = summarize_detection(found, truths, ["Mass"], {"b": {"Mass"}})
        self.assertEqual(known["mean_average_precision"]["0.4"], 1.0)

    def test_nothing_annotated_and_nothing_at_all(self):
        metrics = summarize_detection({"a": {"Mass": scored((0, 0, 1, 1, 0.5))}}, {}, ["Mass"])
        self.assertEqual(metrics, {"images": 1, "mean_average_precision": {}, "classes": {}})
        self.assertEqual(
            summarize_detection({"a": {}}, {"a": {"Mass": TRUTH}}, ["Mass"])["mean_average_precision"]["0.4"], 0
        )
        with self.assertRaisesRegex(ValueError, "one image at least"):
            summarize_detection({}, {}, ["Mass"])


if __name__ == "__main__":
    unittest.main()
