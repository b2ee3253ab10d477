# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import tempfile
import unittest
from pathlib import Path

import torch

from bundle.classification.attention_lite import AttentionLite0
from bundle.classification.sna_densenet import SNADenseNet
from bundle.classification.sna_resnet import SNAResNet

M = 2**20


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestParameterCounts(unittest.TestCase):
    # torchvision's exact counts; the paper's tables round them up in units of 2^20 (Tables 1 and 2), see docs/sna.md
    def test_resnet18_with_100_classes(self):
        for attention, count in ((None, 11_227_812), ("sna", 11_227_812), ("se", 11_316_892)):
            self.assertEqual(_count(SNAResNet(100, 18, attention=attention)), count)
        self.assertAlmostEqual(11_227_812 / M, 10.71, delta=0.005)
        self.assertAlmostEqual(11_316_892 / M, 10.80, delta=0.01)

    def test_resnet50_with_1000_classes(self):
        counts = {
            None: (25_557_032, 24.38),
            "se": (28_088_024, 26.79),
            "eca": (25_557_118, 24.38),
            "sna": (25_557_032, 24.38),
        }
        for attention, (count, paper) in counts.items():
            self.assertEqual(_count(SNAResNet(1000, 50, attention=attention)), count)
            self.assertAlmostEqual(count / M, paper, delta=0.01)

    def test_densenet121_with_100_classes(self):
        for attention in (None, "sna"):
            self.assertEqual(_count(SNADenseNet(100, 121, attention=attention)), 7_056_356)
        self.assertAlmostEqual(7_056_356 / M, 6.73, delta=0.005)  # the paper prints 6.74

    def test_imagenet_counts_of_torchvision(self):
        self.assertEqual(_count(SNADenseNet(1000, 121, attention=None)), 7_978_856)
        self.assertEqual(_count(SNADenseNet(1000, 169, attention=None)), 14_149_480)


class TestNets(unittest.TestCase):
    def make(self, attention: str | None, **kwargs):
        size = (64, 64)
        return (
            SNAResNet(3, 18, image_size=size, attention=attention, **kwargs),
            SNADenseNet(3, 121, image_size=size, attention=attention, **kwargs),
        )

    def test_batch_scripted_and_single_images_agree(self):
        x = torch.rand(2, 3, 64, 48)
        for attention, placement in (("sna", "both"), ("ppcr", None)):
            for network in self.make(attention, placement=placement):
                network.eval()
                y = network(x)
                self.assertEqual(y.shape, (2, 3))
                torch.testing.assert_close(torch.cat([network(i[None]) for i in x]), y, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(torch.jit.script(network)(x), y, atol=1e-4, rtol=1e-4)

    def test_state_dict_round_trip_and_gradients(self):
        network, other = (
            SNAResNet(3, image_size=(32, 32), attention="cbam"),
            SNAResNet(3, image_size=(32, 32), attention="cbam"),
        )
        network(torch.rand(2, 3, 64, 64)).sum().backward()
        self.assertEqual([k for k, p in network.named_parameters() if p.grad is None], [])
        other.load_state_dict(network.state_dict())
        x = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(other.eval()(x), network.eval()(x))

    def test_twin_without_attention_has_the_same_names(self):
        for plain, sna in zip(self.make(None), self.make("sna"), strict=True):
            self.assertEqual(list(plain.state_dict()), list(sna.state_dict()))

    def test_torchvision_weights_load_by_name(self):
        # the names of torchvision's files: DenseNet without MONAI's "layers", "norm.1" in the first versions
        for plain, gated in zip(self.make(None), self.make("se"), strict=True):
            state = {
                k.replace(".layers.", ".").replace("class_layers.out", "classifier"): v
                for k, v in plain.state_dict().items()
            }
            state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in state.items()}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "weights.pth"
                torch.save(state, path)
                loaded = type(gated)(5, attention="se", image_size=(64, 64), weights=str(path))
            own = loaded.state_dict()
            for key, value in plain.state_dict().items():
                if not key.startswith(("fc.", "class_layers.")):
                    self.assertTrue(torch.equal(own[key], value), key)

    def test_attention_map(self):
        network = SNAResNet(2, attention="sna").eval()
        features = torch.rand(1, 64, 8, 8)
        self.assertEqual(network.maxpool[1].attention(features).shape, (1, 1, 8, 8))

    def test_unknown_depth_and_block(self):
        for net in (SNAResNet, SNADenseNet):
            with self.assertRaisesRegex(ValueError, "depth must be one of .* got 19"):
                net(2, depth=19)
            with self.assertRaisesRegex(ValueError, "attention must be one of .*'ppcr'.* got 'x'"):
                net(2, attention="x")


class TestAttentionLite0(unittest.TestCase):
    def test_shape_script_and_single_images(self):
        network, x = AttentionLite0(3, attention="sna", weights=None).eval(), torch.rand(2, 3, 64, 48)
        y = network(x)
        torch.testing.assert_close(torch.cat([network(i[None]) for i in x]), y, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.jit.script(network)(x), y)

    def test_frozen_part_stays(self):
        network = AttentionLite0(2, attention="se", image_size=(64, 64)).train()
        before = {k: v.clone() for k, v in network.frozen.state_dict().items()}
        network(torch.rand(4, 3, 64, 64)).sum().backward()
        for key, value in network.frozen.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)
        missing = {k.split(".")[0] for k, p in network.named_parameters() if p.grad is None}
        self.assertEqual(missing, {"frozen"})

    def test_batch_statistics_follow_a_small_data_set(self):
        network = AttentionLite0(2, weights=None)
        momenta = {m.momentum for m in network.tuned.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        self.assertEqual(momenta, {0.1})  # 0.01 as in the trunk kept ImageNet's statistics: AUROC 1, accuracy 0.5

    def test_features_then_classify_is_forward(self):
        network, x = (
            AttentionLite0(2, attention="eca", frozen_stages=3, weights=None).eval(),
            torch.rand(1, 3, 64, 64),
        )
        torch.testing.assert_close(network.classify(network.frozen_features(x)), network(x))

    def test_bad_stage(self):
        with self.assertRaisesRegex(ValueError, r"frozen_stages must be in \[1, 6\], got 7"):
            AttentionLite0(2, frozen_stages=7)


if __name__ == "__main__":
    unittest.main()
