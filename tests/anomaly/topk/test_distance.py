# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import unittest

import torch

from bundle.anomaly.topk import soft_topk, soft_topk_distance_reference
from bundle.anomaly.topk.distance import COST_SCALES, cost_scale, soft_topk_distance


def _features(dtype: torch.dtype = torch.double) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 7, 4, generator=generator, dtype=dtype)
    return patches, torch.randn(11, 4, generator=generator, dtype=dtype)


def reference(patches: torch.Tensor, centers: torch.Tensor, k: int, epsilon: float, scale: str) -> torch.Tensor:
    """Return the equation, which for all centers is the plain sum."""
    if k == len(centers):
        return torch.cdist(patches, centers.expand(len(patches), -1, -1)).sum(-1)
    return soft_topk_distance_reference(patches, centers, k, epsilon, scale)


class TestCostScale(unittest.TestCase):
    def test_hand_computed_values(self):
        d = torch.tensor([[0.2, 0.4], [1.0, 3.0]])
        torch.testing.assert_close(cost_scale(d, "row_mean"), torch.tensor([[0.6], [4.0]]))
        torch.testing.assert_close(cost_scale(d, "row_max"), torch.tensor([[0.64], [9.0]]))  # (0.2 - 1)^2 and 3^2
        torch.testing.assert_close(cost_scale(d, "batch_max"), torch.tensor([[9.0], [9.0]]))

    def test_row_mean_makes_the_weights_free_of_units(self):
        d = torch.rand(3, 20)
        expected = soft_topk(d, 3, 0.1, cost_scale(d, "row_mean"))
        torch.testing.assert_close(soft_topk(40 * d, 3, 0.1, cost_scale(40 * d, "row_mean")), expected)

    def test_a_row_of_zeros_keeps_it_above_zero(self):
        for mode in COST_SCALES:
            self.assertGreater(cost_scale(torch.zeros(1, 3), mode).item(), 0)

    def test_unknown_mode(self):
        with self.assertRaisesRegex(ValueError, "scale must be row_mean, row_max or batch_max, got 'mean'"):
            cost_scale(torch.ones(1, 2), "mean")


class TestSoftTopKDistance(unittest.TestCase):
    def test_half_precision_is_widened(self):
        patches, centers = (x.half() for x in _features())
        patches[0, 0] = centers[0]  # a distance of 0, whose root has no gradient
        for epsilon in (0.0, 0.1):
            x = patches.clone().requires_grad_()
            out = soft_topk_distance(x, centers, 3, epsilon)
            torch.testing.assert_close(out, soft_topk_distance(patches.float(), centers.float(), 3, epsilon))
            out.sum().backward()
            self.assertTrue(x.grad.isfinite().all())

    def test_hand_computed_value(self):
        # distances 3, 4 and 5; the hard two smallest sum to 7; k = K is the plain sum
        patches, centers = torch.zeros(1, 1, 2), torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]])
        for k, epsilon, expected in ((2, 0.0, 7.0), (2, 1e-4, 7.0), (3, 0.1, 12.0)):
            torch.testing.assert_close(soft_topk_distance(patches, centers, k, epsilon), torch.tensor([[expected]]))

    def test_equals_the_reference_for_every_block_size(self):
        patches, centers = _features()
        for scale, epsilon, k in itertools.product(COST_SCALES, (0.0, 0.5, 0.02), (1, 3, 11)):
            expected = reference(patches, centers, k, epsilon, scale)
            for block in (0, 1, 4, 100):
                with self.subTest(scale=scale, epsilon=epsilon, k=k, block=block):
                    torch.testing.assert_close(soft_topk_distance(patches, centers, k, epsilon, scale, block), expected)

    def test_gradient_equals_that_of_the_reference(self):
        weight = torch.rand(2, 7, dtype=torch.double)
        for scale, epsilon, k in itertools.product(COST_SCALES, (0.0, 0.5, 0.02), (1, 3, 11)):
            with self.subTest(scale=scale, epsilon=epsilon, k=k):
                gradients = []
                for function in (reference, lambda *arguments: soft_topk_distance(*arguments, 3)):
                    patches, centers = _features()
                    patches.requires_grad_()
                    out = (function(patches, centers, k, epsilon, scale) * weight).sum()
                    gradients.append(torch.autograd.grad(out, patches)[0])
                torch.testing.assert_close(*gradients)

    def test_gradcheck(self):
        # only the hard sum: the soft one treats its scale as a constant, which finite differences do not
        patches, centers = _features()
        patches.requires_grad_()
        self.assertTrue(torch.autograd.gradcheck(lambda p: soft_topk_distance(p, centers, 3, 0.0), (patches,)))

    def test_one_image_does_not_change_another_unless_asked(self):
        patches, centers = _features()
        together = {
            mode: soft_topk_distance(patches * torch.tensor([1, 50])[:, None, None], centers, 3, 0.1, mode)[0]
            for mode in COST_SCALES
        }
        for mode, out in together.items():
            same = torch.allclose(out, soft_topk_distance(patches[0], centers, 3, 0.1, mode))
            self.assertEqual(same, mode != "batch_max", mode)

    def test_a_patch_on_its_center_has_a_finite_gradient(self):
        _, centers = _features(torch.float32)
        patches = centers[:5].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(soft_topk_distance(patches, centers, 1, 0.1).sum(), patches)
        self.assertTrue(gradient.isfinite().all())

    def test_torchscript(self):
        patches, centers = _features()
        for epsilon in (0.0, 0.1):
            out = torch.jit.script(soft_topk_distance)(patches, centers, 3, epsilon)
            torch.testing.assert_close(out, soft_topk_distance(patches, centers, 3, epsilon))

    def test_rejects_bad_arguments(self):
        patches, centers = _features()
        for k in (0, 12):
            with self.assertRaisesRegex(ValueError, rf"k must be in \[1, 11\] for 11 centers, got {k}"):
                soft_topk_distance(patches, centers, k, 0.1)
        with self.assertRaisesRegex(ValueError, "epsilon must be at least 0, got -0.1"):
            soft_topk_distance(patches, centers, 3, -0.1)
        with self.assertRaisesRegex(ValueError, "scale must be"):
            soft_topk_distance(patches, centers, 3, 0.1, "none")
        with self.assertRaisesRegex(ValueError, "must share C, got 3 and 4"):
            soft_topk_distance(patches[..., :3], centers, 3, 0.1)


if __name__ == "__main__":
    unittest.main()
