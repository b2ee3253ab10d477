# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from sklearn.covariance import empirical_covariance
from sklearn.neighbors import NearestNeighbors

from bundle.anomaly import ADFA, AnomalyScored, NormalRefit
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
        distance = WholeImageDistance((64, 64), (8, 8), 3, grid=2, memory_size=20)  # each image is stored twice or more
        distance.fit(distance.cells(normals), shrinkage=0.2)
        expected = by_scikit_learn(maps, normals, 0.2)
        # the mean is the normal image's own: the covariance of scikit-learn takes it as known, as ours does
        np.testing.assert_allclose(distance(maps).mean(dim=(1, 2, 3)), expected, rtol=1e-4)

    def test_a_stored_image_is_at_no_distance(self):
        normals = torch.rand(5, 3, 2, 2, generator=self.draw)
        distance = WholeImageDistance((64, 64), (8, 8), 3, grid=2, memory_size=5)
        distance.fit(distance.cells(normals))
        self.assertLess(distance(normals).max(), 2e-3)
        self.assertGreater(distance(normals + 1).min(), 1)

    def test_the_map_is_hot_where_the_cell_is_far_from_normal(self):
        distance = WholeImageDistance((64, 64), (8, 8), 3, grid=2, memory_size=5)
        distance.fit(distance.cells(torch.rand(5, 3, 2, 2, generator=self.draw)))
        image = torch.rand(1, 3, 2, 2, generator=self.draw)
        image[:, :, 1, 0] += 5  # below left
        found = distance(image)[0, 0]
        quarters = [found[:4, :4], found[:4, 4:], found[4:, :4], found[4:, 4:]]
        self.assertEqual(max(range(4), key=lambda i: float(quarters[i].mean())), 2)

    def test_cells_are_averages(self):
        distance = WholeImageDistance((224, 224), (28, 28), 1, grid=7)
        deepest = torch.arange(49.0).view(1, 1, 7, 7)
        torch.testing.assert_close(distance.cells(deepest).flatten(), torch.arange(49.0))
        torch.testing.assert_close(averaging(7, 3).sum(dim=1), torch.ones(3))
        torch.testing.assert_close(averaging(7, 3).sum(dim=0), torch.full((7,), 3 / 7))
        self.assertEqual(averaging(1, 3).tolist(), [[1.0]])

    def test_one_image_is_refused(self):
        with self.assertRaisesRegex(ValueError, "at least 2 normal images, got 1"):
            WholeImageDistance((64, 64), (8, 8), 3).fit(torch.zeros(1, 4, 3))


class TestJoined(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.normals = torch.rand(8, 3, 64, 64)

    def joined(self, spots, wholes):
        """Fit the join to three normal images, and return it with their parts."""
        parts = torch.zeros(3, 2, 8, 8)
        parts[:, 0, 3, 3] = torch.tensor(spots)
        parts[:, 1] = torch.tensor(wholes)[:, None, None]
        network = ADFA(**SMALL, whole_weight=0.75)
        network.fit_join(parts)
        return network, parts

    def test_both_count_in_deviations_of_normal_images(self):
        # by hand: the hottest 2 % of 64 positions are one; 1, 2, 3 there deviate by 1, and 4, 6, 8 by 2
        network, parts = self.joined([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
        found = network.join(parts)
        self.assertEqual(found.shape, (3, 1, 8, 8))
        # where it is hottest: 10 - 0.25 - 0.75, 10, 10 + 0.25 + 0.75
        torch.testing.assert_close(found[:, 0, 3, 3], torch.tensor([9.0, 10.0, 11.0]))
        # a position without a spot is colder by 0.25 times the spot in deviations
        torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([9 - 0.25, 10 - 0.5, 11 - 0.75]))

    def test_an_unusual_cell_is_hot_where_it_lies(self):
        # by hand: the right half is 2 further than usual, so the mean is 1 further, where a deviation is 2; the halves
        # differ by 2, which are 0.75 * 2 / 2 in the map; no patch is hot, which is 2 deviations below the average of 2
        network, _ = self.joined([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
        new = torch.zeros(1, 2, 8, 8)
        new[:, 1] = 6
        new[..., 4:] += torch.tensor([0.0, 2.0])[None, :, None, None]
        found = network.join(new)[0, 0]
        score = 10 + 0.25 * (0 - 2) + 0.75 * (7 - 6) / 2
        torch.testing.assert_close(found[:, 4:], torch.full((8, 4), score))
        torch.testing.assert_close(found[:, :4], torch.full((8, 4), score - 0.75))

    def test_where_normal_images_are_far_anyway_is_not_hot(self):
        # by hand: usual is what normal images have there; an image with just that has a flat map
        parts = torch.zeros(3, 2, 8, 8)
        parts[:, 0] = 1
        parts[:, 1] = torch.tensor([4.0, 6.0, 8.0])[:, None, None]
        parts[:, 1, :, 4:] += 3
        network = ADFA(**SMALL, whole_weight=0.75)
        network.fit_join(parts)
        torch.testing.assert_close(network.join(parts[1:2]), torch.full((1, 1, 8, 8), 10.0))

    def test_a_usual_normal_image_has_ten_in_the_calibration(self):
        smooth = torch.nn.functional.interpolate(torch.rand(40, 3, 6, 6), 64, mode="bicubic")
        batches = [{"image": smooth, "fold": torch.arange(40) % 4}]
        with tempfile.TemporaryDirectory() as name:
            files = [Path(name) / file for file in ("model.pt", "calibration.json")]
            torch.save({}, files[0])
            NormalRefit(ADFA(**SMALL), batches, AnomalyScored(), *files)()
            scores = json.loads(files[1].read_text())["scores"]
        self.assertAlmostEqual(sum(scores) / len(scores), 10, places=4)
        self.assertLess(np.std(scores), 2)

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
