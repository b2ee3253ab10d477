# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Invertd
from scipy.ndimage import gaussian_filter

from bundle.anomaly import AnomalyScored, AnomalyVerdictd
from bundle.anomaly.scoring import anomaly_heatmap, mean_of_largest


class TestAnomalyHeatmap(unittest.TestCase):
    def test_hand_computed_value(self):
        # bilinear, pixel centers: 0 and 4 over two positions become 0, 1, 3, 4 over four pixels
        out = anomaly_heatmap(torch.tensor([[[0.0, 4.0]]]), (1, 4), sigma=0)
        self.assertEqual(out.tolist(), [[[0, 1, 3, 4]]])

    def test_smoothing_matches_scipy(self):
        distances = torch.rand(1, 8, 8)
        plain = F.interpolate(distances[None], (64, 64), mode="bilinear", align_corners=False)[0, 0]
        expected = gaussian_filter(plain.numpy(), 2.0, mode="constant")
        got = anomaly_heatmap(distances, (64, 64), sigma=2.0)[0]
        torch.testing.assert_close(
            got[12:-12, 12:-12], torch.tensor(expected)[12:-12, 12:-12], atol=3e-3, rtol=0
        )  # MONAI integrates over pixels


class TestMeanOfLargest(unittest.TestCase):
    def test_hand_computed_values(self):
        values = torch.tensor([[1.0, 9.0], [4.0, 2.0]])
        for fraction, expected in ((0.01, 9.0), (0.5, 6.5), (1.0, 4.0)):
            self.assertEqual(mean_of_largest(values, fraction).item(), expected)


class TestAnomalyScored(unittest.TestCase):
    def test_scores_are_maxima_of_the_map_and_of_the_heatmap(self):
        d = AnomalyScored(sigma=1.0, top_fraction=0)({"pred": torch.rand(1, 4, 4), "image": torch.zeros(3, 16, 16)})
        self.assertEqual(d["anomaly_score_raw"].item(), d["pred"].max().item())
        self.assertEqual(d["anomaly_score"].item(), d["heatmap"].max().item())
        self.assertEqual(d["heatmap"].shape, (1, 16, 16))

    def test_the_score_can_be_the_mean_of_a_part(self):
        d = AnomalyScored(top_fraction=0.25)(
            {"pred": torch.arange(16.0).view(1, 4, 4), "image": torch.zeros(1, 16, 16)}
        )
        self.assertEqual((d["anomaly_score"].item(), d["anomaly_score_raw"].item()), (13.5, 15))
        with self.assertRaisesRegex(ValueError, r"top_fraction must be in \[0, 1\], got 2"):
            AnomalyScored(top_fraction=2)
        for setting, value in (("sigma", -1), ("sigma", math.nan), ("sigma", "4"), ("top_fraction", math.nan)):
            with self.assertRaisesRegex(ValueError, f"{setting} must be "):
                AnomalyScored(**{setting: value})
        for fraction in (0, 1.5, math.nan):
            with self.assertRaisesRegex(ValueError, r"fraction must be in \(0, 1\], got"):
                mean_of_largest(torch.zeros(4), fraction)

    def test_the_heatmap_goes_the_way_of_the_image_back(self):
        way = Compose([Flipd("image", 0)])
        d = way({"image": MetaTensor(torch.zeros(3, 16, 16))})
        hot = torch.zeros(1, 4, 4)
        hot[0, 0, 0] = 1.0  # upper left of the flipped image, lower left of the file
        d = AnomalyScored(sigma=0)({**d, "pred": hot})
        d = Invertd("heatmap", way, orig_keys="image", nearest_interp=False)(d)
        self.assertEqual(divmod(int(d["heatmap"].argmax()), 16)[0] // 4, 3)


class TestAnomalyVerdictd(unittest.TestCase):
    def test_hand_computed_values(self):
        verdict = AnomalyVerdictd(calibration={"scores": [1.0, 2.0, 3.0], "threshold": 2.5})
        for score, p_value, abnormal in ((0.0, 1.0, False), (2.5, 0.5, False), (9.0, 0.25, True)):
            d = verdict({"anomaly_score": torch.tensor(score)})
            self.assertEqual((d["p_value"], d["abnormal"]), (p_value, abnormal))

    def test_no_promise_means_no_verdict(self):
        # it was "not flagged" for every image, which no normal had promised
        d = AnomalyVerdictd(calibration={"scores": [1.0], "threshold": math.inf})({"anomaly_score": 1e9})
        self.assertEqual((d["p_value"], "abnormal" in d), (0.5, False))

    def test_a_score_that_is_none_gets_no_verdict(self):
        for calibration in (None, {"scores": [1.0, 2.0, 3.0], "threshold": 2.5}):
            for value in (math.nan, math.inf, -math.inf):
                d = AnomalyVerdictd(calibration=calibration)({"anomaly_score": torch.tensor(value)})
                self.assertEqual(d["not_assessed"], f"anomaly_score must be finite, got {value}")
                self.assertFalse({"abnormal", "p_value"} & set(d))

    def test_a_map_with_one_value_that_is_none_has_no_score(self):
        hole = torch.zeros(1, 4, 4)
        hole[0, 1, 2] = math.nan
        for fraction in (0.0, 0.1):
            d = AnomalyScored(top_fraction=fraction)({"pred": hole, "image": torch.zeros(1, 16, 16)})
            self.assertTrue(math.isnan(d["anomaly_score"]))

    def test_what_is_not_assessed_gets_no_verdict(self):
        verdict = AnomalyVerdictd(calibration={"scores": [1.0, 2.0, 3.0], "threshold": 2.5})
        d = verdict({"anomaly_score": 9.0, "not_assessed": "a photograph"})
        self.assertEqual((d["p_value"], d["not_assessed"], "abnormal" in d), (0.25, "a photograph", False))

    def test_a_calibration_that_means_nothing(self):
        for content, rule in (
            ({"scores": [1.0, math.nan], "threshold": 1.0}, "calibration must hold finite scores, 1 of 2 are not"),
            ({"scores": [], "threshold": 1.0}, "calibration must hold at least one score"),
            ({"scores": [1.0], "threshold": math.nan}, "threshold must be a finite number, got nan"),
            ({"scores": [1.0], "threshold": True}, "threshold must be a finite number, got True"),
        ):
            with self.assertRaisesRegex(ValueError, rule):
                AnomalyVerdictd(calibration=content)

    def test_without_a_calibration_nothing_is_added(self):
        self.assertEqual(AnomalyVerdictd()({"anomaly_score": 1.0}), {"anomaly_score": 1.0})


class TestTopFraction(unittest.TestCase):
    def test_hand_computed_value(self):
        self.assertEqual(float(mean_of_largest(torch.tensor([1.0, 5.0, 3.0, 2.0]), 0.5)), 4.0)
        self.assertEqual(float(mean_of_largest(torch.tensor([1.0, 5.0]), 0.01)), 5.0)

    def test_score_of_an_item(self):
        item = {"image": MetaTensor(torch.zeros(3, 16, 16)), "pred": torch.tensor([[[1.0, 5.0], [3.0, 2.0]]])}
        self.assertEqual(float(AnomalyScored(top_fraction=0.5)(item)["anomaly_score"]), 4.0)
        with self.assertRaisesRegex(ValueError, "top_fraction must be in"):
            AnomalyScored(top_fraction=1.5)


if __name__ == "__main__":
    unittest.main()
