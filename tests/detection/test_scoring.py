# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch
from monai.data import MetaTensor

from bundle.detection import DetectionResultd

META = {"filename_or_obj": "/films/a.png", "spatial_shape": (40, 50), "original_affine": torch.eye(4)}
POINTS = {"temperature": 2.0, "thresholds": {"Mass": 0.5, "Nodule": 0.9}}


def item(**more) -> dict:
    pred = {
        "logits": torch.tensor([4.0, 1.0]),
        "boxes": torch.tensor([[[5.0, 6, 15, 20], [20, 20, 30, 30], [1, 1, 9, 9]], [[7.0, 7, 9, 9]] * 3]),
        "box_logits": torch.tensor([[4.0, 0.0, -2.0], [1.0, -math.inf, -math.inf]]),
    }
    return {"image": MetaTensor(torch.zeros(3, 40, 50), affine=torch.eye(4), meta=META), "pred": pred, **more}


class TestDetectionResult(unittest.TestCase):
    def test_boxes_at_or_above_the_operating_point(self):
        found = DetectionResultd(classes=["Mass", "Nodule"], calibration=POINTS)(item(label=torch.tensor([1.0, 0.0])))
        # 4 / 2 is 0.881, 0 / 2 is 0.5, which is at its point, -2 / 2 is 0.269
        self.assertAlmostEqual(found["probabilities"]["Mass"], 1 / (1 + math.exp(-2)))
        self.assertEqual(
            [(box["label"], round(box["score"], 3)) for box in found["boxes"]], [("Mass", 0.881), ("Mass", 0.5)]
        )
        box = found["boxes"][0]
        self.assertEqual([box[side] for side in ("x", "y", "width", "height")], [5, 6, 10, 14])
        self.assertEqual((found["abnormal"], found["label"], found["true_findings"]), (True, 1, ["Mass"]))

    def test_without_an_operating_point_there_is_no_box(self):
        found = DetectionResultd(classes=["Mass", "Nodule"])(item())
        self.assertEqual((found["boxes"], found["operating_points"]), ([], {}))
        self.assertNotIn("abnormal", found)
        refused = DetectionResultd(classes=["Mass", "Nodule"], calibration=POINTS)(item(not_assessed="a rule"))
        self.assertEqual(refused["boxes"], [])

    def test_a_threshold_of_ones_own(self):
        found = DetectionResultd(classes=["Mass", "Nodule"], probability_threshold=0.95)(item())
        self.assertEqual([box["label"] for box in found["boxes"]], ["Mass"])

    def test_refused(self):
        with self.assertRaisesRegex(ValueError, "the network has 2 classes, got 1 names"):
            DetectionResultd(classes=["Mass"])(item())
        with self.assertRaisesRegex(ValueError, "probability_threshold"):
            DetectionResultd(classes=["Mass"], probability_threshold=0.0)


if __name__ == "__main__":
    unittest.main()
