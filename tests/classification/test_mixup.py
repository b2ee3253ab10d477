# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from ignite.engine import Engine

from bundle.classification.mixup import MixUp


class TestMixUp(unittest.TestCase):
    def test_image_and_label_are_blended_alike(self):
        # the image holds its own class, so after blending it must equal the share of that class
        seen = []
        engine = Engine(lambda engine, batch: seen.append(batch))
        MixUp(num_classes=2, alpha=1.0).attach(engine)
        batches = [
            {"image": y.view(-1, 1, 1, 1).float(), "label": y} for y in (torch.tensor([0, 1] * 4), torch.tensor([1]))
        ]
        engine.run(batches, max_epochs=1)
        for batch in seen:
            torch.testing.assert_close(batch["image"].flatten(), batch["label"][:, 1])
            torch.testing.assert_close(batch["label"].sum(dim=1), torch.ones(len(batch["label"])))
        self.assertTrue(((seen[0]["label"] > 0) & (seen[0]["label"] < 1)).any())

    def test_an_epoch_does_not_depend_on_those_before_it(self):
        def labels(start):
            seen = []
            engine = Engine(lambda engine, batch: seen.append(batch["label"]))
            MixUp(num_classes=2, alpha=1.0).attach(engine)
            engine.load_state_dict({"epoch": start, "max_epochs": 2, "epoch_length": 1}) if start else None
            data = [{"image": torch.zeros(4, 1, 1, 1), "label": torch.tensor([0, 1, 1, 0])}]
            engine.run(data, max_epochs=2, epoch_length=1)
            return seen

        whole, resumed = labels(0), labels(1)
        self.assertFalse(torch.equal(whole[0], whole[1]))
        torch.testing.assert_close(resumed[-1], whole[1])

    def test_alpha(self):
        with self.assertRaisesRegex(ValueError, "alpha must be positive, got 0"):
            MixUp(2, alpha=0)


if __name__ == "__main__":
    unittest.main()
