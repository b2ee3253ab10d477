# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, LoadImaged, RandFlipd
from PIL import Image

from bundle.preprocessing.box_frames import (
    boxes_in_source,
    boxes_on_input,
    found_in_source,
    outside_file,
    seen_in_source,
)
from bundle.preprocessing.geometry import ResizeAndPadd
from bundle.reading.reader import RadiologyReader


class TestBoxFrames(unittest.TestCase):
    def test_there_and_back_through_resize_padding_crop_and_flip(self):
        transforms = Compose(
            [
                LoadImaged(keys="image", reader=RadiologyReader(channels=1), ensure_channel_first=True),
                ResizeAndPadd(keys="image", spatial_size=[64, 64]),
                CenterSpatialCropd(keys="image", roi_size=[60, 56]),
                RandFlipd(keys="image", prob=1.0, spatial_axis=1),
            ]
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.png"
            pixels = np.zeros((80, 160), np.uint8)
            pixels[20:40, 40:100] = 200
            Image.fromarray(pixels).save(path)
            image = transforms({"image": str(path)})["image"]
        boxes = torch.tensor([[40.0, 20.0, 100.0, 40.0]])
        here = boxes_on_input(boxes, image)
        # scale 0.4, 16 rows of padding above, 2 and 4 cropped, then left is right
        self.assertEqual([round(v, 3) for v in here[0].tolist()], [56 - 36, 22, 56 - 12, 30])
        bright = np.argwhere(image[0].numpy() > 0.5)
        self.assertEqual(bright.min(axis=0).tolist()[::-1], [20, 22])
        torch.testing.assert_close(boxes_in_source(here, image), boxes)
        # the crop leaves columns 4 to 60 of 64, which are 10 to 150 of 160; the rows cut off were padding
        torch.testing.assert_close(seen_in_source(image), torch.tensor([10.0, 0.0, 150.0, 80.0]))
        # a box within the padding is none, and a height of 0 says that there is no box
        found = torch.cat([here, torch.tensor([[0.0, 0.0, 9.0, 9.0]]), here])
        edges, heights = found_in_source(found, torch.tensor([0.7, 0.6, 0.0]), image)
        torch.testing.assert_close(edges, boxes)
        self.assertEqual(heights.tolist(), [torch.tensor(0.7).item()])

    def test_boxes_of_a_larger_copy_are_refused(self):
        # NIH's list is in pixels of 1024 x 1024: on a copy of 512 x 512 its boxes lie elsewhere, or outside
        image = MetaTensor(torch.zeros(1, 32, 32), affine=torch.diag(torch.tensor([16.0, 16.0, 1.0, 1.0])))
        image.meta.update(spatial_shape=(512, 512), original_affine=torch.eye(4), filename_or_obj="films/a.png")
        inside = torch.tensor([[0.0, 0.0, 512.0, 512.0], [-3.0, 5.0, 515.0, 90.0]])  # by rounding
        self.assertEqual(outside_file(inside, image), "")
        outside = torch.tensor([[10.0, 10.0, 20.0, 20.0], [700.0, 300.0, 900.0, 500.0]])
        for use in (outside_file, boxes_on_input):
            try:
                said = use(outside, image)
            except ValueError as error:
                said = str(error)
            self.assertIn(
                "'a.png': annotated boxes must lie in its 512 x 512 pixels, got edges 700, 300, 900, 500", said
            )


if __name__ == "__main__":
    unittest.main()
