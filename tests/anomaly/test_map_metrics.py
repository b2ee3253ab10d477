# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest
from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor
from sklearn.metrics import roc_auc_score

from bundle.anomaly.map_evaluation import MapMetrics
from bundle.anomaly.map_metrics import box_regions, heat_in_regions, per_region_overlap, pixel_auroc
from bundle.lists.boxes import ImageBoxes

HEAT = np.array([[15.0, 14, 3, 2], [13, 4, 1, 0], [12, 11, 10, 9], [8, 7, 6, 5]])
BOXES = torch.tensor([[0.0, 0, 2, 2], [3, 3, 4, 4]])  # 15, 14, 13, 4 and 5
CENTERS = np.arange(4) + 0.5
REGIONS = box_regions(BOXES.numpy(), CENTERS, CENTERS)


class TestMapMetrics(unittest.TestCase):
    def test_regions_of_boxes(self):
        self.assertEqual([HEAT[region].tolist() for region in REGIONS], [[15, 14, 13, 4], [5]])
        narrow = box_regions(np.array([[1.6, 0, 2.4, 4]]), CENTERS, CENTERS)  # no center, nearest those of 1.5 and 2.5
        self.assertEqual(HEAT[narrow[0]].tolist(), [14, 4, 11, 7])

    def test_pixel_auroc_by_hand_and_by_scikit_learn(self):
        # 15, 14, 13 are above all 11 pixels outside, 4 and 5 above 0 to 3: 3 * 11 + 2 * 4 of 5 * 11 pairs
        self.assertAlmostEqual(pixel_auroc([HEAT], [REGIONS]), 41 / 55)
        random = np.random.default_rng(0)
        heats = [random.integers(0, 9, (4, 4)).astype(float) for _ in range(3)]
        regions = [REGIONS, REGIONS[:0], REGIONS[:1]]
        inside = np.concatenate([masks.any(axis=0).ravel() for masks in regions])
        self.assertAlmostEqual(pixel_auroc(heats, regions), roc_auc_score(inside, np.concatenate(heats).ravel()))
        self.assertTrue(math.isnan(pixel_auroc([HEAT], [REGIONS[:0]])))

    def test_per_region_overlap_by_hand(self):
        # before the first false pixel three of four of the one and none of the other are found: (3/4 + 0) / 2
        self.assertAlmostEqual(per_region_overlap([HEAT], [REGIONS]), 0.375)
        # that stays so until 7 of 11 are false; then both are found: (7 * 0.375 + 4 * 1) / 11
        self.assertAlmostEqual(per_region_overlap([HEAT], [REGIONS], limit=1), 6.625 / 11)
        # a jump at the limit itself does not count
        self.assertAlmostEqual(per_region_overlap([HEAT], [REGIONS], limit=7 / 11), 0.375)

    def test_equal_pixels_fall_together(self):
        # from (0, 0) to (1, 1): the triangle below 0.3 has 0.3^2 / 2, of 0.3
        self.assertAlmostEqual(per_region_overlap([np.ones((4, 4))], [REGIONS]), 0.15)
        # a normal image that is as hot halves no overlap, but doubles what is outside: 11 of 27 pixels before its own
        cold = np.full((4, 4), -1.0)
        found = per_region_overlap([HEAT, cold], [REGIONS, REGIONS[:0]], limit=1)
        self.assertAlmostEqual(found, (7 * 0.375 + 20 * 1) / 27)

    def test_heat_in_boxes(self):
        inside = REGIONS.any(axis=0)
        self.assertAlmostEqual(heat_in_regions(HEAT, inside), 51 / 120)
        self.assertAlmostEqual(heat_in_regions(HEAT + 10, inside), 51 / 120)  # a constant does not matter
        self.assertAlmostEqual(heat_in_regions(np.ones((4, 4)), inside), 5 / 16)  # the area
        hidden = np.where(HEAT == 15, -np.inf, HEAT)
        self.assertAlmostEqual(heat_in_regions(hidden, inside), 36 / 105)

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, r"regions must have the shape of their map, got \(4, 4\) for \(2, 2\)"):
            pixel_auroc([np.zeros((2, 2))], [REGIONS])
        with self.assertRaisesRegex(ValueError, "heat must be a number, that of image 0 is not"):
            per_region_overlap([np.full((4, 4), np.nan)], [REGIONS])
        with self.assertRaisesRegex(ValueError, r"limit must be in \(0, 1\], got 0"):
            per_region_overlap([HEAT], [REGIONS], limit=0)
        self.assertTrue(math.isnan(per_region_overlap([HEAT], [REGIONS[:0]])))


