# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.patch_memory import PatchMemory

SMALL = {"image_size": (32, 32), "weights": None}


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
