# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""PaDiM and the patch memory against plain computations."""

from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory
from bundle.anomaly.stacked_maps import stacked_maps

SMALL = {"image_size": (32, 32), "backbone_weights": None}


class TestStackedMaps(unittest.TestCase):
    def test_hand_computed_sizes_and_values(self):
        maps = [torch.arange(16.0).view(1, 1, 4, 4), torch.full((1, 2, 1, 1), 7.0)]
        out = stacked_maps(maps, [2, 2], pool_size=1)
        self.assertEqual(out.shape, (1, 3, 2, 2))
        torch.testing.assert_close(out[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
        self.assertTrue(bool((out[0, 1:] == 7).all()))


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


class TestPatchMemory(unittest.TestCase):
    def test_full_memory_knows_its_images(self):
        torch.manual_seed(0)
        net, images = PatchMemory(memory_size=32, **SMALL), torch.rand(2, 3, 32, 32)
        net.fit([images])
        self.assertLess(float(net(images).max()), 1e-2)
        other = torch.rand(1, 3, 32, 32)
        stored, asked = (net.features(net.backbone(x)).flatten(0, 1) for x in (images, other))
        torch.testing.assert_close(net(other).flatten(), torch.cdist(asked, stored).amin(1), rtol=1e-3, atol=1e-3)

    def test_script_and_reload_give_the_same(self):
        net, images = PatchMemory(memory_size=5, **SMALL), torch.rand(2, 3, 32, 32)
        net.fit([images], seed=1)
        other = PatchMemory(memory_size=5, **SMALL)
        other.load_state_dict(net.state_dict())
        torch.testing.assert_close(other(images), net(images))
        torch.testing.assert_close(torch.jit.script(net)(images[:1]), net(images)[:1])

    def test_stored_patches_are_normal_ones_and_none_twice(self):
        images = torch.rand(4, 3, 32, 32)
        for candidates in (1, 2, 10):
            net = PatchMemory(memory_size=20, candidates=candidates, **SMALL)
            net.fit([images[:1], images[1:]])
            every = net.features(net.backbone(images)).flatten(0, 1)
            nearest = torch.cdist(net.patches, every).min(dim=1)
            self.assertLess(float(nearest.values.max()), 1e-2)
            self.assertEqual(len(nearest.indices.unique()), 20)

    def test_fewer_patches_than_asked_for_are_all_stored(self):
        net, images = PatchMemory(memory_size=40, **SMALL), torch.rand(1, 3, 32, 32)
        net.fit([images])
        self.assertLess(float(net(images).max()), 1e-2)
        self.assertEqual(len(net.patches.unique(dim=0)), 16)

    def test_no_image_and_bad_size(self):
        with self.assertRaisesRegex(ValueError, "needs at least 1 normal image, got none"):
            PatchMemory(**SMALL).fit([])
        with self.assertRaisesRegex(ValueError, "memory_size must be a whole number of at least 1, got 0"):
            PatchMemory(memory_size=0)
        with self.assertRaisesRegex(ValueError, "candidates must be"):
            PatchMemory(candidates=0)


if __name__ == "__main__":
    unittest.main()
