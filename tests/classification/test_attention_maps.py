# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from bundle.classification.attention_maps import AttentionMaps
from bundle.classification.sna_resnet import SNAResNet


class TestAttentionMaps(unittest.TestCase):
    def run_with(self, attention: str) -> dict:
        network = SNAResNet(2, image_size=(32, 32), attention=attention)
        items = [{"image": torch.rand(3, 32, 32), "label": 0} for _ in range(2)]
        evaluator = SupervisedEvaluator(
            torch.device("cpu"),
            DataLoader(Dataset(items), batch_size=2),
            network,
            val_handlers=[AttentionMaps(network)],
            decollate=False,
        )
        evaluator.run()
        self.assertFalse(any(m._forward_pre_hooks for m in network.modules()))
        return evaluator.state.output

    def test_blocks_with_a_map(self):
        for attention in ("sna", "ppcr"):
            self.assertEqual(self.run_with(attention)["attention"].shape, (2, 1, 32, 32))

    def test_blocks_without_a_map_add_nothing(self):
        for attention in ("se", "none"):
            self.assertNotIn("attention", self.run_with(attention))


if __name__ == "__main__":
    unittest.main()
