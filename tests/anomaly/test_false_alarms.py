# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest
from types import SimpleNamespace

from scipy.stats import binomtest

from bundle.anomaly.false_alarms import observed_false_alarms, share_interval
from bundle.anomaly.metrics import summarize_anomaly


class TestShareInterval(unittest.TestCase):
    def test_one_image_a_patient_is_clopper_and_pearson(self):
        for n, k in ((10, 3), (20, 1), (12, 12), (7, 0)):
            found = share_interval([1] * k + [0] * (n - k), range(n))
            exact = binomtest(k, n).proportion_ci(0.95, "exact")
            self.assertAlmostEqual(found[0], exact.low)
            self.assertAlmostEqual(found[1], exact.high)

    def test_copies_of_an_image_are_worth_one(self):
        # 4 patients of 3 equal images: sum (k - s n)^2 = 3^2 * 4 * 1/4, worth 1/4 * 12^2 / 9 = 4
        patients = [p for p in "abcd" for _ in range(3)]
        found = share_interval([p in "ab" for p in patients], patients)
        exact = binomtest(2, 4).proportion_ci(0.95, "exact")
        self.assertAlmostEqual(found[0], exact.low)
        self.assertAlmostEqual(found[1], exact.high)
        # none flagged: as many as patients, 1 - 0.025^(1/4)
        self.assertAlmostEqual(share_interval([0] * 12, patients)[1], 1 - 0.025**0.25)

    def test_never_worth_more_than_the_images(self):
        # each patient has one flagged and one not: no spread between patients, worth 4 images
        found = share_interval([1, 0, 1, 0], "aabb")
        self.assertAlmostEqual(found[0], binomtest(2, 4).proportion_ci(0.95, "exact").low)

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, "one patient is needed for each image, got 1 for 2"):
            share_interval([0, 1], "a")
        with self.assertRaisesRegex(ValueError, "one patient is needed for each image, got 0 for 0"):
            share_interval([], [])
        with self.assertRaisesRegex(ValueError, "must be 0 or 1"):
            share_interval([2], "a")
        with self.assertRaisesRegex(ValueError, r"level must be in \(0, 1\), got 1"):
            share_interval([1], "a", level=1)


class TestObservedFalseAlarms(unittest.TestCase):
    def test_by_hand(self):
        # of scores 1 to 19, p = (1 + how many are as large) / 20: 19 has 2/20, 19.5 has 1/20, 17 has 4/20, 16 has 5/20
        found = observed_false_alarms([19.0, 19.5, 17.0, 16.0, 1.0], range(1, 20))
        self.assertEqual(
            [found[f"false_alarms_at_{percent}"] for percent in (5, 10, 20)],
            [1 / 5, 2 / 5, 3 / 5],
        )
        exact = binomtest(1, 5).proportion_ci(0.95, "exact")
        self.assertAlmostEqual(found["false_alarms_at_5_interval"][1], exact.high)

    def test_no_rate_that_the_calibration_cannot_promise(self):
        found = observed_false_alarms([9.0], range(1, 19), rates=(0.05, 0.125))  # 18 promise 1 in 19 at least
        self.assertEqual(set(found), {"false_alarms_at_12_5", "false_alarms_at_12_5_interval"})

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, "scores must be finite, 1 of 1 are not"):
            observed_false_alarms([math.nan], [1.0])
        with self.assertRaisesRegex(ValueError, r"rates must be in \(0, 1\), got 5"):
            observed_false_alarms([1.0], [1.0], rates=(5,))

    def test_normal_images_alone_count_by_patient(self):
        results = [
            SimpleNamespace(key=str(number), label=label, anomaly_score=score)
            for number, (label, score) in enumerate([(0, 30.0), (0, 30.0), (0, 1.0), (0, 1.0), (1, 30.0), (None, 30.0)])
        ]
        items = [{"key": str(number), "patient": patient} for number, patient in enumerate("aabbab")]
        calibration = {"scores": list(range(1, 20))}
        metrics = summarize_anomaly(results, None, calibration, items)
        self.assertEqual(metrics["false_alarms_at_5"], 0.5)
        # two of the four lie at or below 10, the median of 19: as many as are above
        self.assertAlmostEqual(metrics["shift_p_higher"], metrics["shift_p_lower"])
        by_patient = binomtest(1, 2).proportion_ci(0.95, "exact")
        self.assertAlmostEqual(metrics["false_alarms_at_5_interval"][0], by_patient.low)
        alone = summarize_anomaly(results, None, calibration)["false_alarms_at_5_interval"]
        self.assertAlmostEqual(alone[0], binomtest(2, 4).proportion_ci(0.95, "exact").low)
        self.assertNotIn("false_alarms_at_5", summarize_anomaly(results[4:5], None, calibration))


if __name__ == "__main__":
    unittest.main()
