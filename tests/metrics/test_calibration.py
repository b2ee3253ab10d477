# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.metrics.calibration import expected_calibration_error, fit_temperature, reliability_bins


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


class TestFitTemperature(unittest.TestCase):
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
