# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.anomaly.synthetic_anomaly_transforms import RandSyntheticAnomalyd, with_synthetic_anomalies


class TestRandSyntheticAnomalyd(unittest.TestCase):
    def test_changes_inside_and_says_where(self):
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        transform = RandSyntheticAnomalyd("image", prob=1.0, kinds=["blob"])
        transform.set_random_state(seed=3)
        out = transform({"image": image, "label": 0})
        self.assertEqual(out["label"].shape, (1, 64, 64))
        changed = (out["image"] != image).any(dim=0)
        self.assertTrue(bool(changed[out["label"][0] > 0].float().mean() > 0.9))
        transform.set_random_state(seed=3)
        torch.testing.assert_close(transform({"image": image})["image"], out["image"])

    def test_share_of_zero_leaves_images(self):
        image = torch.rand(3, 32, 32)
        out = RandSyntheticAnomalyd("image", prob=0.0)({"image": image})
        self.assertIs(out["image"], image)
        self.assertEqual(float(out["label"].sum()), 0)


class TestWithSyntheticAnomalies(unittest.TestCase):
    def test_every_item_has_its_own_seed(self):
        items = [{"image": "a", "key": "0_a", "label": 0}, {"image": "b", "key": "1_b", "label": 0}]
        out = with_synthetic_anomalies(items, copies=1, seed=2)
        self.assertEqual([i["label"] for i in out], [0, 0, 1, 1])
        self.assertEqual([i["synthetic_anomaly_seed"] for i in out], [-1, -1, 2_000_006, 2_000_007])
        self.assertEqual(len({i["key"] for i in out}), 4)
        self.assertEqual(items[0], {"image": "a", "key": "0_a", "label": 0})


if __name__ == "__main__":
    unittest.main()
