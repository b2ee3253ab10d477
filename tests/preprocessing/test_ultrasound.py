# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.preprocessing.dictionary import DictTransform
from bundle.preprocessing.ultrasound import MaskOutsideFan, fan_mask


def sector(size=120):
    """Return a synthetic sector with a dark vessel in it, its mask, and letters beside it."""
    rows, columns = np.mgrid[:size, :size]
    radius, angle = np.hypot(rows + 10, columns - size / 2), np.arctan2(columns - size / 2, rows + 10)
    mask = (radius > 25) & (radius < size) & (np.abs(angle) < 0.6)
    image = np.where(mask, 0.5, 0.0)
    image[60:70, 55:65] = 0
    image[5:12:2, 3:20:3] = 1.0
    return image, mask


class TestFanMask(unittest.TestCase):
    def test_keeps_the_sector_and_drops_letters(self):
        image, mask = sector()
        found = fan_mask(image)
        self.assertTrue(found[60:70, 55:65].all())
        self.assertFalse(found[:15, :22].any())
        self.assertGreater((found & mask).sum() / mask.sum(), 0.95)
        self.assertGreater((found & mask).sum() / found.sum(), 0.9)

    def test_a_full_frame_is_kept_to_its_edge(self):
        self.assertTrue(fan_mask(np.full((30, 40), 0.5)).all())
        self.assertTrue(fan_mask(np.zeros((30, 40))).all())


class TestMaskOutsideFan(unittest.TestCase):
    def test_text_becomes_black_in_every_channel(self):
        image = torch.as_tensor(sector()[0]).float().repeat(3, 1, 1)
        out = DictTransform("image", MaskOutsideFan())({"image": image})["image"]
        self.assertEqual(out[:, :15, :22].sum().item(), 0)
        torch.testing.assert_close(out[:, 70:90, 50:70], image[:, 70:90, 50:70])

    def test_bad_threshold(self):
        with self.assertRaisesRegex(ValueError, r"threshold must be in \(0, 1\), got 0"):
            MaskOutsideFan(0)


if __name__ == "__main__":
    unittest.main()
