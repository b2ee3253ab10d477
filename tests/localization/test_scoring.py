# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import CenterSpatialCropd, Compose, Invertd, LoadImaged, Resized
from PIL import Image
from torch import nn

from bundle.localization.inferer import AttentionMiningInferer
from bundle.localization.scoring import AttentionResultd, StepMapsd
from bundle.reading.reader import RadiologyReader


class BrightnessNet(nn.Module):
    """The first class is bright where the image is, the second nowhere."""

    def forward(self, x):
        maps = nn.functional.avg_pool2d(x[:, :1], 2)
        return torch.cat([maps, torch.zeros_like(maps) - 5], dim=1)


CLASSES = ("bright", "other")


def calibration(bright: float | None, other: float | None = 0.5) -> dict:
    return {"temperature": 1.0, "thresholds": {"bright": bright, "other": other}}


class TestAttentionResult(unittest.TestCase):
    def run_on(self, pixels, network=None, classes=CLASSES, **kwargs):
        before = Compose(
            [
                LoadImaged(keys="image", reader=RadiologyReader(channels=3), ensure_channel_first=True),
                Resized(keys="image", spatial_size=[64, 64], anti_aliasing=True),
                CenterSpatialCropd(keys="image", roi_size=[56, 56]),
            ]
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.png"
            Image.fromarray(pixels).save(path)
            batch = next(iter(DataLoader(Dataset([{"image": str(path)}], before), batch_size=1)))
        batch["pred"] = AttentionMiningInferer(steps=2, upsample=2)(batch["image"], network or BrightnessNet())
        after = [
            AttentionResultd(classes=classes, **kwargs),
            Invertd("heatmap", before, "image", nearest_interp=False),
        ]
        return Compose([*after, StepMapsd()])(decollate_batch(batch)[0])

    def test_boxes_and_maps_come_back_to_the_pixels_of_the_file(self):
        pixels = np.zeros((256, 320), np.uint8)
        pixels[80:144, 200:260] = 255
        item = self.run_on(pixels, calibration=calibration(0.5))
        box = item["boxes"][0]
        self.assertEqual(box["label"], "bright")
        # the network saw cells of 8 rows and 10 columns of the file; the box keeps to them
        for got, expected, cell in (
            (box["x"], 200, 10),
            (box["y"], 80, 8),
            (box["x"] + box["width"], 260, 10),
            (box["y"] + box["height"], 144, 8),
        ):
            self.assertAlmostEqual(got, expected, delta=cell)
        self.assertEqual(tuple(item["heatmap"].shape), (1, 256, 320))
        self.assertEqual(list(item["extra_maps"]), ["step_1", "step_2"])
        heat = item["extra_maps"]["step_1"]
        self.assertGreater(heat[80:144, 200:260].min(), 0.4)
        self.assertLess(heat[:60].max(), 0.01)
        self.assertEqual(set(item["probabilities"]), {"bright", "other"})

    def test_image_without_a_finding_has_no_boxes(self):
        item = self.run_on(np.zeros((64, 64), np.uint8), probability_threshold=0.4)
        self.assertEqual(item["boxes"], [])
        self.assertEqual(item["heatmap"].abs().max().item(), 0)

    def test_a_finding_below_its_operating_point_has_no_box(self):
        # its map is stretched to 0..1 like any other: the most probable class of a normal image had boxes of a height
        # near 1, and a probability of 0.001
        item = self.run_on(spot(), calibration=calibration(0.9))
        self.assertLess(item["probabilities"]["bright"], 0.9)
        self.assertEqual((item["boxes"], item["abnormal"]), ([], False))
        self.assertEqual(item["operating_points"], {"bright": 0.9, "other": 0.5})
        # the map is there to look at, and says what it is
        self.assertGreater(item["heatmap"].max().item(), 0.9)
        self.assertEqual(item["heatmap_class"], "bright")

    def test_a_finding_at_its_operating_point_has_boxes_with_a_height_and_no_score(self):
        item = self.run_on(spot(), calibration=calibration(0.5))
        self.assertTrue(item["abnormal"])
        self.assertEqual(item["heatmap_class"], "bright")
        self.assertEqual(item["finding_probability"], max(item["probabilities"].values()))
        for box in item["boxes"]:
            self.assertEqual(set(box), {"label", "x", "y", "width", "height", "map_height"})
            self.assertNotAlmostEqual(box["map_height"], item["probabilities"]["bright"], places=2)

    def test_the_temperature_decides_too(self):
        cold = self.run_on(spot(), calibration=calibration(0.5) | {"temperature": 10.0})["probabilities"]["bright"]
        warm = self.run_on(spot(), calibration=calibration(0.5))["probabilities"]["bright"]
        logits = torch.logit(torch.tensor([cold, warm]))
        self.assertAlmostEqual((logits[1] / logits[0]).item(), 10, places=2)

    def test_without_a_calibration_there_are_probabilities_only(self):
        item = self.run_on(spot())
        self.assertEqual((item["boxes"], item["operating_points"], "abnormal" in item), ([], {}, False))
        self.assertEqual(item["heatmap_class"], "bright")
        item = self.run_on(spot(), probability_threshold=0.5)  # on a user's own word
        self.assertEqual((len(item["boxes"]) > 0, item["abnormal"]), (True, True))
        self.assertEqual(item["operating_points"], {"bright": 0.5, "other": 0.5})

    def test_the_class_of_no_finding_has_neither_box_nor_verdict(self):
        item = self.run_on(spot(), calibration=calibration(0.5), normal_class="bright")
        self.assertEqual((item["boxes"], item["abnormal"]), ([], False))
        self.assertEqual(item["operating_points"], {"other": 0.5})
        self.assertEqual(item["heatmap_class"], "other")

    def test_a_finding_without_an_operating_point_is_neither_present_nor_absent(self):
        item = self.run_on(spot(), calibration=calibration(None))
        self.assertEqual((item["boxes"], "abnormal" in item), ([], False))
        self.assertEqual(item["operating_points"], {"bright": None, "other": 0.5})

    def test_a_box_of_nearly_all_that_was_seen_is_none(self):
        pixels = np.full((100, 100), 255, np.uint8)
        pixels[:9] = 0  # of which the crop leaves three rows; a constant map has no place at all
        wide = self.run_on(pixels, probability_threshold=0.5, max_box_fraction=1.0)
        seen = 56 / 64 * 100  # the crop, in pixels of the file
        largest = max(box["width"] * box["height"] for box in wide["boxes"])
        self.assertGreater(largest / seen**2, 0.9)
        self.assertTrue(wide["abnormal"])
        none = self.run_on(pixels, probability_threshold=0.5)
        self.assertEqual((none["boxes"], none["abnormal"]), ([], True))  # present, and nobody knows where
        half = np.zeros((100, 100), np.uint8)
        half[:, 50:] = 255
        self.assertTrue(self.run_on(half, probability_threshold=0.5)["boxes"])

    def test_what_is_no_number_gets_no_verdict_and_no_box(self):
        class Broken(BrightnessNet):
            def forward(self, x):
                maps = super().forward(x).clone()
                maps[:, 1, 0, 0] = float("nan")
                return maps

        item = self.run_on(spot(), Broken(), calibration=calibration(0.5))
        self.assertEqual(item["not_assessed"], "the probability of 'other' must be finite, got nan")
        self.assertEqual((item["boxes"], item["operating_points"], "abnormal" in item), ([], {}, False))

    def test_a_prior_that_is_no_number_gets_no_verdict_and_no_box(self):
        image = MetaTensor(torch.zeros(3, 8, 8), meta={"original_affine": torch.eye(4), "spatial_shape": (8, 8)})
        inferer = AttentionMiningInferer(upsample=1, prior=lambda x: torch.full((1, 1, 4, 4), float("nan")))
        out = inferer(torch.rand(1, 3, 8, 8) + 1, BrightnessNet())
        d = {"image": image, "pred": {k: v[0] for k, v in out.items()}}
        item = AttentionResultd(classes=CLASSES, calibration=calibration(0.5))(d)
        self.assertEqual(item["not_assessed"], "the maps of all classes must be finite, some are not")
        self.assertEqual((item["boxes"], item["operating_points"], "abnormal" in item), ([], {}, False))

    def test_what_is_not_assessed_gets_no_verdict_and_no_box(self):
        image = MetaTensor(torch.zeros(3, 8, 8), meta={"original_affine": torch.eye(4), "spatial_shape": (8, 8)})
        out = AttentionMiningInferer(upsample=1)(torch.rand(1, 3, 8, 8) + 1, BrightnessNet())
        d = {"image": image, "pred": {k: v[0] for k, v in out.items()}, "not_assessed": "a photograph"}
        item = AttentionResultd(classes=CLASSES, calibration=calibration(0.5))(d)
        self.assertEqual((item["boxes"], item["not_assessed"], "abnormal" in item), ([], "a photograph", False))

    def test_settings_that_mean_nothing(self):
        for settings, rule in (
            ({"probability_threshold": 0}, r"probability_threshold must be in \(0, 1\], got 0"),
            ({"probability_threshold": "0.5"}, r"probability_threshold must be in \(0, 1\], got '0.5'"),
            ({"max_box_fraction": float("nan")}, r"max_box_fraction must be in \(0, 1\], got nan"),
            ({"normal_class": "none"}, "normal_class must be one of several classes"),
            ({"calibration": calibration(2.0)}, r"operating point of 'bright' must be in \[0, 1\], got 2.0"),
            ({"classes": ()}, "classes must be a list of one or more names"),
        ):
            with self.assertRaisesRegex(ValueError, rule):
                AttentionResultd(**({"classes": CLASSES} | settings))

    def test_another_number_of_classes(self):
        with self.assertRaisesRegex(Exception, "the network has 2 classes, got 1 names"):
            AttentionResultd(classes=("one",))({"image": None, "pred": {"logits": torch.zeros(2)}})


def spot() -> np.ndarray:
    """Return a dark picture with a bright square."""
    pixels = np.zeros((256, 320), np.uint8)
    pixels[80:144, 200:260] = 255
    return pixels


if __name__ == "__main__":
    unittest.main()
