# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math
import unittest

import numpy as np
import torch

from bundle.anomaly.topk import soft_topk, soft_topk_reference
from bundle.anomaly.topk.weights import solve_weights

EPSILONS = (0.5, 0.1, 0.02, 0.01, 1e-3)


def sinkhorn(distances: torch.Tensor, k: int, epsilon: float, scale: float = 1.0, sweeps: int = 200_000) -> np.ndarray:
    """Return the SOFT top-k weights by Sinkhorn sweeps in the log domain, and insist that they have converged."""
    d = distances.double().numpy()
    n = d.shape[-1]
    near, far = -(d**2) / (scale * epsilon), -((d - 1) ** 2) / (scale * epsilon)  # log kernels of anchors 0 and 1
    mass = np.log([k / n, (n - k) / n])
    g = np.zeros((2, d.shape[0], 1))
    for _ in range(sweeps):
        f = -math.log(n) - np.logaddexp(g[0] + near, g[1] + far)
        old = g
        columns = [np.logaddexp.reduce(f + kernel, axis=-1, keepdims=True) for kernel in (near, far)]
        g = np.stack([mass[j] - columns[j] for j in (0, 1)])
        if np.abs(g - old).max() < 1e-14 * max(1, np.abs(g).max()):
            break
    weights = n * np.exp(f + g[0] + near)
    assert np.abs(weights.sum(-1) - k).max() < 1e-11, "the reference has not converged"
    return weights


def rows(epsilon: float, dtype: torch.dtype) -> torch.Tensor:
    """Return rows whose k-th gap is as wide as epsilon: Sinkhorn needs forever where the gap is much wider."""
    generator = torch.Generator().manual_seed(0)
    near = 0.5 + 2 * epsilon * torch.rand(4, 5, generator=generator, dtype=torch.double)
    rest = torch.tensor([0.2, 0.45, 0.9, 1.4], dtype=torch.double).expand(4, 4)
    return torch.cat([near, rest], dim=-1)[:, torch.randperm(9, generator=generator)].to(dtype)


def _weights(d: torch.Tensor, k: int, rate: torch.Tensor, max_steps: int = 64) -> torch.Tensor:
    y, a, _ = solve_weights(d, k, rate, max_steps)
    return y * a


