# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np

from bundle.lists.splits import cross_validation_splits, patient_folds, patient_splits


class TestPatientFolds(unittest.TestCase):
    def setUp(self):
        random = np.random.default_rng(0)
        self.patients = random.integers(0, 60, 200).tolist()
        self.labels = (random.random((200, 3)) < [0.5, 0.3, 0.1]).astype(int).tolist()

    def test_patients_stay_together_and_classes_in_proportion(self):
        folds = np.array(patient_folds(self.labels, self.patients, 4))
        for patient in set(self.patients):
            self.assertEqual(len(set(folds[np.array(self.patients) == patient])), 1)
        rare = np.array(self.labels)[:, 2]
        counts = [rare[folds == f].sum() for f in range(4)]
        self.assertLessEqual(max(counts) - min(counts), 4)

    def test_reproducible_and_seeded(self):
        self.assertEqual(patient_folds(self.labels, self.patients), patient_folds(self.labels, self.patients))
        self.assertNotEqual(
            patient_folds(self.labels, self.patients), patient_folds(self.labels, self.patients, seed=1)
        )

    def test_named_splits(self):
        splits = patient_splits(self.labels, self.patients)
        share = {name: splits.count(name) / 200 for name in ("train", "val", "test")}
        self.assertAlmostEqual(share["train"], 0.6, delta=0.1)
        self.assertAlmostEqual(share["val"], 0.2, delta=0.1)

    def test_every_image_is_tested_on_once(self):
        rounds = np.array(cross_validation_splits(self.labels, self.patients, 4))
        self.assertEqual(rounds.shape, (4, 200))
        for name, times in (("test", 1), ("val", 1), ("train", 2)):
            self.assertTrue(((rounds == name).sum(axis=0) == times).all(), name)
        with self.assertRaisesRegex(ValueError, "num_folds must be at least 3, got 2"):
            cross_validation_splits(self.labels, self.patients, 2)

    def test_too_few_patients(self):
        with self.assertRaisesRegex(ValueError, "3 folds need as many patients, got 2"):
            patient_folds([[1], [0]], ["a", "b"], 3)


if __name__ == "__main__":
    unittest.main()
