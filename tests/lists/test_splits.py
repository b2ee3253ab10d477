# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np

from bundle.lists.splits import (
    cross_validation_splits,
    patient_folds,
    patient_splits,
    split_held_back,
    split_normals,
)


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
        share = {name: splits.count(name) / 200 for name in ("training", "validation", "test")}
        self.assertAlmostEqual(share["training"], 0.6, delta=0.1)
        self.assertAlmostEqual(share["validation"], 0.2, delta=0.1)

    def test_every_image_is_tested_on_once(self):
        rounds = np.array(cross_validation_splits(self.labels, self.patients, 4))
        self.assertEqual(rounds.shape, (4, 200))
        for name, times in (("test", 1), ("validation", 1), ("training", 2)):
            self.assertTrue(((rounds == name).sum(axis=0) == times).all(), name)
        with self.assertRaisesRegex(ValueError, "num_folds must be at least 3, got 2"):
            cross_validation_splits(self.labels, self.patients, 2)

    def test_too_few_patients(self):
        with self.assertRaisesRegex(ValueError, "3 folds need as many patients, got 2"):
            patient_folds([[1], [0]], ["a", "b"], 3)


class TestNormals(unittest.TestCase):
    def test_split_held_back(self):
        items = [{"image": str(i), "patient": f"p{i // 4}"} for i in range(40)]
        for seed in range(5):
            training, held = split_held_back(items, 0.2, 10, seed)
            self.assertEqual(len(held), 12)  # whole patients until at least 10
            self.assertEqual(sorted((*training, *held), key=lambda i: int(i["image"])), items)
            self.assertFalse({i["patient"] for i in training} & {i["patient"] for i in held})
        self.assertEqual(len(split_held_back([{"image": str(i)} for i in range(5)], 0.2, 10, 0)[1]), 2)
        self.assertEqual(len(split_held_back([{"image": str(i)} for i in range(100)], 0.2, 10, 0)[1]), 20)

    def test_large_patients_stay_in_training(self):
        for counts, expected in (((50, 10), (50, 10)), ((100, 5, 5, 5), (100, 15)), ((40, 40), (40, 40))):
            items = [{"patient": f"p{p}"} for p, count in enumerate(counts) for _ in range(count)]
            for seed in range(3):
                self.assertEqual(tuple(map(len, split_held_back(items, 0.2, 10, seed))), expected)
        with self.assertRaisesRegex(ValueError, "at least 2 patients, found 1"):
            split_held_back([{"patient": "a"}] * 8, 0.2, 1, 0)

    def test_counts_of_table_2_keep_patients_together(self):
        # five patients of 40 images: two are the fewest that have 58 to train with
        normals = [{"image": f"{i}.png", "label": 0, "patient": f"p{i % 5}"} for i in range(200)]
        training, test = split_normals(normals, [], (58, 40), 0)
        patients = [{item["patient"] for item in items} for items in (training, test)]
        self.assertFalse(patients[0] & patients[1])
        self.assertEqual((len(patients[0]), len(test)), (2, 40))


if __name__ == "__main__":
    unittest.main()
