# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch
from torch import nn

from bundle.localization.anomaly_prior import AnomalyPrior
from bundle.localization.heatmaps import mined_heatmaps, prior_on_grid
from bundle.localization.inferer import AttentionMiningInferer


class Brightness(nn.Module):
    def forward(self, x):
        return nn.functional.avg_pool2d(x[:, :1], 4)


class TestAnomalyPrior(unittest.TestCase):
    def test_the_prior_decides_between_two_places(self):
        image = torch.zeros(1, 3, 32, 32)
        image[..., 4:12, 4:12] = 1.0
        image[:, 0, 20:28, 20:28] = 0.8
        seen_by_maps = AttentionMiningInferer(steps=1, upsample=1)
        hottest = seen_by_maps(image, Brightness())["boxes"][0, 0, 0].tolist()
        self.assertEqual(hottest, [4, 4, 12, 12])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prior.ts"
            torch.jit.trace(Inverted(), torch.zeros(1, 3, 16, 16)).save(str(path))
            prior = AnomalyPrior(path, (16, 16))
            found = AttentionMiningInferer(steps=1, upsample=1, prior=prior)(image, Brightness())
        self.assertEqual(found["boxes"][0, 0, 0].tolist(), [20, 20, 28, 28])
        self.assertLess(found["maps"][0, 0, 0, 1:3, 1:3].max().item(), 0.2)

    def test_no_torchscript_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prior.ts"
            path.write_text("text")
            with self.assertRaisesRegex(ValueError, "prior.ts' must be a TorchScript file"):
                AnomalyPrior(path)


class Inverted(nn.Module):
    """An anomaly map that is 0 where the second channel is bright."""

    def forward(self, x):
        return nn.functional.avg_pool2d(1 - x[:, 1:2], 2)


class TestPriorOnGrid(unittest.TestCase):
    def test_mean_of_cells_over_the_maximum(self):
        anomaly = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 4.0, 4.0]]]])
        out = prior_on_grid(anomaly, (2, 4))
        self.assertEqual(out.tolist(), (anomaly / 4).tolist())
        self.assertEqual(tuple(prior_on_grid(anomaly, (1, 2)).shape), (1, 1, 1, 2))

    def test_a_map_of_zeros_favors_no_place(self):
        maps = torch.rand(1, 2, 4, 4)
        prior = prior_on_grid(torch.zeros(1, 1, 8, 8), (4, 4))
        torch.testing.assert_close(mined_heatmaps(maps, prior=prior), mined_heatmaps(maps))


if __name__ == "__main__":
    unittest.main()
