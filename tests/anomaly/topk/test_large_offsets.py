# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Features that share a large offset: in float32, squares of 1e6 leave nothing of a difference of 0.1.

What is expected is the plain difference in float64, from PyTorch's ``cdist`` without its expansion, ``cov`` or a solve.
"""

from __future__ import annotations

import unittest

import torch

from bundle.anomaly.adfa import PatchDescriptor
from bundle.anomaly.padim import PaDiM
from bundle.anomaly.patch_memory import PatchMemory
from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.anomaly.topk import euclidean_distances, soft_topk, soft_topk_distance, squared_distances
from bundle.anomaly.topk.distance import COST_SCALES, cost_scale
from bundle.anomaly.whitening import whitening_matrix

OFFSETS = (0.0, 1e3, -1e5)


def features(*shape: int, offset: float, seed: int = 0) -> torch.Tensor:
    """Return float32 features of spread 0.1 around an offset that differs a little by channel, the last dimension."""
    generator = torch.Generator().manual_seed(seed)
    return offset * (1 + 0.1 * torch.arange(shape[-1]) / shape[-1]) + 0.1 * torch.randn(shape, generator=generator)


def exact(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Return Euclidean distances in float64, from differences."""
    wide = patches.detach().double(), centers.double().expand(len(patches), -1, -1)
    return torch.cdist(*wide, compute_mode="donot_use_mm_for_euclid_dist")


class TestDistancesFarFromZero(unittest.TestCase):
    def test_distances(self):
        for offset in OFFSETS:
            p, c = features(2, 40, 176, offset=offset), features(60, 176, offset=offset, seed=1)
            expected = exact(p, c)
            torch.testing.assert_close(euclidean_distances(p, c).double(), expected, rtol=1e-5, atol=0)
            torch.testing.assert_close(squared_distances(p, c).double(), expected.square(), rtol=1e-5, atol=0)

    def test_half_precision_loses_only_what_it_cannot_hold(self):
        for dtype in (torch.float16, torch.bfloat16):
            # 1000 is exact in both types, and the spread about one of their steps; one center far from the others
            p, c = (features(2, 9, 32, offset=1e3).to(dtype), features(7, 32, offset=1e3, seed=1).to(dtype))
            c[0] += 40
            expected = exact(p, c)
            self.assertGreater(expected.max().item(), 1)
            torch.testing.assert_close(euclidean_distances(p, c).double(), expected.clamp_min(1e-6), rtol=1e-3, atol=0)
            nearest = soft_topk_distance(p, c, 3, 0.0).double()
            torch.testing.assert_close(nearest, expected.sort().values[..., :3].sum(-1), rtol=1e-3, atol=1e-3)

    def test_autocast_takes_no_digits(self):
        p, c = features(2, 9, 32, offset=1e3), features(20, 32, offset=1e3, seed=1)
        expected = exact(p, c)
        x = p.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(euclidean_distances(p, c).double(), expected, rtol=1e-5, atol=0)
            out = soft_topk_distance(x, c, 3, 0.02)
            out.sum().backward()
        (plain,) = torch.autograd.grad(soft_topk_distance(y := p.clone().requires_grad_(), c, 3, 0.02).sum(), y)
        torch.testing.assert_close(x.grad, plain, rtol=0, atol=0)

    def test_soft_topk_distance_and_its_gradient(self):
        for offset in OFFSETS:
            for scale in COST_SCALES:
                for epsilon in (0.0, 0.02, 0.5):
                    with self.subTest(offset=offset, scale=scale, epsilon=epsilon):
                        p, c = features(2, 20, 32, offset=offset), features(30, 32, offset=offset, seed=1)
                        d = exact(p, c)
                        if epsilon:
                            expected = (soft_topk(d, 3, epsilon, cost_scale(d, scale)) * d).sum(-1)
                        else:
                            expected = d.sort().values[..., :3].sum(-1)
                        p.requires_grad_()
                        out = soft_topk_distance(p, c, 3, epsilon, scale)
                        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=0)
                        (gradient,) = torch.autograd.grad(out.sum(), p)
                        wide = p.detach().double() - c.double().mean(dim=0)
                        wide.requires_grad_()
                        centered = c.double() - c.double().mean(dim=0)
                        (true,) = torch.autograd.grad(soft_topk_distance(wide, centered, 3, epsilon, scale).sum(), wide)
                        torch.testing.assert_close(gradient.double(), true, rtol=1e-2, atol=1e-3)


class TestWhatIsFittedFarFromZero(unittest.TestCase):
    def test_whitening_and_descriptor(self):
        x = features(20, 8, 8, 6, offset=1e3).permute(0, 3, 1, 2)  # (B, D, h, w)
        found = PatchStatistics.of(x)
        rows = x.double().permute(1, 0, 2, 3).flatten(1)
        covariance = torch.cov(rows, correction=0)
        torch.testing.assert_close(found.covariance(False), covariance, rtol=1e-6, atol=1e-8)

        torch.manual_seed(0)
        descriptor = PatchDescriptor([6], 0, attention_weight=0, pool_size=1)
        descriptor.start_whitened(found.mean(), found.covariance(False))
        matrix = whitening_matrix(covariance)
        expected = (matrix @ (rows - descriptor.feature_mean.double()[:, None])).view(6, 20, 8, 8).transpose(0, 1)
        self.assertLess((expected.std() - 1).abs().item(), 0.1)
        torch.testing.assert_close(descriptor([x]).double(), expected, rtol=0, atol=2e-5)

    def test_padim(self):
        network = PaDiM((16, 16), weights=None)
        channels = network.backbone.channels
        normal, new = ([features(b, 2, 2, c, offset=1e3, seed=b).permute(0, 3, 1, 2) for c in channels] for b in (9, 3))
        network.fit_features([[m[:4] for m in normal], [m[4:] for m in normal]])
        x, y = (torch.cat(maps, dim=1).flatten(2).permute(2, 0, 1).double() for maps in (normal, new))
        for position in range(4):
            covariance = torch.cov(x[position].T) + 0.01 * torch.eye(sum(channels), dtype=torch.double)
            deviation = y[position] - x[position].mean(dim=0)
            expected = (deviation @ torch.linalg.inv(covariance) * deviation).sum(-1).sqrt()
            out = network.distances(new).flatten(1)[:, position]
            torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=0)

    def test_patch_memory(self):
        network = PatchMemory((16, 16), memory_size=12, weights=None, pool_size=1)
        normal, new = (
            [features(b, 2, 2, c, offset=1e3, seed=b).permute(0, 3, 1, 2) for c in network.backbone.channels]
            for b in (3, 2)
        )
        network.fit_features([normal])
        rows = torch.cat(new, dim=1).flatten(2).transpose(1, 2)
        expected = exact(rows, network.patches).amin(dim=-1)
        torch.testing.assert_close(network.distances(new).flatten(1).double(), expected, rtol=1e-5, atol=0)


if __name__ == "__main__":
    unittest.main()
