# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from bundle.localization.evaluation import LocalizationMetrics

CLASSES = ["Mass", "Nodule"]
# a file of 20 x 20 pixels that the network saw at half its size
SHRUNK = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0]))
SHRUNK[:2, 3] = 0.5


def item(name: str, boxes: list, logits=(-9.0, -9.0), hottest=(0, 0)) -> dict:
    """Return one image's output: boxes of Mass on the network's input, none of Nodule, and 5 x 5 maps with one peak."""
    meta = {"original_affine": torch.eye(4), "spatial_shape": (20, 20), "filename_or_obj": f"/some/folder/{name}"}
    edges, heights = torch.zeros(2, 3, 4), torch.zeros(2, 3)
    for k, box in enumerate(boxes):
        edges[0, k], heights[0, k] = torch.tensor(box), 0.9 - 0.1 * k
    maps = torch.zeros(2, 5, 5)
    maps[:, hottest[0], hottest[1]] = 1
    return {
        "image": MetaTensor(torch.zeros(1, 10, 10), affine=SHRUNK, meta=meta),
        "pred": {"logits": torch.tensor(logits), "boxes": edges, "map_heights": heights, "heatmap": maps},
    }


class TestLocalizationMetrics(unittest.TestCase):
    def evaluated(self, *batches: list[dict]) -> LocalizationMetrics:
        annotated = {
            "a.png": {"Mass": torch.tensor([[4.0, 4, 10, 10]])},
            "b.png": {"Nodule": torch.tensor([[0.0, 0, 2, 2]])},
        }
        handler = LocalizationMetrics(CLASSES, annotated)
        engine = Engine(lambda engine, batch: batch)
        handler.attach(engine)
        engine.run(list(batches))
        return handler

    def test_boxes_count_whatever_the_probability_and_the_size(self):
        handler = self.evaluated([item("a.png", [[0, 0, 10, 10], [2, 2, 5, 5]])], [item("b.png", [[0, 0, 1, 1]])])
        self.assertEqual(handler.found["/some/folder/a.png"]["Mass"].tolist(), [[0, 0, 20, 20], [4, 4, 10, 10]])
        mass, nodule = (handler.summarize()["classes"][name] for name in ("Mass", "Nodule"))
        # by hand: the first box is all of the file, the second is the annotated one
        self.assertEqual((mass["images"], nodule["images"]), (1, 1))
        self.assertEqual(mass["accuracy"]["0.7"], 1.0)
        self.assertEqual(mass["false_positives_per_image"]["0.1"], 1.0)
        self.assertAlmostEqual(mass["mean_iou"], 36 / 400)
        self.assertEqual(nodule["accuracy"]["0.1"], 0.0)

    def test_the_hottest_cell_is_held_against_the_boxes(self):
        # a cell is 4 x 4 pixels of the file: that of row 1 and column 2 has its center at column 10, row 6, which is on
        # the right edge of [4, 4, 10, 10] and so outside; that of row 1 and column 1 at 6, 6
        for hottest, expected in (((1, 1), 1.0), ((1, 2), 0.0)):
            handler = self.evaluated([item("a.png", [], hottest=hottest)], [item("b.png", [], hottest=(0, 0))])
            classes = handler.summarize()["classes"]
            self.assertEqual(handler.points["/some/folder/a.png"]["Mass"].tolist(), [hottest[1] * 4 + 2, 6])
            # the center of the first cell, at 2, 2, is no point of [0, 0, 2, 2]
            self.assertEqual([classes[name]["pointing_game"] for name in CLASSES], [expected, 0.0])

    def test_a_table_has_a_row_for_each_annotated_box(self):
        handler = self.evaluated([item("a.png", [[2, 2, 5, 5]])], [item("b.png", [])])
        with tempfile.TemporaryDirectory() as folder:
            handler.table_path = Path(folder) / "table.csv"
            handler.summarize()
            rows = handler.table_path.read_text().splitlines()
        # by hand: the found box is the annotated one of a.png, and nothing is found in b.png
        self.assertEqual(rows[1:], ["a.png,Mass,4.0,4.0,10.0,10.0,1.0", "b.png,Nodule,0.0,0.0,2.0,2.0,0.0"])

    def test_an_image_without_a_number_is_named_when_the_metrics_are_asked_for(self):
        handler = self.evaluated([item("a.png", []), item("b.png", [], logits=(0.0, float("nan")))])
        with self.assertRaisesRegex(ValueError, "logits must be finite, got nan for 'b.png', class 'Nodule'"):
            handler.summarize()

    def test_two_images_of_one_name(self):
        handler = self.evaluated([item("a.png", [])], [item("other/a.png", [])])
        with self.assertRaisesRegex(ValueError, "an annotation must be of one image, that of 'a.png' is of two"):
            handler.summarize()
        # frames and namesakes without an annotation are nobody's harm
        self.evaluated([item("c.png", [])], [item("c.png", []), item("other/c.png", [])]).summarize()

    def test_annotations_by_path(self):
        handler = self.evaluated([item("a.png", [[2, 2, 5, 5]])], [item("other/a.png", [])])
        handler.boxes = {"/some/folder/a.png": handler.boxes["a.png"]}
        engine = Engine(lambda engine, batch: batch)
        handler.attach(engine)
        engine.run([[item("a.png", [[2, 2, 5, 5]])], [item("other/a.png", [])]])
        mass = handler.summarize()["classes"]["Mass"]
        self.assertEqual((mass["images"], mass["mean_iou"]), (1, 1.0))

    def test_a_second_run_starts_anew(self):
        handler = self.evaluated([item("a.png", [])])
        engine = Engine(lambda engine, batch: batch)
        handler.attach(engine)
        engine.run([[item("a.png", [])]])
        self.assertEqual(handler.summarize()["classes"]["Mass"]["images"], 1)


if __name__ == "__main__":
    unittest.main()
