# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from scipy import ndimage

from bundle.functional.components import component_of_maximum


class TestComponentOfMaximum(unittest.TestCase):
    def test_hand_computed_value(self):
        heat = torch.tensor([[0.9, 0.0, 0.6], [0.0, 0.7, 0.0], [0.6, 0.0, 0.0]])
        # the diagonal neighbours belong: connectivity is 8
        self.assertEqual(component_of_maximum(heat).int().tolist(), [[1, 0, 1], [0, 1, 0], [1, 0, 0]])

    def test_matches_scipy_on_a_batch(self):
        noise = np.random.default_rng(0).random((3, 5, 24, 17))
        heat = ndimage.gaussian_filter(noise, (0, 0, 1.2, 1.2))
        heat = (heat - heat.min((2, 3), keepdims=True)) / np.ptp(heat, axis=(2, 3), keepdims=True)
        found = component_of_maximum(torch.from_numpy(heat), 0.5).numpy()
        for index in np.ndindex(3, 5):
            labels, _ = ndimage.label(heat[index] >= 0.5, structure=np.ones((3, 3)))
            expected = labels == labels.flat[heat[index].argmax()]
            np.testing.assert_array_equal(found[index], expected)

    def test_winding_path_is_followed_to_its_end(self):
        heat = torch.zeros(31, 31)
        heat[::2] = 0.8  # rows joined at alternating ends: the longest way a component can wind
        for row in range(1, 31, 2):
            heat[row, -1 if row % 4 == 1 else 0] = 0.8
        heat[0, 0] = 1.0
        self.assertTrue(torch.equal(component_of_maximum(heat), heat > 0))

    def test_empty_maps_have_no_component(self):
        self.assertFalse(component_of_maximum(torch.zeros(2, 3, 4, 4)).any())
        self.assertFalse(component_of_maximum(torch.full((1, 4, 4), 0.4)).any())

    def test_first_of_equal_maxima(self):
        self.assertEqual(component_of_maximum(torch.tensor([[1.0, 0.0, 1.0]])).int().tolist(), [[1, 0, 0]])

    def test_one_threshold_a_map(self):
        heat = torch.tensor([[[0.6, 1.0]], [[0.6, 1.0]]])
        levels = torch.tensor([0.5, 0.9]).view(2, 1, 1)
        self.assertEqual(component_of_maximum(heat, levels).int().tolist(), [[[1, 1]], [[0, 1]]])


if __name__ == "__main__":
    unittest.main()
