# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.data import MetaTensor

from bundle.anomaly.scoring import AnomalyScored, mean_of_largest
from bundle.anomaly.synthetic_anomaly_transforms import RandMakeAbnormald


class TestRandMakeAbnormald(unittest.TestCase):
    def test_changes_inside_and_says_where(self):
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        transform = RandMakeAbnormald("image", prob=1.0, kinds=["blob"])
        transform.set_random_state(seed=3)
        out = transform({"image": image, "label": 0})
        self.assertEqual(out["label"].shape, (1, 64, 64))
        changed = (out["image"] != image).any(dim=0)
        self.assertTrue(bool(changed[out["label"][0] > 0].float().mean() > 0.9))
        transform.set_random_state(seed=3)
        torch.testing.assert_close(transform({"image": image})["image"], out["image"])

    def test_share_of_zero_leaves_images(self):
        image = torch.rand(3, 32, 32)
        out = RandMakeAbnormald("image", prob=0.0)({"image": image})
        self.assertIs(out["image"], image)
        self.assertEqual(float(out["label"].sum()), 0)


class TestTopFraction(unittest.TestCase):
    def test_hand_computed_value(self):
        self.assertEqual(float(mean_of_largest(torch.tensor([1.0, 5.0, 3.0, 2.0]), 0.5)), 4.0)
        self.assertEqual(float(mean_of_largest(torch.tensor([1.0, 5.0]), 0.01)), 5.0)

    def test_score_of_an_item(self):
        item = {"image": MetaTensor(torch.zeros(3, 16, 16)), "pred": torch.tensor([[[1.0, 5.0], [3.0, 2.0]]])}
        self.assertEqual(float(AnomalyScored(top_fraction=0.5)(item)["anomaly_score"]), 4.0)
        with self.assertRaisesRegex(ValueError, "top_fraction must be in"):
            AnomalyScored(top_fraction=1.5)
