# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from bundle.localization.msa import MSA, MultiScaleAggregation
from bundle.networks.trunks import make_resnet

NETS = [partial(MSA, 3, "resnet18", weights=None), partial(MSA, 3, weights=None)]


class TestMapNetworks(unittest.TestCase):
    def test_shapes_for_any_input_size(self):
        for make in NETS:
            with self.subTest(net=make.func.__name__):
                net, plain = make().eval(), make(aggregate=False).eval()
                with torch.no_grad():
                    for rows, columns in ((64, 96), (72, 50)):
                        x = torch.zeros(1, 3, rows, columns)
                        self.assertEqual(net(x).shape, (1, 3, -(-rows // 16), -(-columns // 16)))
                        self.assertEqual(plain(x).shape, (1, 3, -(-rows // 32), -(-columns // 32)))

    def test_scripted_reloaded_and_single_images_agree(self):
        for make in NETS:
            with self.subTest(net=make.func.__name__):
                net, other = make(upsample="deconv").eval(), make(upsample="deconv").eval()
                other.load_state_dict(net.state_dict())
                x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
                with torch.no_grad():
                    expected = net(x)
                    torch.testing.assert_close(torch.jit.script(net)(x), expected)
                    torch.testing.assert_close(other(x), expected)
                    alone = torch.cat([net(x[:1]), net(x[1:])])
                    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-4)

    def test_every_parameter_gets_a_gradient_or_is_frozen(self):
        for make in NETS:
            with self.subTest(net=make.func.__name__):
                net = make(frozen=("shallow", "penultimate")).train()
                net(torch.rand(2, 3, 64, 64)).square().mean().backward()
                for name, parameter in net.named_parameters():
                    frozen = name.startswith(("shallow.", "penultimate."))
                    self.assertEqual(parameter.grad is None, frozen, name)
                self.assertFalse(any(m.training for m in net.penultimate.modules()))
                self.assertTrue(net.last.training)

    def test_parameter_count_of_resnet50(self):
        net = MSA(8, "resnet50", weights=None)
        trunk = 25_557_032 - (2048 * 1000 + 1000)
        head = (2048 * 512 + 512) + (1024 * 256 + 256) + 768 * 8
        self.assertEqual(sum(p.numel() for p in net.parameters()), trunk + head)

    def test_torchvision_weights_load_by_name(self):
        source = make_resnet("resnet18")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "resnet18.pth"
            torch.save(source.state_dict(), path)
            net = MSA(2, "resnet18", weights=str(path))
        torch.testing.assert_close(net.last[1].conv2.weight, source.layer4[1].conv2.weight)

    def test_packaged_weights_load(self):
        with self.assertLogs("bundle.networks.trunks", "INFO") as logs:
            MSA(2)
        self.assertIn("tensors loaded, 0 missing", logs.output[0])

    def test_atrous_stage_keeps_every_second_position(self):
        net = MSA(2, "resnet18", weights=None, aggregate=False).eval()
        atrous = MSA(2, "resnet18", weights=None, aggregate=False, atrous=True).eval()
        atrous.load_state_dict(net.state_dict())
        x = torch.rand(1, 3, 96, 96)
        with torch.no_grad():
            torch.testing.assert_close(atrous(x)[..., ::2, ::2], net(x), rtol=1e-3, atol=1e-4)

    def test_atrous_stage_of_efficientnet_lite(self):
        net = MSA(2, weights=None, aggregate=False).eval()
        atrous = MSA(2, weights=None, aggregate=False, atrous=True).eval()
        atrous.load_state_dict(net.state_dict())
        x = torch.rand(1, 3, 96, 96)
        with torch.no_grad():  # "same" padding of TensorFlow leaves the odd positions of an even side
            torch.testing.assert_close(atrous(x)[..., 1::2, 1::2], net(x), rtol=1e-3, atol=1e-5)

    def test_aggregation_equals_the_paper_s_order(self):
        block = MultiScaleAggregation(4, 6)
        penultimate, last = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)
        # enlarging before or after the 1x1 convolution is the same
        large = block.reduce_last(F.interpolate(last, scale_factor=2.0, mode="bilinear"))
        expected = torch.cat([large, block.reduce_penultimate(penultimate)], dim=1)
        torch.testing.assert_close(block(penultimate, last), expected, rtol=1e-4, atol=1e-5)

    def test_unknown_arguments(self):
        with self.assertRaisesRegex(
            ValueError, r"backbone must be one of \['efficientnet_lite0', 'resnet18', 'resnet50'\], got 'vgg'"
        ):
            MSA(2, "vgg")
        with self.assertRaisesRegex(ValueError, "upsample must be 'bilinear' or 'deconv', got 'nearest'"):
            MultiScaleAggregation(4, 6, "nearest")
        with self.assertRaisesRegex(ValueError, "frozen must name stages among .* got .'layer3'."):
            MSA(2, weights=None, frozen=("layer3",))


if __name__ == "__main__":
    unittest.main()
