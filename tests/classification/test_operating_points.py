# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
from scipy.stats import binomtest

from bundle.classification.calibration import at_operating_point, check_classifier_calibration
from bundle.classification.operating_points import (
    choose_threshold,
    compute_operating_point,
    roc_points,
    threshold_of,
    thresholds_of,
    wilson_interval,
)

P = np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.9])
Y = np.array([0, 0, 1, 0, 1, 1])


class TestChooseThreshold(unittest.TestCase):
    def test_youden(self):
        # at 0.4: sensitivity 1, specificity 2/3; half-way to the next lower probability
        self.assertAlmostEqual(choose_threshold(P, Y), 0.3)

    def test_sensitivity_is_promised_not_only_reached(self):
        # of 3 positives, floor((1 - 0.5) * 4) - 1 = 1 may lie below, and at 0.75 none
        self.assertAlmostEqual(choose_threshold(P, Y, sensitivity=0.5), 0.65)
        self.assertAlmostEqual(choose_threshold(P, Y, sensitivity=0.75), 0.3)
        with self.assertRaisesRegex(ValueError, "at most 0.75, the most that 3 positive images of Mass can promise"):
            choose_threshold(P, Y, sensitivity=0.76, name="Mass")

    def test_one_kind_of_images_gives_no_threshold(self):
        # it was 0.5, which no image had been asked about
        self.assertIsNone(choose_threshold(P, np.ones(6)))
        self.assertIsNone(choose_threshold(P, np.zeros(6), sensitivity=0.5))

    def test_bad_input(self):
        for value in (0, 1, np.nan, True, "0.9"):
            with self.assertRaisesRegex(ValueError, r"sensitivity must be in \(0, 1\), got "):
                choose_threshold(P, Y, sensitivity=value)
        with self.assertRaisesRegex(ValueError, "probabilities must be finite, 1 of 6 are not, first: nan for image 2"):
            choose_threshold(np.where(P == 0.4, np.nan, P), Y)
        with self.assertRaisesRegex(ValueError, "targets must be 0 or 1, got 0.5 for image 0"):
            choose_threshold(P, np.full(6, 0.5))


class TestRocPoints(unittest.TestCase):
    def test_hand_computed_values(self):
        roc = roc_points(P, Y)
        np.testing.assert_allclose(roc["thresholds"], [0.95, 0.8, 0.65, 0.5, 0.3, 0.15, 0.05])
        np.testing.assert_allclose(roc["tpr"], np.array([0, 1, 2, 2, 3, 3, 3]) / 3)
        np.testing.assert_allclose(roc["fpr"], np.array([0, 0, 0, 1, 1, 2, 3]) / 3)
        self.assertEqual((roc["positives"], roc["negatives"]), (3, 3))
        self.assertIsNone(roc_points(P, np.zeros(6)))

    def test_points_say_what_counting_says(self):
        random = np.random.default_rng(0)
        y = (random.random(5000) < 0.05).astype(int)
        p = np.clip(0.3 * y + 0.7 * random.random(5000).round(3), 0, 1)
        roc = roc_points(p, y)
        self.assertLessEqual(len(roc["tpr"]), 200)
        for threshold, tpr, fpr in zip(roc["thresholds"], roc["tpr"], roc["fpr"], strict=True):
            self.assertAlmostEqual(tpr, (p[y == 1] >= threshold).mean())
            self.assertAlmostEqual(fpr, (p[y == 0] >= threshold).mean())
        content = {"weights_sha256": "0" * 64, "temperature": 1.0, "thresholds": {"a": 0.5}, "roc": {"a": roc}}
        check_classifier_calibration(content, "c.json", ["a"])
        # from few points a wish is still kept, at most by a step of the curve dearer than from all
        every = roc_points(p, y, most=None)
        for wish in ({"sensitivity": 0.9}, {"specificity": 0.9}, {"specificity": 0.99}):
            exact, few = threshold_of(every, **wish), threshold_of(roc, **wish)
            self.assertTrue(few <= exact if "sensitivity" in wish else few >= exact)
            self.assertLess(abs((p[y == 0] >= few).mean() - (p[y == 0] >= exact).mean()), 0.02)

    def test_a_probability_of_one_has_nothing_above_it(self):
        roc = roc_points(np.array([1.0, 1.0, 0.5]), np.array([0, 1, 0]))
        self.assertEqual((roc["thresholds"], roc["fpr"]), ([0.75, 0.25], [0.5, 1.0]))
        with self.assertRaisesRegex(ValueError, "no threshold on its images reaches it"):
            threshold_of(roc, specificity=0.6)


