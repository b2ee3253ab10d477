# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bundle.localization.erasure import class_activation_maps, erased_logits, update_masks


def naive_erased_logits(features, masks, weight):
    """Eq. 1 and 2 as printed: the features are replicated and erased once per class."""
    erased = features[:, None] * masks[:, :, None]  # (B, C, D, H, W)
    return (erased.mean(dim=(-2, -1)) * weight[None]).sum(dim=-1)


class LargestTensor(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.numel())
        return out


class TestErasure(unittest.TestCase):
    def setUp(self):
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(2, 24, 8, 6, generator=generator).requires_grad_()
        self.weight = torch.randn(14, 24, generator=generator).requires_grad_()
        self.masks = torch.rand(2, 14, 8, 6, generator=generator) > 0.3

    def test_hand_computed_value(self):
        features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # D = 2, one row of two positions
        maps = class_activation_maps(features, torch.tensor([[10.0, 1.0]]))
        self.assertEqual(maps.flatten().tolist(), [13.0, 24.0])
        self.assertEqual(erased_logits(maps, torch.tensor([[[[0.0, 1.0]]]])).item(), 12.0)
        self.assertEqual(erased_logits(maps).item(), 18.5)

    def test_equals_the_naive_formula_and_its_gradients(self):
        labels = (torch.arange(28).view(2, 14) % 3 == 0).float()
        criterion = torch.nn.BCEWithLogitsLoss()  # Eq. 2 and 3: the mean over images and classes
        fast = erased_logits(class_activation_maps(self.features, self.weight), self.masks)
        slow = naive_erased_logits(self.features, self.masks.float(), self.weight)
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
        torch.testing.assert_close(criterion(fast, labels), criterion(slow, labels), rtol=0, atol=1e-5)
        fast_grads = torch.autograd.grad(criterion(fast, labels), (self.features, self.weight))
        slow_grads = torch.autograd.grad(criterion(slow, labels), (self.features, self.weight))
        for got, expected in zip(fast_grads, slow_grads, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

    def test_erased_features_never_exist(self):
        full = 2 * 14 * 24 * 8 * 6
        with LargestTensor() as naive:
            naive_erased_logits(self.features, self.masks.float(), self.weight).sum().backward()
        self.assertGreaterEqual(naive.numel, full)
        with LargestTensor() as ours:
            erased_logits(class_activation_maps(self.features, self.weight), self.masks).sum().backward()
        # nothing larger than the features and the maps themselves, forward or backward
        self.assertLessEqual(ours.numel, max(2 * 24 * 8 * 6, 2 * 14 * 8 * 6))

    def test_update_masks_only_erases(self):
        masks = update_masks(torch.tensor([[True, True, False]]), torch.tensor([[False, True, False]]))
        self.assertEqual(masks.tolist(), [[True, False, False]])

    def test_channel_mismatch(self):
        with self.assertRaisesRegex(ValueError, "must share D, got 3 and 2"):
            class_activation_maps(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2))


if __name__ == "__main__":
    unittest.main()
