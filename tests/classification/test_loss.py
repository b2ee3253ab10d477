# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import unittest

import torch

from bundle.classification.loss import LOSS_NAMES, ClassificationLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0]])


class TestClassificationLoss(unittest.TestCase):
    def test_the_weights_of_the_classes_follow_the_logits_to_their_device(self):
        # the meta device refuses tensors of another one as an accelerator does
        items = [{"label": y} for y in ([1, 0], [0, 1], [0, 1])]
        for name in LOSS_NAMES:
            with self.subTest(name):
                value = ClassificationLoss(name, 2, items)(
                    torch.zeros(3, 2, device="meta"), torch.zeros(3, 2, device="meta")
                )
                self.assertEqual(value.device.type, "meta")

    def test_weighted_bce_by_hand(self):
        # class 0: one positive of three, weight 2; logit 0 costs ln 2
        loss = ClassificationLoss("bce", 2, items=[{"label": y} for y in ([1, 1], [0, 0], [0, 1])])
        value = loss(torch.zeros(1, 2), torch.tensor([[1, 0]]))
        self.assertAlmostEqual(value.item(), (2 + 1) / 2 * math.log(2), places=6)

    def test_focal_without_gamma_is_bce(self):
        target = torch.tensor([[1, 0, 1], [0, 1, 0]])
        torch.testing.assert_close(
            ClassificationLoss("focal", 3, gamma=0.0)(LOGITS, target), ClassificationLoss("bce", 3)(LOGITS, target)
        )

    def test_weighted_focal_without_gamma_is_weighted_bce(self):
        items = [{"label": [int(i == 0), int(i < 50)]} for i in range(100)]
        losses = [ClassificationLoss(name, 2, items, gamma=0.0) for name in ("focal", "bce")]
        for target in (torch.tensor([[0, 1]]), torch.tensor([[1, 0]]), torch.tensor([[0.3, 0.7]])):
            torch.testing.assert_close(*(loss(LOGITS[:1, :2], target) for loss in losses))

    def test_cross_entropy_takes_numbers_rows_and_mixtures(self):
        loss = ClassificationLoss("cross_entropy", 3, items=[{"label": y} for y in (0, 1, 2, 2)], label_smoothing=0.1)
        by_number = loss(LOGITS, torch.tensor([2, 0]))
        torch.testing.assert_close(loss(LOGITS, torch.tensor([[0, 0, 1], [1, 0, 0]])), by_number)
        plain = ClassificationLoss("cross_entropy", 3)
        torch.testing.assert_close(
            plain(LOGITS[:1], torch.tensor([[0.25, 0.75, 0.0]])),
            0.25 * plain(LOGITS[:1], torch.tensor([0])) + 0.75 * plain(LOGITS[:1], torch.tensor([1])),
        )

    def test_focal_by_hand(self):
        # a logit of 0 is p = 1/2: (1 - p)^2 ln 2
        value = ClassificationLoss("focal", 1)(torch.zeros(1, 1), torch.ones(1, 1))
        self.assertAlmostEqual(value.item(), math.log(2) / 4, places=6)

    def test_unknown_name(self):
        with self.assertRaisesRegex(ValueError, "loss must be one of .*'cross_entropy'.* got 'hinge'"):
            ClassificationLoss("hinge", 2)


if __name__ == "__main__":
    unittest.main()
