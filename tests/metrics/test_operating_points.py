# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
from scipy.stats import binomtest

from bundle.metrics.operating_points import choose_threshold, compute_operating_point, wilson_interval

P = np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.9])
Y = np.array([0, 0, 1, 0, 1, 1])


class TestChooseThreshold(unittest.TestCase):
    def test_youden(self):
        # at 0.4: sensitivity 1, specificity 2/3; half-way to the next lower probability
        self.assertAlmostEqual(choose_threshold(P, Y), 0.3)

    def test_sensitivity(self):
        self.assertAlmostEqual(choose_threshold(P, Y, sensitivity=0.6), 0.65)
        self.assertAlmostEqual(choose_threshold(P, Y, sensitivity=1.0), 0.3)

    def test_one_class_only(self):
        self.assertEqual(choose_threshold(P, np.ones(6)), 0.5)

    def test_bad_sensitivity(self):
        with self.assertRaisesRegex(ValueError, r"sensitivity must be in \(0, 1\], got 0"):
            choose_threshold(P, Y, sensitivity=0)


class TestOperatingPoint(unittest.TestCase):
    def test_hand_computed_values(self):
        point = compute_operating_point(P, Y, 0.5)
        self.assertAlmostEqual(point["sensitivity"], 2 / 3)
        self.assertAlmostEqual(point["specificity"], 2 / 3)
        self.assertAlmostEqual(point["positive_predictive_value"], 2 / 3)

    def test_undefined_shares_are_left_out(self):
        self.assertNotIn("positive_predictive_value", compute_operating_point(P, Y, 1.1))

    def test_wilson_matches_scipy(self):
        for hits, total in ((0, 5), (3, 7), (20, 20)):
            expected = binomtest(hits, total).proportion_ci(method="wilson")
            np.testing.assert_allclose(wilson_interval(hits, total), [expected.low, expected.high], atol=1e-6)


if __name__ == "__main__":
    unittest.main()
