# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from bundle.classification.metrics import compute_classification_metrics
from bundle.training.auroc import MeanAUROC, class_aurocs, patient_bootstrap

RANDOM = np.random.default_rng(0)
TARGETS = (RANDOM.random((80, 3)) < 0.4).astype(int)
SCORES = np.clip(0.3 * TARGETS + RANDOM.random((80, 3)).round(1) * 0.7, 0, 1)  # rounded: there are ties


class TestClassAurocs(unittest.TestCase):
    def test_hand_computed_value(self):
        # positives 0.9 and 0.4 against negatives 0.5 and 0.4: wins 2 + 0 + 0.5 of 4
        areas = class_aurocs(np.array([[0.9], [0.4], [0.5], [0.4]]), np.array([[1], [1], [0], [0]]))
        self.assertAlmostEqual(areas[0], 2.5 / 4)

    def test_matches_scikit_learn(self):
        np.testing.assert_allclose(
            class_aurocs(SCORES, TARGETS), [roc_auc_score(TARGETS[:, k], SCORES[:, k]) for k in range(3)]
        )

    def test_what_is_no_number_is_refused(self):
        # ranks put NaN above all others: a positive without a score was the best
        with self.assertRaisesRegex(ValueError, "scores must be finite, 1 of 4 are not, first: nan for image 1"):
            class_aurocs(np.array([[0.9], [np.nan], [0.5], [0.4]]), np.array([[1], [1], [0], [0]]))

    def test_absent_class_is_nan(self):
        self.assertTrue(np.isnan(class_aurocs(SCORES, TARGETS * [1, 1, 0])[2]))


class TestMeanAUROC(unittest.TestCase):
    def test_batches_add_up_and_absent_classes_stay_out(self):
        metric = MeanAUROC()
        scores, targets = torch.from_numpy(SCORES), torch.from_numpy(TARGETS * [1, 1, 0])
        for i in range(0, 80, 30):
            metric(list(scores[i : i + 30]), list(targets[i : i + 30]))
        self.assertAlmostEqual(
            metric.aggregate(), np.mean([roc_auc_score(TARGETS[:, k], SCORES[:, k]) for k in (0, 1)])
        )

    def test_no_class_at_all(self):
        # a mean of 0 was no better than that of the untrained network, which was then kept as the best
        metric = MeanAUROC(["a", "b"])
        metric(torch.rand(3, 2), torch.zeros(3, 2))
        with self.assertRaisesRegex(ValueError, "no AUROC to choose the best network by; a, b have only one kind in 3"):
            metric.aggregate()

    def test_a_network_that_diverged(self):
        metric = MeanAUROC(["a", "b"])
        metric(torch.tensor([[0.0, 1.0], [2.0, float("nan")]]), torch.tensor([[0, 1], [1, 0]]))
        with self.assertRaisesRegex(ValueError, "must be finite, 1 of 4 are not, first: nan for image 1, class 'b'"):
            metric.aggregate()
        metric.reset()
        metric(torch.rand(2, 2), torch.tensor([[0, 1], [1, float("nan")]]))
        with self.assertRaisesRegex(ValueError, "targets must be 0 or 1, got nan for image 1"):
            metric.aggregate()

    def test_one_score_an_image(self):
        # 0.9 and 0.4 against 0.5 and 0.4, as above
        metric = MeanAUROC()
        metric([torch.tensor(v) for v in (0.9, 0.4, 0.5, 0.4)], [torch.tensor(v) for v in (1, 1, 0, 0)])
        self.assertAlmostEqual(metric.aggregate(), 2.5 / 4)


