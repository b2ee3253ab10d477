# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.classification.make import CLASSIFIER_BACKBONES, make_classifier


class TestMakeClassifier(unittest.TestCase):
    def test_every_backbone_by_its_name(self):
        # parameters of torchvision's networks with 1000 classes (their documentation), of timm's tf_efficientnet_lite0
        sizes = {
            "efficientnet_lite0": 4652008,
            "resnet18": 11689512,
            "resnet50": 25557032,
            "densenet121": 7978856,
            "densenet169": 14149480,
        }
        self.assertEqual(tuple(sizes), CLASSIFIER_BACKBONES)
        for backbone, size in sizes.items():
            with self.subTest(backbone):
                network = make_classifier(1000, backbone, attention="none", weights="random").eval()
                self.assertEqual(sum(parameter.numel() for parameter in network.parameters()), size)
                self.assertEqual(network(torch.zeros(1, 3, 64, 64)).shape, (1, 1000))

    def test_what_a_backbone_has_no_use_for_is_refused(self):
        for words, message in (
            ({"backbone": "resnet34"}, r"backbone must be one of \['efficientnet_lite0', .* got 'resnet34'"),
            ({"placement": "stem"}, "placement must be null for efficientnet_lite0"),
            ({"backbone": "densenet121", "frozen_stages": 5}, "frozen_stages must be null for densenet121, .* got 5"),
        ):
            with self.subTest(words), self.assertRaisesRegex(ValueError, message):
                make_classifier(2, **words)


if __name__ == "__main__":
    unittest.main()
