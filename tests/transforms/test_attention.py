# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import CenterSpatialCropd, Compose, Invertd, LoadImaged, Resized
from PIL import Image
from torch import nn

from bundle.data.readers import RadiologyReader
from bundle.inferers.attention_mining import AttentionMiningInferer
from bundle.transforms.attention import AttentionResultd, StepMapsd


class BrightnessNet(nn.Module):
    """The first class is bright where the image is, the second nowhere."""

    def forward(self, x):
        maps = nn.functional.avg_pool2d(x[:, :1], 2)
        return torch.cat([maps, torch.zeros_like(maps) - 5], dim=1)


class TestAttentionResult(unittest.TestCase):
    def run_on(self, pixels, **kwargs):
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
        batch["pred"] = AttentionMiningInferer(steps=2, upsample=2)(batch["image"], BrightnessNet())
        after = [
            AttentionResultd(classes=("bright", "other"), **kwargs),
            Invertd("heatmap", before, "image", nearest_interp=False),
        ]
        return Compose([*after, StepMapsd()])(decollate_batch(batch)[0])

    def test_boxes_and_maps_come_back_to_the_pixels_of_the_file(self):
        pixels = np.zeros((256, 320), np.uint8)
        pixels[80:144, 200:260] = 255
        item = self.run_on(pixels)
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
        self.assertEqual(list(item["extra_maps"]), ["step 1", "step 2"])
        heat = item["extra_maps"]["step 1"]
        self.assertGreater(heat[80:144, 200:260].min(), 0.4)
        self.assertLess(heat[:60].max(), 0.01)
        self.assertEqual(set(item["label_scores"]), {"bright", "other"})

    def test_image_without_a_finding_has_no_boxes(self):
        item = self.run_on(np.zeros((64, 64), np.uint8))
        self.assertEqual(item["boxes"], [])
        self.assertEqual(item["heatmap"].abs().max().item(), 0)

    def test_another_number_of_classes(self):
        with self.assertRaisesRegex(Exception, "the network has 2 classes, got 1 names"):
            AttentionResultd(classes=("one",))({"image": None, "pred": {"probability": torch.zeros(2)}})


if __name__ == "__main__":
    unittest.main()
