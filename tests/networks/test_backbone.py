# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch

from bundle.networks import FeatureBackbone
from bundle.networks.trunks import BACKBONES, make_resnet

# torchvision's counts with 1000 classes
PARAMETERS = {"resnet18": 11_689_512, "resnet50": 25_557_032, "wide_resnet50_2": 68_883_240}


class TestMakeResnet(unittest.TestCase):
    def test_parameter_counts(self):
        with torch.device("meta"):
            for name, expected in PARAMETERS.items():
                self.assertEqual(sum(p.numel() for p in make_resnet(name).parameters()), expected, name)

    def test_names_and_shapes_of_torchvision(self):
        with torch.device("meta"):
            state = make_resnet("wide_resnet50_2").state_dict()
        for name, shape in (
            ("conv1.weight", (64, 3, 7, 7)),
            ("layer1.0.conv2.weight", (128, 128, 3, 3)),
            ("layer1.0.downsample.0.weight", (256, 64, 1, 1)),
            ("layer3.5.bn3.running_var", (1024,)),
            ("fc.weight", (1000, 2048)),
        ):
            self.assertEqual(tuple(state[name].shape), shape, name)
        self.assertNotIn("layer1.0.downsample.0.bias", state)

    def test_unknown_name(self):
        with self.assertRaisesRegex(ValueError, r"name must be one of \['resnet18', .* got 'resnet19'"):
            make_resnet("resnet19")


class TestFeatureBackbone(unittest.TestCase):
    def test_random_is_the_random_start_of_none(self):
        states = []
        for weights in ("random", None):
            torch.manual_seed(0)
            states.append(FeatureBackbone("efficientnet_lite0", weights).state_dict())
        self.assertTrue(all(torch.equal(value, states[1][name]) for name, value in states[0].items()))

    def test_shapes_and_channels(self):
        expected = {
            "efficientnet_lite0": (24, 40, 112),
            "resnet18": (64, 128, 256),
            "resnet50": (256, 512, 1024),
            "wide_resnet50_2": (256, 512, 1024),
        }
        self.assertEqual(set(BACKBONES), set(expected))
        for name, channels in expected.items():
            with torch.device("meta"):
                backbone = FeatureBackbone(name, None)
                shapes = [tuple(m.shape) for m in backbone(torch.zeros(2, 3, 64, 32))]
            self.assertEqual(backbone.channels, channels)
            self.assertEqual(shapes, [(2, channels[i], 64 // s, 32 // s) for i, s in enumerate((4, 8, 16))], name)

    def test_taps_are_those_of_the_whole_network(self):
        with tempfile.TemporaryDirectory() as folder:
            trunk = make_resnet("resnet18").eval()
            torch.save(trunk.state_dict(), Path(folder) / "weights.pth")
            backbone = FeatureBackbone("resnet18", str(Path(folder) / "weights.pth"))
        seen = []
        for layer in (trunk.layer1, trunk.layer2, trunk.layer3):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        x = torch.randn(1, 3, 64, 64)
        trunk(x)
        for a, b in zip(backbone(x), seen, strict=True):
            torch.testing.assert_close(a, b)

    def test_frozen_whatever_happens(self):
        backbone = FeatureBackbone("efficientnet_lite0", None).train()
        self.assertFalse(any(m.training for m in backbone.modules()))
        self.assertFalse(any(p.requires_grad for p in backbone.parameters()))
        before = {k: v.clone() for k, v in backbone.state_dict().items()}
        backbone(torch.randn(4, 3, 32, 32))
        for name, value in backbone.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_default_weights_of_lite0_work_offline(self):
        with self.assertLogs("bundle.networks.trunks", "INFO") as logs:
            maps = FeatureBackbone()(torch.randn(1, 3, 32, 32))
        self.assertRegex(logs.output[0], "efficientnet_lite0: [1-9][0-9]+ tensors loaded, 0 missing")
        for m in maps:
            self.assertTrue(m.isfinite().all())
            self.assertGreater(m.std().item(), 0.1)

    def test_bfloat16_is_close_and_auto_asks_the_device(self):
        image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        exact = FeatureBackbone("resnet18", None).eval()
        for precision, able, half in (("bfloat16", False, True), ("auto", True, True), ("auto", False, False)):
            network = FeatureBackbone("resnet18", None, precision)
            network.load_state_dict(exact.state_dict())
            with mock.patch("bundle.networks.backbone.multiplies_bfloat16", return_value=able):
                for mine, reference in zip(network(image), exact(image), strict=True):
                    self.assertEqual(mine.dtype, torch.float32)
                    self.assertEqual(torch.equal(mine, reference), not half)
                    self.assertLess((mine - reference).abs().max(), 0.05 * reference.abs().max())
        with self.assertRaisesRegex(ValueError, "backbone_precision must be one of .*, got 'half'"):
            FeatureBackbone("resnet18", None, "half")

    def test_torchscript(self):
        backbone, x = FeatureBackbone("efficientnet_lite0", None), torch.randn(1, 3, 48, 32)
        for a, b in zip(torch.jit.script(backbone)(x), backbone(x), strict=True):
            torch.testing.assert_close(a, b)

    def test_weights_of_another_backbone(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.pth"
            torch.save(FeatureBackbone("efficientnet_lite0", None).state_dict(), path)
            with self.assertRaisesRegex(ValueError, r"'weights.pth' do not fit ResNet: \d+ tensors differ, first 'con"):
                FeatureBackbone("resnet18", str(path))

    def test_unknown_name(self):
        with self.assertRaisesRegex(ValueError, "backbone must be one of .* got 'vgg16'"):
            FeatureBackbone("vgg16")


if __name__ == "__main__":
    unittest.main()
