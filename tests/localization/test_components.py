# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from scipy import ndimage

from bundle.localization import components
from bundle.localization.components import component_of_maximum


class TestComponentOfMaximum(unittest.TestCase):
    def test_hand_computed_value(self):
        heat = torch.tensor([[0.9, 0.0, 0.6], [0.0, 0.7, 0.0], [0.6, 0.0, 0.0]])
        # the diagonal neighbours belong: connectivity is 8
        self.assertEqual(component_of_maximum(heat).int().tolist(), [[1, 0, 1], [0, 1, 0], [1, 0, 0]])

    def test_both_ways_match_maps_labeled_one_by_one(self):
        noise = np.random.default_rng(0).random((15, 24, 17))
        heat = ndimage.gaussian_filter(noise, (0, 1.2, 1.2))
        heat = (heat - heat.min((1, 2), keepdims=True)) / np.ptp(heat, axis=(1, 2), keepdims=True)
        expected = []
        for one in heat:
            labels, _ = ndimage.label(one >= 0.5, structure=np.ones((3, 3)))
            expected.append(labels == labels.flat[one.argmax()])
        for found in self._both(torch.from_numpy(heat), 0.5):
            np.testing.assert_array_equal(found.numpy(), expected)

    def test_winding_path_is_followed_to_its_end(self):
        heat = torch.zeros(1, 31, 31)
        heat[:, ::2] = 0.8  # rows joined at alternating ends: the longest way a component can wind
        for row in range(1, 31, 2):
            heat[:, row, -1 if row % 4 == 1 else 0] = 0.8
        heat[:, 0, 0] = 1.0
        for found in self._both(heat, 0.5):
            self.assertTrue(torch.equal(found, heat > 0))

    def _both(self, heat: torch.Tensor, threshold: float) -> list[torch.Tensor]:
        """Return what is found on a CPU and what is found elsewhere."""
        highest = heat.flatten(1).argmax(dim=1, keepdim=True)
        return [component_of_maximum(heat, threshold), components._grown(heat >= threshold, highest)]

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
