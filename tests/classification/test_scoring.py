# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.classification.scoring import ClassScoresd

CALIBRATION = {"temperature": 2.0, "thresholds": {"none": 0.1, "edema": 0.6, "mass": 0.3}}


class TestClassScores(unittest.TestCase):
    def test_raw_probabilities_without_calibration(self):
        item = ClassScoresd(["a", "b"], exclusive=False)({"pred": torch.tensor([0.0, math.log(3)])})
        self.assertAlmostEqual(item["probabilities"]["a"], 0.5, places=6)
        self.assertAlmostEqual(item["probabilities"]["b"], 0.75, places=6)
        self.assertNotIn("abnormal", item)
        self.assertEqual(item["operating_points"], {})

    def test_exclusive_classes_sum_to_one(self):
        item = ClassScoresd(["a", "b", "c"], exclusive=True)({"pred": torch.tensor([0.3, 2.0, -1.0])})
        self.assertAlmostEqual(sum(item["probabilities"].values()), 1.0)

    def test_calibrated_verdicts_and_truth(self):
        scores = ClassScoresd(["none", "edema", "mass"], False, CALIBRATION, normal_class="none")
        item = scores({"pred": torch.tensor([9.0, 2 * math.log(1.4), 0.0]), "label": torch.tensor([0, 1, 0])})
        self.assertAlmostEqual(item["probabilities"]["edema"], 1.4 / 2.4, places=6)  # below 0.6
        self.assertEqual((item["abnormal"], item["label"]), (True, 1))
        self.assertEqual(item["true_findings"], ["edema"])
        self.assertEqual(item["operating_points"], {"edema": 0.6, "mass": 0.3})  # not that of no finding

    def test_attention_becomes_a_further_map(self):
        item = ClassScoresd(["a"])({"pred": torch.zeros(1), "attention": torch.rand(1, 5, 4)})
        self.assertEqual(item["extra_maps"]["attention"].shape, (5, 4))

    def test_the_normal_class_is_no_finding(self):
        scores = ClassScoresd(["none", "edema", "mass"], False, CALIBRATION, normal_class="none")
        item = scores({"pred": torch.tensor([9.0, -9.0, -9.0]), "label": torch.tensor([1, 0, 0])})
        self.assertEqual((item["abnormal"], item["label"]), (False, 0))
        self.assertLess(item["finding_probability"], 0.1)  # not the 0.99 of the normal class
        self.assertNotIn("anomaly_score", item)
        self.assertEqual(item["true_findings"], [])

    def test_a_finding_without_an_operating_point_is_neither_present_nor_absent(self):
        calibration = {"temperature": 1.0, "thresholds": {"edema": 0.6, "hernia": None}}
        scores = ClassScoresd(["edema", "hernia"], False, calibration)
        item = scores({"pred": torch.tensor([-9.0, 9.0])})
        self.assertEqual(item["operating_points"], {"edema": 0.6, "hernia": None})
        self.assertNotIn("abnormal", item)  # no edema, but who knows of the hernia
        self.assertTrue(scores({"pred": torch.tensor([9.0, 9.0])})["abnormal"])

    def test_a_probability_that_is_none_gets_no_verdict(self):
        # NaN is not above any threshold, so the image was "not flagged"
        for exclusive, value in ((False, math.nan), (True, math.nan), (True, math.inf)):
            scores = ClassScoresd(["none", "edema", "mass"], exclusive, CALIBRATION, "none")
            item = scores({"pred": torch.tensor([0.0, value, 0.0])})
            self.assertRegex(item["not_assessed"], "^the probability of '(none|edema)' must be finite, got nan$")
            self.assertNotIn("abnormal", item)
            self.assertNotIn("finding_probability", item)
            self.assertEqual(item["operating_points"], {})

    def test_what_is_not_assessed_gets_no_verdict(self):
        scores = ClassScoresd(["none", "edema", "mass"], False, CALIBRATION, normal_class="none")
        item = scores({"pred": torch.tensor([0.0, 9.0, 9.0]), "not_assessed": "a photograph"})
        self.assertEqual((item["not_assessed"], item["operating_points"]), ("a photograph", {}))
        self.assertNotIn("abnormal", item)
        self.assertGreater(item["probabilities"]["edema"], 0.9)

    def test_a_calibration_that_means_nothing(self):
        for changes, rule in (
            ({"temperature": math.nan}, "temperature must be"),
            ({"temperature": 0}, "temperature must be"),
            ({"thresholds": {"a": math.nan}}, r"operating point of 'a' must be in \[0, 1\], got nan"),
            ({"thresholds": {"a": True}}, r"operating point of 'a' must be in \[0, 1\], got True"),
            ({"thresholds": {}}, "must have an operating point of 'a' or null"),
        ):
            with self.assertRaisesRegex(ValueError, rule):
                ClassScoresd(["a"], calibration={"temperature": 1.0, "thresholds": {"a": 0.5}} | changes)

    def test_classes_are_names(self):
        with self.assertRaisesRegex(ValueError, "classes must all be different, got 'a' twice"):
            ClassScoresd(["a", "a"])
        with self.assertRaisesRegex(ValueError, "classes must be a list of one or more names, got "):
            ClassScoresd("[a,b]")

    def test_unknown_normal_class(self):
        with self.assertRaisesRegex(ValueError, "normal_class must be one of several classes .* got 'c'"):
            ClassScoresd(["a", "b"], normal_class="c")

    def test_exclusive_is_no_word(self):
        with self.assertRaisesRegex(ValueError, "exclusive must be True or False, got 'false'"):
            ClassScoresd(["a", "b"], exclusive="false")


if __name__ == "__main__":
    unittest.main()
