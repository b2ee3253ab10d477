# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
import unittest
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
from sklearn.metrics import roc_auc_score

from bundle.anomaly.metrics import bootstrap_interval, compute_anomaly_metrics, summarize_anomaly


class QuickTestCase(unittest.TestCase):
    def setUp(self):
        # a thousand draws take a second, and have their own test
        quick = partial(bootstrap_interval, samples=20)
        patch = mock.patch("bundle.anomaly.metrics.bootstrap_interval", quick)
        patch.start()
        self.addCleanup(patch.stop)


class TestComputeAnomalyMetrics(QuickTestCase):
    def test_hand_computed_values(self):
        # of the 2 x 2 pairs the abnormal 2 loses to the normal 3: 3/4; precisions 1 and 2/3 at the two recalls
        out = compute_anomaly_metrics([0, 0, 1, 1], [1, 3, 2, 4], threshold=2)
        self.assertEqual(out["auroc"], 0.75)
        self.assertAlmostEqual(out["average_precision"], (1 + 2 / 3) / 2)
        self.assertEqual((out["sensitivity"], out["specificity"]), (0.5, 0.5))  # 2 is not above 2
        self.assertEqual((out["images"], out["positives"], out["negatives"], out["threshold"]), (4, 2, 2, 2))
        json.dumps(out)

    def test_auroc_matches_counting_pairs(self):
        random = np.random.default_rng(0)
        labels, scores = random.integers(0, 2, 40), random.integers(0, 9, 40)
        pairs = [(a > n) + 0.5 * (a == n) for a in scores[labels == 1] for n in scores[labels == 0]]
        metrics = compute_anomaly_metrics(labels, scores)
        self.assertAlmostEqual(metrics["auroc"], float(np.mean(pairs)))
        np.testing.assert_allclose(metrics["auroc_interval"], bootstrap_interval(labels, scores, roc_auc_score, 20))

    def test_one_kind_of_images_gives_no_auroc_and_says_so(self):
        out = compute_anomaly_metrics([0, 0], [1, 2], threshold=1.5)
        self.assertEqual(out["note"], "No AUROC: the list has no abnormal image.")
        self.assertEqual(out["specificity"], 0.5)
        self.assertFalse({"auroc", "sensitivity"} & set(out))
        self.assertEqual(compute_anomaly_metrics([1], [1.0])["note"], "No AUROC: the list has no normal image.")

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, "must have one length, got 2 and 1"):
            compute_anomaly_metrics([0, 1], [1])
        with self.assertRaisesRegex(ValueError, r"labels must be 0 or 1, got \[0, 2\]"):
            compute_anomaly_metrics([0, 2], [1, 2])
        with self.assertRaisesRegex(ValueError, "scores must be finite, 1 of 2 are not, first: nan for image 'b'"):
            compute_anomaly_metrics([0, 1], [1, math.nan], images=["a", "b"])
        with self.assertRaisesRegex(ValueError, r"labels must be 0 or 1, got \[0.0, nan\]"):
            compute_anomaly_metrics([0, math.nan], [1, 2])
        with self.assertRaisesRegex(ValueError, "threshold must be a finite number, got nan"):
            compute_anomaly_metrics([0, 1], [1, 2], threshold=math.nan)


class TestBootstrapInterval(unittest.TestCase):
    def test_both_kinds_are_in_every_draw_and_the_seed_decides(self):
        labels, scores = np.array([0] * 9 + [1]), np.arange(10.0)
        self.assertEqual(bootstrap_interval(labels, scores, roc_auc_score, samples=50), (1, 1))
        scores = np.random.default_rng(0).random(10)
        first, again = (bootstrap_interval(labels, scores, roc_auc_score, 50, seed=3) for _ in range(2))
        self.assertEqual(first, again)
        narrow = bootstrap_interval(labels, scores, roc_auc_score, 50, level=0.5, seed=3)
        self.assertTrue(first[0] <= narrow[0] <= narrow[1] <= first[1])

    def test_rejects_bad_input(self):
        labels, scores = np.array([0, 1]), np.array([0.0, 1.0])
        with self.assertRaisesRegex(ValueError, "scores must be finite"):
            bootstrap_interval(labels, scores * np.nan, roc_auc_score)
        with self.assertRaisesRegex(ValueError, r"labels must be 0 and 1, both present, got \[0\]"):
            bootstrap_interval(labels * 0, scores, roc_auc_score)
        with self.assertRaisesRegex(ValueError, "samples must be a whole number of at least 1"):
            bootstrap_interval(labels, scores, roc_auc_score, samples=0)
        with self.assertRaisesRegex(ValueError, r"level must be in \(0, 1\), got nan"):
            bootstrap_interval(labels, scores, roc_auc_score, level=math.nan)


class TestSummarizeAnomaly(QuickTestCase):
    def test_an_image_without_a_score_is_named(self):
        for score in (None, math.nan, math.inf):
            results = [SimpleNamespace(key=k, label=x, anomaly_score=s) for k, x, s in (("a", 0, 1.0), ("b", 1, score))]
            with self.assertRaisesRegex(ValueError, "scores must be finite, 1 of 2 are not, first: .* for image 'b'"):
                summarize_anomaly(results)
        results[1].anomaly_score = 2.0
        with self.assertRaisesRegex(ValueError, "threshold must be a finite number, got nan"):
            summarize_anomaly(results, math.nan)

    def test_only_labelled_results_count(self):
        results = [SimpleNamespace(label=x, anomaly_score=s) for x, s in ((0, 1.0), (None, 9.0), (1, 2.0))]
        self.assertEqual(summarize_anomaly(results)["auroc"], 1)
        self.assertEqual(summarize_anomaly(results[1:2]), {})
        self.assertNotIn("threshold", summarize_anomaly(results, math.inf))
        self.assertEqual(summarize_anomaly(results, 1.5)["sensitivity"], 1)


if __name__ == "__main__":
    unittest.main()
