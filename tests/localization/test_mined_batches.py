# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

from bundle.localization.mined_batches import MinedFirstBatchSampler


class TestMinedFirstBatchSampler(unittest.TestCase):
    def test_head_is_mined_once_an_epoch_and_the_rest_is_not(self):
        mined = [i % 5 == 0 for i in range(40)]  # 8 of 40
        sampler = MinedFirstBatchSampler(mined, batch_size=8, num_mined=2, seed=3)
        batches = list(sampler)
        self.assertEqual(len(batches), len(sampler))
        self.assertEqual(sorted(i for b in batches for i in b[:2]), list(range(0, 40, 5)))
        self.assertTrue(all(not mined[i] for b in batches for i in b[2:]))
        self.assertEqual({len(b) for b in batches}, {8})
        self.assertEqual(batches, list(sampler))
        sampler.set_epoch(1)
        self.assertNotEqual(batches, list(sampler))  # another order in the next epoch
        self.assertEqual(batches, list(MinedFirstBatchSampler(mined, 8, 2, seed=3)))

    def test_too_few_samples(self):
        with self.assertRaisesRegex(ValueError, "needs 1 samples to mine and 3 others, got 0 and 5"):
            MinedFirstBatchSampler([False] * 5, 4, 1)
        with self.assertRaisesRegex(ValueError, r"num_mined must be in \[1, 4\], got 5"):
            MinedFirstBatchSampler([True] * 5, 4, 5)


if __name__ == "__main__":
    unittest.main()