class TestPatientBootstrap(unittest.TestCase):
    def test_patients_are_drawn_whole(self):
        def statistic(index):
            counts = np.bincount(index, minlength=6)
            self.assertEqual(counts[0], counts[1])  # one patient
            return np.array([len(index)])

        patient_bootstrap(statistic, ["a", "a", "b", "c", "d", "e"], 20)

    def test_interval_of_a_mean(self):
        values = np.random.default_rng(1).normal(size=400)
        low, high = patient_bootstrap(lambda i: np.array([values[i].mean()]), range(400), 500)[:, 0]
        self.assertAlmostEqual(high - low, 2 * 1.96 / 20, delta=0.03)

    def test_copies_of_an_image_do_not_narrow_the_interval(self):
        y, p = np.repeat(TARGETS, 4, axis=0), np.repeat(SCORES, 4, axis=0)
        patients = np.repeat(np.arange(80), 4)
        once = compute_classification_metrics(SCORES, TARGETS, "abc", num_samples=200)["mean_auroc_interval"]
        copies = compute_classification_metrics(p, y, "abc", patients, num_samples=200)["mean_auroc_interval"]
        self.assertAlmostEqual(np.ptp(once), np.ptp(copies), delta=0.02)


class TestComputeClassificationMetrics(unittest.TestCase):
    def test_means_leave_absent_classes_out(self):
        metrics = compute_classification_metrics(SCORES, TARGETS * [1, 1, 0], "abc", num_samples=50)
        areas = [metrics["classes"][c]["auroc"] for c in "ab"]
        self.assertAlmostEqual(metrics["mean_auroc"], np.mean(areas))
        self.assertNotIn("auroc", metrics["classes"]["c"])
        self.assertEqual(metrics["classes"]["c"]["note"], "no AUROC: no image has it")
        self.assertEqual(metrics["mean_over"], ["a", "b"])
        low, high = metrics["mean_auroc_interval"]
        self.assertTrue(low < metrics["mean_auroc"] < high)

    def test_operating_points(self):
        metrics = compute_classification_metrics(SCORES, TARGETS, "abc", thresholds=[0.5, 0.5, 0.0], num_samples=10)
        self.assertEqual(metrics["classes"]["c"]["sensitivity"], 1.0)
        self.assertEqual(metrics["classes"]["c"]["specificity"], 0.0)

    def test_without_any_class_there_is_no_mean(self):
        metrics = compute_classification_metrics(SCORES, TARGETS * 0, "abc", num_samples=10)
        self.assertFalse({"mean_auroc", "mean_auroc_interval", "mean_average_precision"} & set(metrics))
        self.assertEqual(metrics["mean_over"], [])

    def test_interval_of_the_mean_is_over_the_same_classes(self):
        # class b has one positive image, last of all: where the draw leaves it out, the mean is another figure
        targets = np.zeros((40, 2), dtype=int)
        targets[:20, 0], targets[39, 1] = 1, 1
        scores = np.stack([np.linspace(1, 0, 40), np.linspace(1, 0, 40)], axis=1)
        metrics = compute_classification_metrics(scores, targets, "ab", num_samples=200)
        self.assertEqual(metrics["mean_auroc"], 0.5)  # 1 and 0
        np.testing.assert_allclose(metrics["mean_auroc_interval"], [0.5, 0.5])

    def test_a_class_without_operating_point(self):
        table = compute_classification_metrics(SCORES, TARGETS, "abc", thresholds=[0.5, None, 0.5], num_samples=5)
        self.assertEqual(["sensitivity" in table["classes"][c] for c in "abc"], [True, False, True])

    def test_what_is_no_number_is_refused_by_name(self):
        scores = SCORES.copy()
        scores[7, 1] = np.nan
        names = [f"film {i}" for i in range(80)]
        with self.assertRaisesRegex(ValueError, "1 of 240 are not, first: nan for image 'film 7', class 'b'"):
            compute_classification_metrics(scores, TARGETS, "abc", images=names)
        with self.assertRaisesRegex(ValueError, "targets must be 0 or 1, got 2 for image 0"):
            compute_classification_metrics(SCORES, TARGETS * 0 + 2, "abc")
        for samples in (0, True, "5"):
            with self.assertRaisesRegex(ValueError, "num_samples must be a whole number of at least 1, got"):
                compute_classification_metrics(SCORES, TARGETS, "abc", num_samples=samples)

    def test_bad_input(self):
        with self.assertRaisesRegex(ValueError, r"shape \(N, 2\), got \(80, 3\)"):
            compute_classification_metrics(SCORES, TARGETS, "ab")
        with self.assertRaisesRegex(ValueError, r"must be in \[0, 1\]"):
            compute_classification_metrics(SCORES * 3, TARGETS, "abc")


if __name__ == "__main__":
    unittest.main()
