# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import unittest

import torch
import torch.nn.functional as F

from bundle.anomaly import ADFA
from bundle.anomaly.adfa import PatchDescriptor


def _network(**arguments) -> ADFA:
    torch.manual_seed(0)
    settings = {"image_size": (32, 48), "weights": None, "descriptor_channels": 8, **arguments}
    network = ADFA.paper(**settings)
    network.center_bank.set_centers(torch.randn_like(network.center_bank.centers))
    return network


class TestPatchDescriptor(unittest.TestCase):
    def test_size_of_the_paper(self):
        with torch.device("meta"):
            descriptor = PatchDescriptor((256, 512, 1024), None)
        self.assertEqual(tuple(descriptor.projection.weight.shape), (448, 1794, 1, 1))

    def test_hand_computed_coordinates(self):
        # zero maps, and a projection that passes the two coordinate channels on
        descriptor = PatchDescriptor((1,), 2, attention_weight=0)
        descriptor.projection.weight.data = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])[..., None, None]
        torch.nn.init.zeros_(descriptor.projection.bias)
        out = descriptor([torch.zeros(1, 1, 2, 3)])[0]
        self.assertEqual(out[0].tolist(), [[-1, -1, -1], [1, 1, 1]])
        self.assertEqual(out[1].tolist(), [[-1, 0, 1], [-1, 0, 1]])

    def test_equals_projecting_the_concatenation(self):
        channels = (24, 40, 112)
        maps = [torch.randn(2, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate(channels)]
        for pool_size in (1, 3):
            descriptor = PatchDescriptor(channels, None, pool_size=pool_size)
            pooled = [F.avg_pool2d(m, pool_size, 1, pool_size // 2) for m in maps]
            large = [F.interpolate(m, size=(16, 24), mode="bilinear", align_corners=False) for m in pooled]
            rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 24), indexing="ij")
            x = torch.cat([*large, torch.stack([rows, columns]).expand(2, 2, 16, 24)], dim=1)
            expected = descriptor.attention(descriptor.projection(x))
            torch.testing.assert_close(descriptor(maps), expected, atol=1e-4, rtol=0)

    def test_the_kept_product_follows_its_factors(self):
        descriptor, maps = PatchDescriptor((4,), 3), [torch.randn(1, 4, 6, 5)]
        changes = (
            lambda: descriptor.whiten(torch.ones(4), torch.eye(4) + 0.3),
            lambda: descriptor.load_state_dict({k: v + 0.5 for k, v in descriptor.state_dict().items()}),
            lambda: torch.optim.SGD(descriptor.parameters(), 1.0).step(),
            lambda: torch.optim.AdamW(descriptor.parameters(), 0.1, fused=True).step(),
        )
        for change in changes:
            with torch.no_grad():
                descriptor(maps)
            descriptor(maps).sum().backward()
            change()
            expected = descriptor(maps).detach()  # with gradients, so nothing is kept
            for guard in (torch.no_grad(), torch.inference_mode()):
                with guard:
                    torch.testing.assert_close(descriptor(maps), expected)
                    torch.testing.assert_close(copy.deepcopy(descriptor)(maps), expected)

    def test_gradcheck(self):
        descriptor = PatchDescriptor((2, 3), 4).double()
        maps = [torch.randn(1, c, s, s, dtype=torch.double, requires_grad=True) for c, s in ((2, 4), (3, 2))]
        self.assertTrue(torch.autograd.gradcheck(lambda *m: descriptor(list(m)), maps))


class TestADFA(unittest.TestCase):
    def test_shapes(self):
        network = _network()
        x = torch.randn(3, 3, 32, 48)
        self.assertEqual(network(x).shape, (3, 1, 8, 12))
        self.assertEqual(network.describe(x).shape, (3, 96, 8))
        self.assertEqual(network.center_bank.centers.shape, (96, 8))

    def test_the_map_keeps_the_order_of_positions(self):
        # one channel, hard nearest center at 0: the map is the absolute feature at each position
        network = _network(descriptor_channels=1, k=1, epsilon=0)
        network.center_bank.set_centers(torch.zeros(96, 1))
        x = torch.randn(1, 3, 32, 48)
        expected = network.descriptor(network.backbone(x)).abs()
        torch.testing.assert_close(network(x), expected.clamp_min(1e-6), atol=1e-5, rtol=1e-4)

    def test_batch_equals_single_images(self):
        network = _network().eval()
        x = torch.randn(3, 3, 32, 48) * torch.tensor([1.0, 5.0, 0.1])[:, None, None, None]
        with torch.no_grad():
            singles = torch.cat([network(image[None]) for image in x])
            torch.testing.assert_close(network(x), singles, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(network.train()(x), singles, atol=1e-5, rtol=1e-4)  # the same in training

    def test_torchscript(self):
        for epsilon in (0.1, 0.0):
            network, x = _network(epsilon=epsilon).eval(), torch.randn(2, 3, 32, 48)
            torch.testing.assert_close(torch.jit.script(network)(x), network(x))

    def test_state_dict_round_trip(self):
        network, other, x = _network(), _network(), torch.randn(1, 3, 32, 48)
        torch.nn.init.zeros_(other.descriptor.projection.weight)
        other.center_bank.centers.zero_()
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(x), network(x))
        self.assertIn("center_bank.centers", network.state_dict())

    def test_every_parameter_gets_a_gradient_or_is_frozen(self):
        for weight in (0.1, 0.0):
            network = _network(attention_weight=weight)
            network(torch.randn(2, 3, 32, 48)).mean().backward()
            for name, parameter in network.named_parameters():
                got = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
                self.assertEqual(got, parameter.requires_grad, name)
                frozen = name.startswith("backbone.") or (weight == 0 and "attention" in name)
                self.assertEqual(parameter.requires_grad, not frozen, name)

    def test_training_lowers_the_distances(self):
        network, x = _network(), torch.randn(4, 3, 32, 48)
        optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01, amsgrad=True)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = network(x).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], losses[0])

    def test_rejects_bad_sizes(self):
        for size in ((30, 32), (32,), (0, 32)):
            with self.assertRaisesRegex(ValueError, r"image_size must be two multiples of 16, got \["):
                ADFA(image_size=size, weights=None)


if __name__ == "__main__":
    unittest.main()