def collected(metrics: MapMetrics, *items: tuple[str, int, np.ndarray]) -> MapMetrics:
    """Return metrics that were given images: name, label and map."""
    for name, label, heat in items:
        image = MetaTensor(torch.zeros(1, *heat.shape), meta={"filename_or_obj": f"/films/{name}"})
        state = SimpleNamespace(
            batch=[{"image": image, "label": label, "patient": ""}], output=[{"heatmap": torch.tensor(heat)[None]}]
        )
        metrics(SimpleNamespace(state=state))
    return metrics


class TestEvaluation(unittest.TestCase):
    def test_one_image_and_a_normal_one(self):
        metrics = MapMetrics({"a.png": {"Mass": BOXES, "Nodule": BOXES[:1]}})  # the first box is there twice
        cold = np.full((4, 4), -1.0)
        found = collected(metrics, ("a.png", 1, HEAT), ("b.png", 0, cold), ("c.png", 1, HEAT)).summarize()
        self.assertEqual((found["annotated_images"], found["annotated_boxes"]), (1, 2))
        self.assertEqual((found["pointing_game"], found["pointing_game_interval"]), (1, (1, 1)))
        self.assertAlmostEqual(found["heat_in_boxes"], 51 / 120)
        self.assertAlmostEqual(found["area_of_boxes"], 5 / 16)
        self.assertAlmostEqual(found["pixel_auroc"], (3 * 27 + 2 * 20) / (5 * 27))  # 16 pixels more are below
        # 0.3 * 27 is 8.1 pixels: 7 before both are found, and 1.1 behind
        self.assertAlmostEqual(found["per_region_overlap"], (7 * 0.375 + 1.1 * 1) / 8.1)
        # the mean map of the one normal image is the same everywhere
        self.assertAlmostEqual(found["pixel_auroc_of_mean_map"], 0.5)
        self.assertAlmostEqual(found["per_region_overlap_of_mean_map"], 0.15)
        self.assertAlmostEqual(found["heat_in_boxes_of_mean_map"], 5 / 16)

    def test_a_normal_image_of_the_same_name_has_no_boxes(self):
        boxes = ImageBoxes({"test/broken/a.png": {"Mass": BOXES}})
        items = [("test/good/a.png", 0, HEAT), ("test/broken/a.png", 1, HEAT)]
        self.assertEqual(collected(MapMetrics(boxes), *items).summarize()["annotated_images"], 1)

    def test_large_maps_are_taken_at_every_nth_pixel(self):
        heat = np.zeros((300, 200))
        heat[100:120, 50:90] = 1
        box = torch.tensor([[50.0, 100, 90, 120]])
        found = collected(MapMetrics({"a.png": {"Mass": box}}), ("a.png", 1, heat)).summarize()
        self.assertEqual((found["pixel_auroc"], found["heat_in_boxes"], found["pointing_game"]), (1, 1, 1))
        self.assertAlmostEqual(found["area_of_boxes"], 20 * 40 / (300 * 200), places=2)

    def test_no_boxes_and_boxes_of_other_images(self):
        self.assertEqual(MapMetrics(None).summarize(), {})
        with self.assertRaisesRegex(ValueError, "boxes must be of images of this evaluation, those of 1"):
            collected(MapMetrics({"z.png": {"Mass": BOXES}}), ("a.png", 0, HEAT)).summarize()
        with self.assertRaisesRegex(ValueError, "an annotation must be of one image, that of 'a.png'"):
            collected(MapMetrics({"a.png": {"Mass": BOXES}}), *[("a.png", 1, HEAT)] * 2).summarize()


if __name__ == "__main__":
    unittest.main()
