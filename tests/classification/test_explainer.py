# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.visualize import GradCAM
from torch import nn

from bundle.classification.attention_lite import AttentionLite0
from bundle.classification.explainer import EXPLANATION_NAMES, ClassExplainer
from bundle.classification.sna_densenet import SNADenseNet
from bundle.classification.sna_resnet import SNAResNet


class _Net(nn.Module):
    cam_layer, classifier_layer = "conv", "fc"

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.conv(x)).mean(dim=(2, 3)))


def _net() -> _Net:
    """Return a network whose class 0 likes bright places and class 1 dark ones."""
    net = _Net().eval()
    net.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    net.fc.weight.data = torch.eye(2)
    return net


class TestClassExplainer(unittest.TestCase):
    def test_finds_the_place_of_the_class(self):
        image = torch.zeros(2, 1, 8, 8)
        image[:, :, 2, 5], image[:, :, 6, 1] = 1.0, -1.0
        for method in EXPLANATION_NAMES:
            maps = ClassExplainer(_net(), method=method)(image, torch.tensor([0, 1]))
            self.assertEqual(maps.shape, (2, 1, 8, 8))
            self.assertEqual(maps.flatten(1).argmax(dim=1).tolist(), [2 * 8 + 5, 6 * 8 + 1])
            self.assertEqual((maps.min().item(), maps.max().item()), (0.0, 1.0))

    def test_grad_cam_matches_monai_and_single_images(self):
        torch.manual_seed(0)
        x = torch.rand(2, 3, 64, 64)
        for net in (
            SNAResNet(3, image_size=(64, 64)),
            SNADenseNet(3, image_size=(64, 64)),
            AttentionLite0(3, image_size=(64, 64), weights=None),
        ):
            net.eval()
            net.get_submodule(net.classifier_layer).weight.data.abs_()  # no map that is 0 everywhere
            ours = ClassExplainer(net)(x, 1)
            monai = 1 - GradCAM(net, net.cam_layer)(x, class_idx=1)  # MONAI inverts: its hottest place is 0
            torch.testing.assert_close(ours, monai, atol=1e-3, rtol=1e-3)
            for method in EXPLANATION_NAMES:
                explain = ClassExplainer(net, method=method)
                single = torch.cat([explain(x[i : i + 1], i) for i in range(2)])
                torch.testing.assert_close(explain(x, torch.tensor([0, 1])), single, atol=1e-3, rtol=1e-3)

    def test_works_without_gradients_and_on_a_frozen_network(self):
        net = _net().requires_grad_(False)
        with torch.no_grad():
            self.assertEqual(ClassExplainer(net)(torch.rand(1, 1, 4, 4), 0).shape, (1, 1, 4, 4))
        self.assertEqual(len(net.conv._forward_hooks), 0)

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "method must be one of .*'grad_cam_plus_plus'.* got 'lime'"):
            ClassExplainer(_net(), method="lime")
        with self.assertRaisesRegex(ValueError, "layer must name a module of _Net, got 'layer9'"):
            ClassExplainer(_net(), layer="layer9")


if __name__ == "__main__":
    unittest.main()
