# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight

from bundle.classification.targets import balanced_class_weights, multi_hot, positive_class_weights


class TestTargets(unittest.TestCase):
    def test_balanced_weights_match_scikit_learn(self):
        labels = np.array([0, 0, 0, 1, 1, 2])
        expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
        weights = balanced_class_weights(multi_hot(torch.from_numpy(labels), 3))
        torch.testing.assert_close(weights, torch.from_numpy(expected).float())

    def test_mixed_targets_pass(self):
        mixed = torch.tensor([[0.3, 0.7]])
        torch.testing.assert_close(multi_hot(mixed, 2), mixed)

    def test_a_class_without_positives(self):
        for function in (balanced_class_weights, positive_class_weights):
            with self.assertRaisesRegex(
                ValueError, "class 1 must have positive and negative samples, got 0 positive of 2"
            ):
                function(torch.tensor([[1, 0], [0, 0]]))

    def test_bad_shape(self):
        with self.assertRaisesRegex(ValueError, r"shape \(B,\) or \(B, 3\), got \(2, 2\)"):
            multi_hot(torch.zeros(2, 2), 3)


if __name__ == "__main__":
    unittest.main()
