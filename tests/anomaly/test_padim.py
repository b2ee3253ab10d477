# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.anomaly.padim import PaDiM

SMALL = {"image_size": (32, 32), "weights": None}


class TestPaDiM(unittest.TestCase):
    def test_matches_numpy_whatever_the_batches(self):
        torch.manual_seed(0)
        net, images = PaDiM(**SMALL), torch.rand(7, 3, 32, 32)
        net.fit([images[:5], images[5:]])
        x = net.features(net.backbone(images))[3].double().numpy()  # the fourth position
        covariance = np.cov(x, rowvar=False) + 0.01 * np.eye(x.shape[1])
        centered = x - x.mean(axis=0)
        expected = np.sqrt((centered @ np.linalg.inv(covariance) * centered).sum(axis=1))
        np.testing.assert_allclose(net(images).flatten(1)[:, 3], expected, rtol=2e-3)

    def test_script_and_reload_give_the_same(self):
        net, images = PaDiM(**SMALL), torch.rand(3, 3, 32, 32)
        net.fit([images])
        other = PaDiM(**SMALL)
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(other(images), net(images))
        torch.testing.assert_close(torch.jit.script(net)(images[:1]), net(images)[:1])

    def test_one_image_is_refused(self):
        with self.assertRaisesRegex(ValueError, "needs at least 2 normal images, got 1"):
            PaDiM(**SMALL).fit([torch.rand(1, 3, 32, 32)])

    def test_bad_regularization(self):
        with self.assertRaisesRegex(ValueError, "regularization must be above 0, got 0"):
            PaDiM(regularization=0)

    def test_channels_are_kept_at_random(self):
        net, images = PaDiM(kept_channels=5, **SMALL), torch.rand(3, 3, 32, 32)
        self.assertEqual(net.features(net.backbone(images)).shape, (16, 3, 5))
        self.assertEqual(len(net.channels.unique()), 5)
        self.assertEqual(PaDiM(kept_channels=0, **SMALL).mean.shape, (16, 176))  # 24 + 40 + 112
        with self.assertRaisesRegex(ValueError, "kept_channels must be at least 0, got -1"):
            PaDiM(kept_channels=-1)


if __name__ == "__main__":
    unittest.main()
