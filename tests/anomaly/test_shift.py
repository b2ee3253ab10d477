# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import unittest

import numpy as np

from bundle.anomaly import score_shift
from bundle.anomaly.shift import precedence_test


def row(score, label=None, not_assessed=None):
    return {"anomaly_score": score, "label": label, "not_assessed": not_assessed}


def by_counting(new, known):
    """How many new ones come at or before the median of the known, over every order of both."""
    j = (known + 1) // 2
    counts = []
    for places in itertools.combinations(range(new + known), known):  # of the known scores
        counts.append(places[j - 1] - (j - 1))
    return np.array(counts)


class TestPrecedenceTest(unittest.TestCase):
    def test_is_the_share_of_orders(self):
        # by hand: every order of 4 new and 5 known scores is as likely as any other
        counts = by_counting(4, 5)
        known = [10.0, 20.0, 30.0, 40.0, 50.0]
        for below in range(5):
            found = precedence_test([1.0] * below + [99.0] * (4 - below), known)
            self.assertEqual(found["below"], below)
            self.assertAlmostEqual(found["p_higher"], (counts <= below).mean())
            self.assertAlmostEqual(found["p_lower"], (counts >= below).mean())

    def test_where_half_may_be_abnormal_half_is_looked_at(self):
        # by hand: 8 images of which 4 are normal; none of them lies below
        self.assertAlmostEqual(
            precedence_test([99.0] * 8, [1.0, 2.0, 3.0], 0.5)["p_higher"], (by_counting(4, 3) <= 0).mean()
        )

    def test_keeps_its_level_for_normal_images(self):
        draw = np.random.default_rng(0)
        low = [precedence_test(draw.normal(size=40), draw.normal(size=60))["p_higher"] < 0.05 for _ in range(1000)]
        self.assertLess(np.mean(low), 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5)


class TestScoreShift(unittest.TestCase):
    def setUp(self):
        self.draw = np.random.default_rng(0)
        self.calibration = {"scores": self.draw.normal(10, 1, 100).tolist(), "false_alarm_rate": 0.1}

    def sentences(self, rows):
        return list(score_shift(rows, self.calibration))

    def test_usual_images_and_findings_among_them_are_no_shift(self):
        normal, abnormal = self.draw.normal(10, 1, 50), self.draw.normal(14, 1, 50)
        self.assertEqual(self.sentences([row(s) for s in normal]), [])
        self.assertEqual(self.sentences([row(s) for s in [*normal, *abnormal]]), [])
        labelled = [*(row(s, 0) for s in normal), *(row(s, 1) for s in abnormal)]
        self.assertEqual(self.sentences(labelled), [])

    def test_other_images_are_a_shift(self):
        (higher,) = self.sentences([row(s) for s in self.draw.normal(13, 1, 50)])
        self.assertRegex(higher, "higher than the calibration's: 0 of 50 images .* more than half .*recalibrate")
        (lower,) = self.sentences([row(s) for s in self.draw.normal(8, 1, 50)])
        self.assertRegex(lower, "lower than the calibration's: .* missed")
        (labelled,) = self.sentences([row(s, 0) for s in self.draw.normal(13, 1, 20)])
        self.assertIn("0 of 20 normal images", labelled)
        self.assertNotIn("unless", labelled)

    def test_says_nothing_of_what_is_not_assessed_and_without_a_calibration(self):
        self.assertEqual(self.sentences([row(99.0, not_assessed="another kind of picture")] * 50), [])
        self.assertEqual(self.sentences([row(None)] * 50), [])
        self.assertEqual(self.sentences([]), [])
        self.assertEqual(list(score_shift([row(99.0)] * 50, None)), [])

    def test_few_images_say_nothing(self):
        self.assertEqual(self.sentences([row(99.0)] * 5), [])


if __name__ == "__main__":
    unittest.main()
