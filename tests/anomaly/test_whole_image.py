# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from sklearn.covariance import empirical_covariance
from sklearn.neighbors import NearestNeighbors

from bundle.anomaly import ADFA
from bundle.anomaly.normals import Normals
from bundle.anomaly.whole_image import WholeImageDistance, averaging

SMALL = {"image_size": (64, 64), "weights": None}


def by_scikit_learn(maps, normals, shrinkage):
    """The same distance of 2 x 2 maps, each position a cell, by scikit-learn's covariance and neighbors."""
    cells, known = (np.asarray(m, dtype=np.float64).reshape(len(m), m.shape[1], -1) for m in (maps, normals))
    mean = known.mean(axis=0)
    rows = (known - mean).transpose(0, 2, 1).reshape(-1, known.shape[1])
    covariance = empirical_covariance(rows, assume_centered=True)
    scale = np.sqrt(np.diag(covariance))
    correlation = (1 - shrinkage) * covariance / np.outer(scale, scale) + shrinkage * np.eye(len(scale))
    values, vectors = np.linalg.eigh(correlation)
    whitening = (vectors / np.sqrt(values)) @ vectors.T / scale
    neighbors = [
        NearestNeighbors(n_neighbors=1).fit(known[:, :, c] @ whitening.T).kneighbors(cells[:, :, c] @ whitening.T)[0]
        for c in range(cells.shape[2])
    ]
    return np.mean(neighbors, axis=0)[:, 0]


class TestWholeImageDistance(unittest.TestCase):
    def setUp(self):
        self.draw = torch.Generator().manual_seed(0)

    def test_is_that_of_scikit_learn(self):
        normals, maps = torch.rand(9, 3, 2, 2, generator=self.draw), torch.rand(4, 3, 2, 2, generator=self.draw)
        distance = WholeImageDistance((64, 64), 3, grid=2, memory_size=20)  # each image is stored twice or more
        distance.fit(distance.cells(normals), shrinkage=0.2)
        expected = by_scikit_learn(maps, normals, 0.2)
        # the mean is the normal image's own: the covariance of scikit-learn takes it as known, as ours does
        np.testing.assert_allclose(distance(maps) * distance.deviation, expected, rtol=1e-4)

    def test_a_stored_image_is_at_no_distance(self):
        normals = torch.rand(5, 3, 2, 2, generator=self.draw)
        distance = WholeImageDistance((64, 64), 3, grid=2, memory_size=5)
        distance.fit(distance.cells(normals))
        self.assertLess((distance(normals) * distance.deviation).max(), 2e-3)
        self.assertGreater(distance(normals + 1).min(), 1)

    def test_the_deviation_leaves_each_image_out(self):
        # by hand: one cell, one channel, whitened to deviation 1; the values 0, 1, 3 have mean 4/3 and variance 14/9,
        # and the nearest others are 1, 1 and 2 away
        distance = WholeImageDistance((32, 32), 1, grid=1, memory_size=3)
        distance.fit(torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1))
        expected = np.std([1, 1, 2], ddof=1) / np.sqrt(14 / 9)
        self.assertAlmostEqual(float(distance.deviation), expected, places=5)

    def test_cells_are_averages(self):
        distance = WholeImageDistance((224, 224), 1, grid=7)
        deepest = torch.arange(49.0).view(1, 1, 7, 7)
        torch.testing.assert_close(distance.cells(deepest).flatten(), torch.arange(49.0))
        torch.testing.assert_close(averaging(7, 3).sum(dim=1), torch.ones(3))
        torch.testing.assert_close(averaging(7, 3).sum(dim=0), torch.full((7,), 3 / 7))
        self.assertEqual(averaging(1, 3).tolist(), [[1.0]])

    def test_one_image_is_refused(self):
        with self.assertRaisesRegex(ValueError, "at least 2 normal images, got 1"):
            WholeImageDistance((64, 64), 3).fit(torch.zeros(1, 4, 3))


class TestJoined(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.normals = torch.rand(8, 3, 64, 64)

    def fitted(self, **settings):
        torch.manual_seed(0)  # the trunk's weights are random
        network = ADFA(**SMALL, **settings).eval()
        network.fit(Normals([{"image": self.normals}]))
        return network

    def test_both_count_in_deviations_of_normal_images(self):
        image = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            joined, alone = self.fitted(whole_weight=0.75)(image), self.fitted(whole_weight=0)(image)
            normal = self.fitted(whole_weight=0)(self.normals).flatten(1)
            network = self.fitted(whole_weight=0.75)
            whole = network.whole(network.backbone(image)[3])
        # by hand: 2 % of 64 positions is one, the largest
        expected = 0.25 * alone / normal.amax(dim=1).std() + 0.75 * whole[:, None, None, None]
        torch.testing.assert_close(joined, expected, rtol=1e-4, atol=1e-4)

    def test_before_it_is_fitted_the_map_is_that_of_the_paper(self):
        torch.manual_seed(0)
        network = ADFA(**SMALL).eval()
        torch.manual_seed(0)
        paper = ADFA(**SMALL, whole_weight=0).eval()
        paper.load_state_dict(network.state_dict(), strict=False)
        with torch.no_grad():
            torch.testing.assert_close(network(self.normals), paper(self.normals))

    def test_the_paper_taps_no_deepest_stage(self):
        self.assertEqual(ADFA.paper(**SMALL).backbone.strides, (4, 8, 16))
        self.assertFalse([name for name in ADFA.paper(**SMALL).state_dict() if "whole" in name])

    def test_a_share_of_one_is_refused(self):
        with self.assertRaisesRegex(ValueError, "whole_weight"):
            ADFA(**SMALL, whole_weight=1)

    def test_the_learnt_state_is_small(self):
        learnt = {n: t for n, t in ADFA().state_dict().items() if not n.startswith("backbone.")}
        self.assertLess(sum(t.numel() * t.element_size() for t in learnt.values()), 6e6)


if __name__ == "__main__":
    unittest.main()
