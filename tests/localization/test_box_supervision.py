# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, Flipd, LoadImaged
from PIL import Image
from torch import nn

from bundle.localization.box_supervision import BoxAttentionLoss, BoxSupervision
from bundle.localization.boxes import box_coverage
from bundle.preprocessing.geometry import ResizeAndPadd
from bundle.reading.reader import RadiologyReader

BOXES = {"0.png": {"Mass": torch.tensor([[8.0, 0.0, 16.0, 16.0]])}, "9.png": {"Mass": torch.ones(1, 4)}}


class OneMap(nn.Module):
    """Its map is a parameter, the same for every image."""

    def __init__(self):
        super().__init__()
        self.map = nn.Parameter(torch.zeros(1, 1, 4, 4))

    def forward(self, x):
        return self.map.expand(len(x), -1, -1, -1)


class TestBoxSupervision(unittest.TestCase):
    def train(self, flip=False, boxes=BOXES, weight=1.0):
        steps = [
            LoadImaged(keys="image", reader=RadiologyReader(channels=1), ensure_channel_first=True),
            ResizeAndPadd(keys="image", spatial_size=[8, 8], keep_aspect=False),
        ]
        if flip:
            steps.append(Flipd(keys="image", spatial_axis=1))
        with tempfile.TemporaryDirectory() as folder:
            for i in range(2):
                Image.fromarray(np.full((16, 32), 10 * i, np.uint8)).save(Path(folder) / f"{i}.png")
            items = [{"image": str(Path(folder) / f"{i}.png"), "label": torch.zeros(1)} for i in range(2)]
            network = OneMap()
            trainer = SupervisedTrainer(
                device=torch.device("cpu"),
                max_epochs=1,
                train_data_loader=DataLoader(Dataset(items, Compose(steps)), batch_size=2),
                network=network,
                optimizer=torch.optim.SGD(network.parameters(), 1.0),
                loss_function=lambda pred, label: 0 * pred.sum() + 5,
            )
            BoxSupervision(boxes, ["Mass"], BoxAttentionLoss(), weight).attach(trainer)
            trainer.run()
            return network.map.detach()[0, 0], trainer.state.output[0]["loss"]

    def test_the_map_rises_in_the_box_alone(self):
        # the box is the second quarter of the width; one of the two images has it, at half the scale and less
        heat, loss = self.train()
        self.assertTrue((heat[:, 1] > 0).all() and (heat[:, [0, 2, 3]] < 0).all())
        self.assertAlmostEqual(loss, 5 + np.log(4), places=5)
        _, loss = self.train(weight=0.0)
        self.assertEqual(loss, 5)

    def test_the_box_follows_a_flip(self):
        heat, _ = self.train(flip=True)
        self.assertTrue((heat[:, 2] > 0).all() and (heat[:, [0, 1, 3]] < 0).all())

    def test_batch_without_boxes(self):
        heat, loss = self.train(boxes={"7.png": BOXES["0.png"]})
        self.assertEqual((heat.abs().max().item(), loss), (0, 5))

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, r"one of the classes \['Nodule'\], got \['Mass'\]"):
            BoxSupervision(BOXES, ["Nodule"], BoxAttentionLoss())
        with self.assertRaisesRegex(ValueError, "weight must not be negative, got -1"):
            BoxSupervision(BOXES, ["Mass"], BoxAttentionLoss(), -1)


class TestBoxCoverage(unittest.TestCase):
    def test_hand_computed_parts(self):
        boxes = torch.tensor([[1.0, 0.0, 4.0, 2.0], [6.0, 2.0, 8.0, 4.0]])
        covered = box_coverage(boxes, (4, 8), (2, 4))
        self.assertEqual(covered.tolist(), [[0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

    def test_overlap_and_outside(self):
        boxes = torch.tensor([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 2.0, 1.0], [9.0, 9.0, 12.0, 12.0]])
        self.assertEqual(box_coverage(boxes, (2, 2), (1, 1)).tolist(), [[0.5]])


class TestBoxAttentionLoss(unittest.TestCase):
    def test_hand_computed_value(self):
        maps = torch.zeros(1, 2, 4)  # softmax is 1/8 everywhere, the box covers two cells: log(8 / 2)
        target = torch.zeros(1, 2, 4)
        target[0, 0, :2] = 1.0
        self.assertAlmostEqual(BoxAttentionLoss()(maps, target).item(), math.log(4), places=6)

    def test_partly_covered_cells(self):
        target = torch.tensor([[[1.0, 0.5]]])
        maps = torch.tensor([[[2.0, 2.0 - math.log(2)]]])  # softmax 2/3 and 1/3, as the covered parts
        self.assertAlmostEqual(BoxAttentionLoss()(maps, target).item(), 0.0, places=6)

    def test_a_constant_changes_nothing(self):
        maps, target = torch.randn(3, 5, 5), torch.rand(3, 5, 5)
        loss = BoxAttentionLoss()
        torch.testing.assert_close(loss(maps - 40, target), loss(maps, target), rtol=1e-4, atol=1e-5)

    def test_gradient(self):
        maps = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(BoxAttentionLoss(), (maps, torch.rand(2, 3, 3, dtype=torch.float64))))

    def test_no_map_and_another_shape(self):
        self.assertEqual(BoxAttentionLoss()(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).item(), 0)
        with self.assertRaisesRegex(ValueError, r"target must be of shape \(1, 2, 2\), got \(1, 2, 3\)"):
            BoxAttentionLoss()(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))


if __name__ == "__main__":
    unittest.main()
