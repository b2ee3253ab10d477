# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.classification.temperature import expected_calibration_error, fit_temperature, reliability_bins


class TestCalibrationError(unittest.TestCase):
    def test_hand_computed_value(self):
        # bin [0.2, 0.3): p 0.25, 1 of 2 positive, gap 0.25; bin [0.9, 1.0): p 0.95, 1 of 1, gap 0.05
        error = expected_calibration_error(np.array([0.25, 0.25, 0.95]), np.array([0, 1, 1]))
        self.assertAlmostEqual(error, (2 * 0.25 + 0.05) / 3)

    def test_certain_and_right_is_zero(self):
        self.assertEqual(expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])), 0.0)

    def test_bins_hold_every_image(self):
        p = np.random.default_rng(0).random(50)
        mean, share, count = reliability_bins(p, p > 0.5, 5)
        self.assertEqual(count.sum(), 50)
        self.assertAlmostEqual(float(np.nansum(mean * count) / 50), p.mean())
        np.testing.assert_array_equal(share[[0, 4]], [0, 1])

    def test_what_is_no_number_is_refused(self):
        # MONAI's bins count an image without a probability in none of them, so the error looked smaller
        for compute in (reliability_bins, expected_calibration_error):
            with self.assertRaisesRegex(ValueError, "probabilities must be finite, 1 of 2 are not"):
                compute(np.array([np.nan, 0.5]), np.array([0, 1]))
            with self.assertRaisesRegex(ValueError, "one image at least, got none"):
                compute(np.zeros(0), np.zeros(0))
            with self.assertRaisesRegex(ValueError, "num_bins must be a whole number of at least 1"):
                compute(np.array([0.2, 0.5]), np.array([0, 1]), 0)


class TestFitTemperature(unittest.TestCase):
    def test_what_is_no_number_is_refused(self):
        logits, targets = torch.tensor([[1.0], [float("inf")]]), torch.tensor([[1], [0]])
        with self.assertRaisesRegex(ValueError, "logits must be finite, 1 of 2 are not, first: inf for image 'b', c"):
            fit_temperature(logits, targets, exclusive=False, images=["a", "b"], classes=["Mass"])
        with self.assertRaisesRegex(ValueError, "targets must be 0 or 1, got nan for image 0"):
            fit_temperature(torch.zeros(1, 1), torch.full((1, 1), float("nan")), exclusive=False)
        with self.assertRaisesRegex(ValueError, "one image at least, got none"):
            fit_temperature(torch.zeros(0, 1), torch.zeros(0, 1), exclusive=False)

    def test_finds_the_factor_that_made_logits_overconfident(self):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(4000, 3, generator=generator)
        classes = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        one_hot = torch.nn.functional.one_hot(classes, 3)
        self.assertAlmostEqual(fit_temperature(4 * logits, one_hot, exclusive=True), 4.0, delta=0.4)
        hits = torch.bernoulli(logits.sigmoid(), generator=generator)
        self.assertAlmostEqual(fit_temperature(logits / 2, hits, exclusive=False), 0.5, delta=0.05)

    def test_few_images_that_are_all_right_do_not_make_it_certain(self):
        # two images: the soft targets are 3/4 and 1/4, which a logit of 1 reaches at temperature 1 / ln 3
        logits, targets = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1], [0]])
        self.assertAlmostEqual(fit_temperature(logits, targets, exclusive=False), 1 / np.log(3), places=3)


if __name__ == "__main__":
    unittest.main()
