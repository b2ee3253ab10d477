# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from types import SimpleNamespace

import torch
from monai.data import MetaTensor

from bundle.detection import DetectionMetrics, mean_ap_metric
from tests.folders import FolderTestCase


def image(name: str = "/films/a.png") -> MetaTensor:
    """Return a picture of 80 x 100 pixels, read at half its size."""
    affine = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64))
    affine[:2, 3] = 0.5  # the center of the first of the larger pixels
    meta = {"filename_or_obj": name, "spatial_shape": (80, 100), "original_affine": torch.eye(4)}
    return MetaTensor(torch.zeros(3, 40, 50), affine=affine, meta=meta)


class TestDetectionMetrics(FolderTestCase):
    def test_boxes_are_judged_in_pixels_of_the_file(self):
        boxes = {"a.png": {"Mass": torch.tensor([[10.0, 20.0, 30.0, 40.0]])}}
        table = self.root / "boxes.csv"
        metrics = DetectionMetrics(["Mass", "Nodule"], boxes, lambda found, truths: {"found": found}, table)
        pred = {
            "boxes": torch.tensor([[[5.0, 10.0, 15.0, 20.0], [0, 0, 0, 0]]] * 2),
            "box_logits": torch.tensor([[0.0, -torch.inf]] * 2),
        }
        item = {"image": image(), "pred": pred, "true_findings": ["Mass", "Nodule"]}
        metrics(SimpleNamespace(state=SimpleNamespace(output=[item])))
        found = metrics.summarize()
        self.assertEqual(found["mean_average_precision"]["0.5 to 0.95"], 1.0)
        self.assertEqual(metrics.unknown, {"/films/a.png": {"Nodule"}})
        torch.testing.assert_close(
            found["best_box"]["found"]["/films/a.png"]["Mass"], torch.tensor([[10.0, 20.0, 30.0, 40.0]])
        )
        self.assertEqual(table.read_text().splitlines()[1], "a.png,Mass,10.0,20.0,30.0,40.0,0.5")

    def test_the_metric_of_validation(self):
        metric = mean_ap_metric(["Mass", "Nodule"])
        rows = torch.tensor([[0.0, -9.0, 5, 10, 15, 20], [-1.0, 4.0, 30, 30, 38, 38]])
        annotated = torch.tensor([[0.0, 5, 10, 15, 20], [1.0, 0, 0, 0, 0], [-1.0] * 5])
        metric.update([{"image": image(), "pred": rows, "annotated": annotated}])
        self.assertEqual(metric.compute(), 1.0)  # the nodule is somewhere, and not judged
        # in another image two boxes of higher score are false: precision 1/3 at every recall
        metric.update(
            [{"image": image(), "pred": rows + torch.tensor([[9.0] + [0] * 5] * 2), "annotated": annotated[2:]}]
        )
        self.assertAlmostEqual(metric.compute(), 1 / 3, places=5)

    def test_a_validation_without_boxes_and_a_diverged_network(self):
        metric = mean_ap_metric(["Mass"])
        empty = torch.full((1, 5), -1.0)
        metric.update([{"image": image(), "pred": torch.zeros(3, 5), "annotated": empty}])
        with self.assertRaisesRegex(ValueError, "no precision to choose the best network by"):
            metric.compute()
        with self.assertRaisesRegex(ValueError, "must be finite"):
            metric.update([{"image": image(), "pred": torch.full((3, 5), torch.nan), "annotated": empty}])


if __name__ == "__main__":
    unittest.main()
