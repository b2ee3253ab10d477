# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.anomaly.conformal import conformal_p_values, conformal_threshold, promised_threshold


class TestConformalPValues(unittest.TestCase):
    def test_hand_computed_value(self):
        # 2.0 ties with one calibration score, which counts: 1 + two of three that are at least 2, over 4
        out = conformal_p_values(torch.tensor([[2.0, 9.0]]), torch.tensor([3.0, 1.0, 2.0]))
        torch.testing.assert_close(out, torch.tensor([[0.75, 0.25]], dtype=torch.double))

    def test_matches_counting(self):
        calibration = torch.randint(0, 10, (37,)).double()
        scores = torch.randint(-1, 11, (5, 6)).double()
        expected = (1 + (calibration >= scores[..., None]).sum(-1)).double() / 38
        torch.testing.assert_close(conformal_p_values(scores, calibration), expected)

    def test_false_alarms_stay_below_the_level(self):
        # every normal in turn as the new one: exchangeable by construction, so the rate holds exactly
        values = torch.randn(41, generator=torch.Generator().manual_seed(0))
        p = torch.stack([conformal_p_values(values[i], values[torch.arange(41) != i]) for i in range(41)])
        for level in (0.05, 0.1, 0.3, 0.9):
            self.assertLessEqual((p <= level).double().mean().item(), level)

    def test_a_score_that_is_none_has_no_p_value(self):
        for value in (math.nan, math.inf):
            with self.assertRaisesRegex(ValueError, "scores must be finite, 1 of 2 are not"):
                conformal_p_values(torch.tensor([0.0, value]), torch.arange(3.0))
            with self.assertRaisesRegex(ValueError, "calibration must hold finite scores, 1 of 2 are not"):
                conformal_p_values(torch.zeros(1), torch.tensor([0.0, value]))

    def test_no_calibration_score(self):
        with self.assertRaisesRegex(ValueError, "at least one score, got none"):
            conformal_p_values(torch.zeros(1), torch.zeros(0))


class TestConformalThreshold(unittest.TestCase):
    def test_hand_computed_value(self):
        # 9 normals and a rate of 0.2: p = 2/10 is allowed, so one calibration score may lie above
        self.assertEqual(conformal_threshold(torch.arange(9.0), 0.2), 7.0)

    def test_above_the_threshold_means_a_small_p_value(self):
        generator = torch.Generator().manual_seed(1)
        for n in (1, 4, 9, 10, 19, 20, 33):
            calibration = torch.randint(0, 30, (n,), generator=generator).double()
            scores = torch.cat([calibration, calibration + 0.5, torch.tensor([-1.0, 99.0], dtype=torch.double)])
            for rate in (0.05, 0.1, 0.25, 0.5):
                threshold = conformal_threshold(calibration, rate)
                small = conformal_p_values(scores, calibration) <= rate + 1e-12
                self.assertEqual((scores > threshold).tolist(), small.tolist(), (n, rate))

    def test_too_few_normals_promise_nothing(self):
        self.assertEqual(conformal_threshold(torch.arange(8.0), 0.1), math.inf)
        self.assertEqual(conformal_threshold(torch.arange(9.0), 0.1), 8.0)

    def test_a_wished_rate_is_promised_or_refused(self):
        self.assertEqual(promised_threshold(torch.arange(9.0), 0.1), 8.0)
        with self.assertRaisesRegex(ValueError, "at least 0.1112, the least that 8 normals can promise, got 0.1"):
            promised_threshold(torch.arange(8.0), 0.1)

    def test_rejects_bad_arguments(self):
        for rate in (0.0, 1.0, math.nan, True, "0.1"):
            with self.assertRaisesRegex(ValueError, r"false_alarm_rate must be in \(0, 1\), got"):
                conformal_threshold(torch.zeros(3), rate)
        with self.assertRaisesRegex(ValueError, "at least one score, got none"):
            conformal_threshold(torch.zeros(0), 0.1)


if __name__ == "__main__":
    unittest.main()
