# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unittest
from types import SimpleNamespace

import torch
from monai.data import MetaTensor

from bundle.localization import AttentionMiningInferer, box_from_anchors, fit_anchors
from tests.folders import FolderTestCase

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def preprocessed(item: dict) -> dict:
    """A picture of 20 rows and 40 columns, stretched to an input of 10 x 10."""
    affine = torch.diag(torch.tensor([2.0, 4.0, 1.0, 1.0], dtype=torch.float64))
    affine[0, 3], affine[1, 3] = 0.5, 1.5  # centers of pixels
    meta = {"filename_or_obj": item["image"], "original_affine": torch.eye(4), "spatial_shape": (20, 40)}
    return {"image": MetaTensor(torch.zeros(3, 10, 10), affine=affine, meta=meta)}


def lists(*names: str) -> SimpleNamespace:
    return SimpleNamespace(training=[{"image": name} for name in names])


class TestAnchors(FolderTestCase):
    def coco(self, *boxes: tuple[str, str, list[float]]) -> str:
        names = sorted({name for name, _, _ in boxes})
        path = self.root / "boxes.json"
        path.write_text(
            json.dumps(
                {
                    "images": [{"id": n, "file_name": name, "width": 40, "height": 20} for n, name in enumerate(names)],
                    "categories": [{"id": 0, "name": "Mass"}, {"id": 1, "name": "Nodule"}],
                    "annotations": [
                        {"image_id": names.index(name), "category_id": int(label == "Nodule"), "bbox": box}
                        for name, label, box in boxes
                    ],
                }
            )
        )
        return str(path)

    def test_places_of_training_images_on_the_input_by_hand(self):
        # two of three on the left; x, y, width, height in pixels of the file
        boxes = [
            ("a.png", "Mass", [0, 0, 20, 20]),
            ("b.png", "Mass", [0, 0, 20, 20]),
            ("c.png", "Mass", [20, 0, 20, 20]),
        ]
        other = ("test.png", "Nodule", [0, 0, 4, 4])  # not a training image: nothing is learned from it
        path = self.coco(*boxes, other)
        found = fit_anchors(lists("a.png", "b.png", "c.png"), preprocessed, path, ["Mass", "Nodule"], 2)
        self.assertEqual(found, {"Mass": [LEFT, RIGHT]})
        self.assertIsNone(fit_anchors(lists("a.png"), preprocessed, "", ["Mass"]))

    def test_as_many_places_as_boxes_where_there_are_fewer(self):
        path = self.coco(("a.png", "Mass", [0, 0, 20, 20]))
        self.assertEqual(fit_anchors(lists("a.png"), preprocessed, path, ["Mass"], 3), {"Mass": [LEFT]})

    def test_what_cannot_be_fitted_is_refused(self):
        path = self.coco(("test.png", "Mass", [0, 0, 20, 20]))
        with self.assertRaisesRegex(
            ValueError, r"anchor_boxes must have boxes of training images .* 'boxes.json' has none"
        ):
            fit_anchors(lists("a.png"), preprocessed, path, ["Mass"])
        with self.assertRaisesRegex(ValueError, "anchors_per_finding must be"):
            fit_anchors(lists("a.png"), preprocessed, path, ["Mass"], 0)

    def test_the_map_chooses_among_the_places(self):
        heat = torch.zeros(2, 6, 6)
        heat[0, 2, 1], heat[1, 3, 4] = 9.0, 9.0
        found = box_from_anchors(heat, [LEFT, RIGHT], upsample=1)
        # one of 18 cells of each half
        torch.testing.assert_close(found, torch.tensor([[*LEFT, 0.5], [*RIGHT, 0.5]]))

    def test_a_place_smaller_than_a_cell_or_at_the_border_has_a_cell(self):
        heat = torch.arange(16.0).view(1, 4, 4)
        found = box_from_anchors(heat, [[0.99, 0.99, 1.0, 1.0], [0.26, 0.26, 0.27, 0.27]], upsample=1)
        torch.testing.assert_close(found, torch.tensor([[0.99, 0.99, 1.0, 1.0, 15.0]]))

    def test_one_box_of_a_finding_with_places_and_those_of_the_map_for_others(self):
        def network(images):
            maps = torch.zeros(1, 2, 8, 8)
            maps[:, 0, 3, 6] = maps[:, 1, 3, 6] = 5.0
            return maps

        inferer = AttentionMiningInferer(steps=1, anchors={"Mass": [LEFT, RIGHT]}, classes=["Mass", "Nodule"])
        out = inferer(torch.zeros(1, 3, 32, 64), network)
        plain = AttentionMiningInferer(steps=1)(torch.zeros(1, 3, 32, 64), network)
        self.assertEqual(out["boxes"][0, 0].tolist(), [[32, 0, 64, 32], [0] * 4, [0] * 4])
        self.assertEqual((out["map_heights"][0, 0] > 0).tolist(), [True, False, False])
        torch.testing.assert_close(out["boxes"][0, 1], plain["boxes"][0, 1])
        torch.testing.assert_close(out["heatmap"], plain["heatmap"])

    def test_places_of_an_unknown_class_are_refused(self):
        with self.assertRaisesRegex(ValueError, r"anchors must be of the classes \['Mass'\], got \['Other'\]"):
            AttentionMiningInferer(anchors={"Other": [LEFT]}, classes=["Mass"])


if __name__ == "__main__":
    unittest.main()