class TestWishedPoints(unittest.TestCase):
    def test_specificity(self):
        # of 3 negatives, floor(0.5 * 4) - 1 = 1 may lie at or above
        self.assertAlmostEqual(threshold_of(roc_points(P, Y), specificity=0.5), 0.3)
        self.assertAlmostEqual(threshold_of(roc_points(P, Y), specificity=0.75), 0.65)
        with self.assertRaisesRegex(ValueError, "the most that 3 negative images of 'Mass' can promise, got 0.9"):
            thresholds_of({"Mass": roc_points(P, Y)}, specificity=0.9)
        with self.assertRaisesRegex(ValueError, "one of sensitivity and specificity can be wished for"):
            threshold_of(roc_points(P, Y), 0.5, 0.5)

    def test_the_promise_holds_for_new_images(self):
        # every positive in turn as the new one: exchangeable by construction, so the share holds exactly
        values = np.random.default_rng(0).random(41)
        negatives = np.zeros(5)
        for wish in (0.5, 0.9, 0.95):
            missed = 0
            for i in range(41):
                p = np.append(np.delete(values, i), negatives)
                threshold = threshold_of(roc_points(p, np.append(np.ones(40), negatives), None), sensitivity=wish)
                missed += values[i] < threshold
            self.assertLessEqual(missed / 41, 1 - wish)

    def test_all_classes(self):
        roc = {"normal": roc_points(P, 1 - Y), "Mass": roc_points(P, Y), "Hernia": None}
        found = thresholds_of(roc, sensitivity=0.5, findings=["Mass", "Hernia"])
        self.assertEqual(found, {"normal": threshold_of(roc["normal"]), "Mass": found["Mass"], "Hernia": None})
        self.assertAlmostEqual(found["Mass"], 0.65)
        content = {"weights_sha256": "0" * 64, "temperature": 1.0, "thresholds": dict.fromkeys(roc, 0.5), "roc": roc}
        changed = at_operating_point(content, list(roc), "normal", sensitivity=0.5)
        self.assertEqual(changed, content | {"thresholds": found})
        check_classifier_calibration(changed, "c.json", list(roc))
        with self.assertRaisesRegex(ValueError, "keeps no 'roc' to choose an operating point from"):
            thresholds_of({}, sensitivity=0.5)


class TestOperatingPoint(unittest.TestCase):
    def test_hand_computed_values(self):
        point = compute_operating_point(P, Y, 0.5)
        self.assertAlmostEqual(point["sensitivity"], 2 / 3)
        self.assertAlmostEqual(point["specificity"], 2 / 3)
        self.assertAlmostEqual(point["positive_predictive_value"], 2 / 3)

    def test_undefined_shares_are_left_out(self):
        self.assertNotIn("positive_predictive_value", compute_operating_point(P, Y, 1.1))

    def test_what_is_no_number_is_refused(self):
        with self.assertRaisesRegex(ValueError, "threshold must be a finite number, got nan"):
            compute_operating_point(P, Y, np.nan)
        with self.assertRaisesRegex(ValueError, "probabilities must be finite"):
            compute_operating_point(P * np.inf, Y, 0.5)

    def test_wilson_matches_scipy(self):
        for hits, total in ((0, 5), (3, 7), (20, 20)):
            expected = binomtest(hits, total).proportion_ci(method="wilson")
            np.testing.assert_allclose(wilson_interval(hits, total), [expected.low, expected.high], atol=1e-6)


if __name__ == "__main__":
    unittest.main()
