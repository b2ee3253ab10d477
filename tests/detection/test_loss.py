# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.detection import DetectionLoss, PyramidDetector

SIZE = (64, 64)


def parts(**settings) -> tuple[DetectionLoss, torch.Tensor]:
    network = PyramidDetector(2, "resnet18", weights=None, pyramid_channels=16)
    loss = DetectionLoss(network, SIZE, **settings)
    output = torch.cat([torch.full((1, len(loss.anchors), 2), -40.0), loss.anchors[None]], dim=-1)
    return loss, output


class TestDetectionLoss(unittest.TestCase):
    def test_the_right_answer_costs_nothing(self):
        for kind in ("focal", "hard_negatives"):
            loss, output = parts(classification=kind)
            box = loss.anchors[100]  # one of the anchors itself
            mine = loss.matches(box[None]) >= 0
            self.assertTrue(mine[100])
            output[0, mine, 0], output[0, mine, 2:] = 40.0, box
            target = torch.tensor([[[0.0, *box.tolist()], [-1.0] * 5]])
            self.assertLess(loss(output, target).item(), 1e-5)

    def test_one_confident_error_by_hand(self):
        # no box: focal loss of a negative with p = 0.5, (1 - 0.25) * 0.5^2 * ln 2, divided by max(1, positives)
        loss, output = parts()
        output[0, 7, 1] = 0.0
        target = torch.full((1, 1, 5), -1.0)
        self.assertAlmostEqual(loss(output, target).item(), 0.75 * 0.25 * math.log(2), places=6)
        # the same error is none where the finding is somewhere
        self.assertAlmostEqual(loss(output, torch.tensor([[[1.0, 0, 0, 0, 0]]])).item(), 0, places=6)

    def test_a_box_half_as_wide_by_hand(self):
        loss, output = parts()
        box = loss.anchors[100]
        mine = loss.matches(box[None]) >= 0
        half = torch.stack([box[0], box[1], (box[0] + box[2]) / 2, box[3]])
        output[0, mine, 0], output[0, mine, 2:] = 40.0, half
        # intersection over union 0.5, and the hull is the union
        self.assertAlmostEqual(loss(output, torch.tensor([[[0.0, *box.tolist()]]])).item(), 0.5, places=5)

    def test_every_box_has_an_anchor(self):
        loss, _ = parts()
        tiny = torch.tensor([[3.0, 3.0, 5.0, 5.0], [40.0, 40.0, 63.0, 60.0]])  # no anchor's center is in the first
        self.assertEqual(set(loss.matches(tiny).tolist()), {-1, 0, 1})

    def test_it_can_be_learnt(self):
        for kind in ("focal", "hard_negatives"):
            torch.manual_seed(0)
            network = PyramidDetector(2, "resnet18", weights=None, pyramid_channels=16).train()
            loss = DetectionLoss(network, SIZE, kind)
            images, target = torch.zeros(2, 3, *SIZE), torch.full((2, 1, 5), -1.0)
            images[0, :, 16:40, 8:32], target[0, 0] = 1.0, torch.tensor([1.0, 8, 16, 32, 40])
            optimizer, values = torch.optim.Adam(network.parameters(), 0.003), []
            for _ in range(25):
                optimizer.zero_grad()
                value = loss(network(images), target)
                value.backward()
                optimizer.step()
                values.append(value.item())
            self.assertLess(values[-1], 0.6 * values[0], kind)

    def test_refused(self):
        loss, output = parts()
        with self.assertRaisesRegex(ValueError, "input must have 255 anchors for the image size, got 254"):
            loss(output[:, 1:], torch.zeros(1, 1, 5))
        with self.assertRaisesRegex(ValueError, r"target must be of shape \(1, M, 5\), got \(1, 5\)"):
            loss(output, torch.zeros(1, 5))
        with self.assertRaisesRegex(ValueError, "'focal' or 'hard_negatives', got 'other'"):
            parts(classification="other")
        with self.assertRaisesRegex(ValueError, "box_weight"):
            parts(box_weight=-1.0)


if __name__ == "__main__":
    unittest.main()
