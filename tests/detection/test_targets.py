# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.data import MetaTensor
from monai.transforms import Flip, RandAffined, Resize

from bundle.detection import BoxTargetsd, known_items

BOXES = {"a.png": {"Mass": torch.tensor([[10.0, 20.0, 30.0, 40.0]])}}
CLASSES = ["Mass", "Nodule"]


def image() -> MetaTensor:
    meta = {"filename_or_obj": "/films/a.png", "spatial_shape": (80, 100), "original_affine": torch.eye(4)}
    return MetaTensor(torch.zeros(1, 80, 100), affine=torch.eye(4), meta=meta)


class TestTargets(unittest.TestCase):
    def test_boxes_follow_the_image(self):
        small = Resize((40, 50))(image())
        rows = BoxTargetsd(BOXES, CLASSES, most=3)({"image": small, "label": [1, 1]})["targets"]
        # half of everything; the nodule that the label names has no place
        expected = [[0, 5, 10, 15, 20], [1, 0, 0, 0, 0], [-1, -1, -1, -1, -1]]
        torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0)
        turned = BoxTargetsd(BOXES, CLASSES, most=1)({"image": Flip(1)(image())})["targets"]
        torch.testing.assert_close(turned, torch.tensor([[0.0, 70, 20, 90, 40]]))  # 100 - 30, 100 - 10

    def test_boxes_follow_a_random_transform(self):
        picture = image()
        picture[:, 20:40, 10:30] = 1
        shift = RandAffined("image", prob=1, translate_range=((8, 8), (6, 6)), padding_mode="zeros")
        moved = shift({"image": picture})
        rows = BoxTargetsd(BOXES, CLASSES, most=1, replace_label=True)(moved)["label"]
        left, upper, right, lower = rows[0, 1:].round().int().tolist()
        there = (moved["image"][0] > 0.5).nonzero()
        self.assertEqual([upper, left], there.amin(dim=0).tolist())
        self.assertEqual([lower, right], (there.amax(dim=0) + 1).tolist())

    def test_a_box_that_a_crop_leaves_behind_has_no_place(self):
        cut = image()[:, :, 26:]
        cut.affine[:2, 3] = torch.tensor([0.0, 26.0])
        rows = BoxTargetsd(BOXES, CLASSES, most=1)({"image": cut})["targets"]
        torch.testing.assert_close(rows, torch.zeros(1, 5))  # a fifth is left

    def test_more_boxes_than_rows(self):
        many = {"a.png": {"Mass": torch.tensor([[10.0, 20.0, 30.0, 40.0]] * 3)}}
        with self.assertRaisesRegex(ValueError, "at most 2 boxes, 'a.png' has 3"):
            BoxTargetsd(many, CLASSES, most=2)({"image": image()})

    def test_images_that_say_where_or_that_nothing_is_there(self):
        items = [
            {"image": name, "label": label} for name, label in (("a.png", [1, 0]), ("b.png", [0, 1]), ("c.png", [0, 0]))
        ]
        kept = known_items(items, BOXES, CLASSES)
        self.assertEqual([item["image"] for item in kept], ["a.png", "c.png"])
        with self.assertRaisesRegex(ValueError, r"in one of the classes \['Nodule'\], it has \['Mass'\]"):
            known_items(items, BOXES, ["Nodule"])
        with self.assertRaisesRegex(ValueError, "it has none of these images"):
            known_items(items[1:], BOXES, CLASSES)


if __name__ == "__main__":
    unittest.main()
