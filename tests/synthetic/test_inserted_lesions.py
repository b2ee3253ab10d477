# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np

from bundle.synthetic.inserted_lesions import INSERTED_KINDS, insert_lesion


class TestInsertLesion(unittest.TestCase):
    def setUp(self):
        self.image = np.full((200, 160), 0.3, dtype=np.float32)

    def test_the_same_seed_gives_the_same_lesion(self):
        for kind in INSERTED_KINDS:
            first, second = (insert_lesion(self.image, kind, np.random.default_rng(4)) for _ in range(2))
            np.testing.assert_array_equal(first[0], second[0])
            np.testing.assert_array_equal(first[1], second[1])
            other = insert_lesion(self.image, kind, np.random.default_rng(5))
            self.assertFalse(np.array_equal(first[0], other[0]))

    def test_brightness_changes_inside_the_box_and_hardly_outside(self):
        for kind in INSERTED_KINDS:
            for seed in range(5):
                out, (left, upper, right, lower) = insert_lesion(self.image, kind, np.random.default_rng(seed))
                change = out - self.image
                self.assertEqual(out.dtype, np.float32)
                inside = np.zeros(out.shape, bool)
                inside[int(upper) : int(lower), int(left) : int(right)] = True
                self.assertGreater(change[inside].max(), 0.1)
                self.assertLess(change[~inside].max(), 0.25 * 0.4)
                self.assertGreaterEqual(change.min(), 0)

    def test_sizes_are_those_of_their_kind(self):
        sides = {}
        for kind in ("nodule", "mass"):
            boxes = np.stack([insert_lesion(self.image, kind, np.random.default_rng(s))[1] for s in range(10)])
            sides[kind] = (boxes[:, 2:] - boxes[:, :2]).mean()
        self.assertLess(sides["nodule"], 0.12 * 160)
        self.assertGreater(sides["mass"], 0.12 * 160)

    def test_values_stay_display_values(self):
        out, _ = insert_lesion(np.ones((100, 100)), "mass", np.random.default_rng(0))
        self.assertLessEqual(out.max(), 1)

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "kind must be one of .* got 'cyst'"):
            insert_lesion(self.image, "cyst", np.random.default_rng(0))
        with self.assertRaisesRegex(ValueError, r"image must be of shape \(H, W\), got \(1, 4, 4\)"):
            insert_lesion(np.zeros((1, 4, 4)), "mass", np.random.default_rng(0))


if __name__ == "__main__":
    unittest.main()