class TestSoftTopK(unittest.TestCase):
    def test_hand_computed_value(self):
        # two distances, k = 1: logits (b, b - 2 * 0.05 / 0.1) and Z_1 + Z_2 = 1 give b = 0.5, so Z = sigmoid(+-0.5)
        out = soft_topk(torch.tensor([0.0, 0.05]), 1, 0.1)
        torch.testing.assert_close(out, torch.tensor([0.5, -0.5]).sigmoid())

    def test_equals_converged_sinkhorn(self):
        for epsilon, k in itertools.product(EPSILONS, (3, 5)):
            for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
                with self.subTest(epsilon=epsilon, k=k, dtype=dtype):
                    d = rows(epsilon, dtype)
                    error = np.abs(soft_topk(d, k, epsilon).double().numpy() - sinkhorn(d, k, epsilon)).max()
                    self.assertLess(error, tolerance)

    def test_equals_the_reference_and_its_gradient(self):
        generator = torch.Generator().manual_seed(6)
        for (n, k), epsilon, scale in itertools.product(((5, 1), (9, 3), (700, 40)), EPSILONS, (1.0, 0.3)):
            d = torch.rand(4, n, generator=generator, dtype=torch.double).requires_grad_()
            upstream = torch.rand(4, n, generator=generator, dtype=torch.double)
            both = [function(d, k, epsilon, scale) for function in (soft_topk, soft_topk_reference)]
            torch.testing.assert_close(*both, rtol=0, atol=1e-10)
            gradients = [torch.autograd.grad((z * upstream).sum(), d)[0] * epsilon * scale for z in both]
            torch.testing.assert_close(*gradients, rtol=0, atol=1e-8)

    def test_the_reference_equals_converged_sinkhorn(self):
        for epsilon, k in itertools.product(EPSILONS, (3, 5)):
            d = rows(epsilon, torch.float64)
            np.testing.assert_allclose(soft_topk_reference(d, k, epsilon), sinkhorn(d, k, epsilon), rtol=0, atol=1e-9)

    def test_scale_as_number_and_as_tensor_a_row(self):
        d = rows(0.1, torch.float64)
        expected = sinkhorn(d, 3, 0.1, 2.5)
        for scale in (2.5, torch.tensor(2.5), torch.full((4, 1), 2.5), torch.full((4, 1), 2.5, dtype=torch.float64)):
            np.testing.assert_allclose(soft_topk(d, 3, 0.1, scale).numpy(), expected, atol=1e-9)
        own = soft_topk(d, 3, 0.1, torch.tensor([[1.0], [2.5], [1.0], [2.5]]))
        torch.testing.assert_close(own[0], soft_topk(d[0], 3, 0.1, 1.0))
        torch.testing.assert_close(own[1], soft_topk(d[1], 3, 0.1, 2.5))

    def test_approaches_the_hard_topk(self):
        d = torch.rand(16, 50, generator=torch.Generator().manual_seed(1))
        hard = torch.zeros_like(d).scatter(1, d.topk(4, largest=False).indices, 1.0)
        errors = [(soft_topk(d, 4, epsilon) - hard).abs().max().item() for epsilon in (1.0, 0.1, 1e-6, 1e-12)]
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertLess(errors[2], 1e-5)
        self.assertEqual(errors[3], 0)

    def test_sums_to_k_whatever_the_values(self):
        generator = torch.Generator().manual_seed(2)
        for spread, epsilon in itertools.product((1e-6, 1.0, 1e4), (1.0, 0.1, 1e-3, 1e-6)):
            d = spread * torch.rand(8, 300, generator=generator, dtype=torch.double) ** 4
            for k in (1, 3, 150, 299):
                total = soft_topk(d, k, epsilon).sum(-1)
                torch.testing.assert_close(total, torch.full_like(total, k), rtol=1e-9, atol=0)

    def test_ties_and_constant_rows(self):
        tied = soft_topk(torch.tensor([0.1, 0.4, 0.4, 0.9]), 2, 0.01)
        torch.testing.assert_close(tied, torch.tensor([1.0, 0.5, 0.5, 0.0]))
        for value, epsilon in itertools.product((0.0, 7.0, 1e6), (0.5, 1e-6)):
            torch.testing.assert_close(soft_topk(torch.full((2, 8), value), 3, epsilon), torch.full((2, 8), 3 / 8))

    def test_k_equal_to_n(self):
        d = torch.tensor([0.3, math.inf, -1.0], requires_grad=True)
        out = soft_topk(d, 3, 0.1)
        torch.testing.assert_close(out, torch.ones(3))
        self.assertEqual(torch.autograd.grad(out.sum(), d)[0].tolist(), [0, 0, 0])

    def test_infinities_get_nothing(self):
        d = torch.tensor([0.2, 0.1, math.inf, 0.4, math.inf])
        out = soft_topk(d, 2, 0.1)
        torch.testing.assert_close(out[[0, 1, 3]], soft_topk(d[[0, 1, 3]], 2, 0.1))
        self.assertEqual(out[[2, 4]].tolist(), [0, 0])

    def test_fewer_than_k_finite(self):
        inf = math.inf
        d = torch.tensor([[5.0, inf, inf, 1e4, inf], [inf] * 5, [0.1, 0.2, 0.3, 0.4, inf]], requires_grad=True)
        out = soft_topk(d, 3, 0.1)
        self.assertEqual(out[:2].tolist(), [[1, 0, 0, 1, 0], [0] * 5])
        self.assertAlmostEqual(out[2].sum().item(), 3, places=5)
        (gradient,) = torch.autograd.grad(out[:, 0].sum(), d)
        self.assertEqual(gradient[:2].abs().max().item(), 0)

    def test_nan_stays_in_its_row(self):
        d = torch.rand(3, 6)
        d[1, 4] = math.nan
        out = soft_topk(d, 2, 0.1)
        self.assertTrue(out[1].isnan().all())
        torch.testing.assert_close(out[[0, 2]], soft_topk(d[[0, 2]], 2, 0.1))

    def test_half_types_are_computed_in_float32(self):
        d = torch.rand(4, 40).bfloat16().requires_grad_()
        out = soft_topk(d, 3, 0.1)
        self.assertEqual(out.dtype, torch.bfloat16)
        torch.testing.assert_close(out, soft_topk(d.float(), 3, 0.1).bfloat16())
        self.assertEqual(torch.autograd.grad(out[:, 0].sum(), d)[0].dtype, torch.bfloat16)

    def test_gradcheck(self):
        d = torch.rand(2, 3, 7, dtype=torch.double, generator=torch.Generator().manual_seed(3)).requires_grad_()
        for k, epsilon in ((1, 0.5), (3, 0.1), (6, 0.3)):
            self.assertTrue(torch.autograd.gradcheck(lambda x, k=k, e=epsilon: soft_topk(x, k, e, 1.5), (d,)))
        scale = torch.full((2, 3, 1), 0.7)
        self.assertTrue(torch.autograd.gradcheck(lambda x: soft_topk(x, 2, 0.2, scale), (d,)))

    def test_no_weight_is_further_off_than_the_sum(self):
        # the bound that says when to stop: all weights are off to the same side
        generator = torch.Generator().manual_seed(4)
        for power, epsilon in itertools.product((0.3, 1.0, 4.0), (0.5, 0.1, 0.01, 1e-3)):
            d = torch.rand(20, 500, generator=generator, dtype=torch.double) ** power
            rate = torch.full((20, 1), 2 / epsilon, dtype=torch.double)
            exact, rough = _weights(d, 3, rate), _weights(d, 3, rate, max_steps=1)
            off = (rough - exact).abs()
            torch.testing.assert_close(off.sum(-1), (rough.sum(-1) - 3).abs(), atol=1e-9, rtol=0)
            self.assertLess((_weights(d.float(), 3, rate.float()) - exact).abs().max().item(), 1e-5)

    def test_two_passes_suffice_in_float32(self):
        generator = torch.Generator().manual_seed(5)
        for power, epsilon in itertools.product((0.3, 1.0, 4.0), (0.5, 0.1, 0.02, 0.01, 1e-3, 1e-4)):
            d = torch.rand(64, 3136, generator=generator) ** power
            total = _weights(d, 3, torch.full((64, 1), 2 / epsilon), max_steps=2).sum(-1)
            self.assertLess((total - 3).abs().max().item(), 1e-5, (power, epsilon))

    def test_torchscript(self):
        d = torch.rand(3, 9)
        torch.testing.assert_close(torch.jit.script(soft_topk)(d, 2, 0.1), soft_topk(d, 2, 0.1))

    def test_a_traced_graph_solves_each_row_alone(self):
        class Weights(torch.nn.Module):
            def forward(self, d: torch.Tensor) -> torch.Tensor:
                return _weights(d, 2, torch.full_like(d[:, :1], 8), max_steps=6)

        torch.manual_seed(0)
        rows = torch.export.Dim("rows", min=1, max=64)
        graph = torch.export.export(Weights(), (torch.rand(3, 7),), dynamic_shapes=({0: rows},)).module()
        d = torch.rand(20, 7)
        torch.testing.assert_close(graph(d), _weights(d, 2, torch.full((20, 1), 8.0)), atol=1e-6, rtol=1e-5)

    def test_rejects_bad_arguments(self):
        d = torch.rand(2, 4)
        for k in (0, 5):  # n < k is an error, not a silent k = n
            with self.assertRaisesRegex(ValueError, rf"k must be in \[1, 4\] for rows of 4 distances, got {k}"):
                soft_topk(d, k, 0.1)
        for epsilon in (0.0, -1.0, math.nan):
            with self.assertRaisesRegex(ValueError, "epsilon must be above 0, got"):
                soft_topk(d, 1, epsilon)
        with self.assertRaisesRegex(ValueError, "scale must be above 0, got -2.0"):
            soft_topk(d, 1, 0.1, -2.0)


if __name__ == "__main__":
    unittest.main()
