# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from bundle.preprocessing.dictionary import InvertibleDictTransform
from bundle.preprocessing.geometry import (
    CropToRegion,
    CropUniformBorder,
    ResizeAndPad,
    ResizeAndPadd,
)


def ramps(rows, columns):
    """Return an image whose two channels hold the row and the column of each pixel."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([row, column]).float()


class TestResizeAndPad(unittest.TestCase):
    def test_hand_computed_value(self):
        # 2 rows and 4 columns need no scaling in a grid of 4, only a row of zeros on each side
        image = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
        out = ResizeAndPad(4)(image)
        self.assertEqual(tuple(out.shape), (1, 4, 4))
        torch.testing.assert_close(out[0, 1:3], image[0])
        self.assertEqual(out[0, [0, 3]].abs().sum().item(), 0)

    def test_area_is_kept_like_torch(self):
        image = torch.rand(1, 30, 20)
        out = ResizeAndPad((15, 12))(image)
        expected = F.interpolate(image[None], size=(15, 10), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(out[:, :, 1:11], expected)

    def test_inverse_puts_every_position_back(self):
        for rows, columns, size in ((37, 90, (32, 32)), (200, 61, (64, 48)), (20, 30, (64, 64)), (33, 33, (33, 33))):
            transform = ResizeAndPad(size)
            image = MetaTensor(ramps(rows, columns))
            back = transform.inverse(transform(image))
            self.assertEqual(back.shape, image.shape)
            self.assertEqual(back.applied_operations, [])
            torch.testing.assert_close(back.affine, image.affine)
            # a ramp survives both interpolations, but for the outermost pixels of the smaller grid
            margin = int(np.ceil(2 * max(rows / size[0], columns / size[1], 1)))
            inside = (slice(None), slice(margin, -margin), slice(margin, -margin))
            self.assertLess((back - image)[inside].abs().max().item(), 0.05)

    def test_affine_follows_the_pixels(self):
        transform = ResizeAndPad((8, 8))
        out = transform(MetaTensor(ramps(16, 8)))
        # index (0, 2) of the result is the first pixel: its center lies at (0.5, 0.5) of the source
        where = out.affine @ torch.tensor([0.0, 2.0, 0.0, 1.0], dtype=torch.float64)
        torch.testing.assert_close(where, torch.tensor([0.5, 0.5, 0.0, 1.0], dtype=torch.float64))


class TestCrops(unittest.TestCase):
    def test_region(self):
        image = MetaTensor(ramps(6, 7), meta={"region": np.array([1, 2, 5, 6])})
        transform = CropToRegion()
        out = transform(image)
        self.assertEqual(tuple(out.shape), (2, 4, 4))
        self.assertEqual(out[:, 0, 0].tolist(), [1, 2])
        back = transform.inverse(out)
        torch.testing.assert_close(back[:, 1:5, 2:6].as_tensor(), image[:, 1:5, 2:6].as_tensor())
        self.assertEqual(back[1, :, 0].sum().item(), 0)
        self.assertEqual(tuple(CropToRegion()(torch.zeros(1, 3, 4)).shape), (1, 3, 4))

    def test_uniform_border_of_either_color(self):
        for border in (0.0, 1.0):
            image = torch.full((1, 40, 50), border)
            image[:, 5:30, 10:45] = torch.rand(1, 25, 35, generator=torch.Generator().manual_seed(0))
            self.assertEqual(tuple(CropUniformBorder()(image).shape), (1, 25, 35))
        self.assertEqual(tuple(CropUniformBorder()(torch.zeros(1, 9, 9)).shape), (1, 9, 9))
        with self.assertRaisesRegex(ValueError, "tolerance must not be negative.*got -1 and 0.3"):
            CropUniformBorder(-1)


class TestWayBack(unittest.TestCase):
    def test_a_box_drawn_in_the_network_grid_lies_where_it_was(self):
        source = torch.zeros(1, 90, 140)
        source[:, 12:82, 20:130] = 0.2 + 0.1 * torch.rand(1, 70, 110, generator=torch.Generator().manual_seed(0))
        source[:, 30:50, 60:100] = 1.0
        transform = Compose([
            InvertibleDictTransform("image", CropToRegion()),
            InvertibleDictTransform("image", CropUniformBorder()),
            ResizeAndPadd("image", (96, 128)),
        ])  # fmt: skip
        item = transform({"image": MetaTensor(source, meta={"region": np.array([5, 10, 85, 135])})})
        item["heatmap"] = MetaTensor((item["image"] > 0.6).float())
        back = Invertd("heatmap", transform, orig_keys="image", nearest_interp=False)(item)["heatmap"]
        self.assertEqual(tuple(back.shape), (1, 90, 140))
        rows, columns = np.nonzero(back[0].numpy() > 0.5)
        box = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1])
        np.testing.assert_allclose(box, [30, 50, 60, 100], atol=0.5)


if __name__ == "__main__":
    unittest.main()
