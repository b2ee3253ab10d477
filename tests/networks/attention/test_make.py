# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.networks.attention.make import ATTENTION_NAMES, AttentionPlacement, make_attention


class TestMakeAttention(unittest.TestCase):
    def test_every_block_keeps_the_shape_and_other_sizes(self):
        for name in ATTENTION_NAMES:
            block = make_attention(name, 32, (6, 4)).eval()
            for x in (torch.rand(2, 32, 6, 4), torch.rand(1, 32, 5, 7)):
                with self.subTest(name=name, shape=x.shape):
                    self.assertEqual(block(x).shape, x.shape)
                    torch.testing.assert_close(torch.jit.script(block)(x), block(x))

    def test_one_image_does_not_change_another(self):
        x = torch.rand(3, 32, 6, 4)
        for name in ATTENTION_NAMES:
            block = make_attention(name, 32, (6, 4)).eval()
            torch.testing.assert_close(block(x), torch.cat([block(i[None]) for i in x]), atol=1e-5, rtol=1e-5)

    def test_every_parameter_gets_a_gradient(self):
        torch.manual_seed(0)
        for name in ATTENTION_NAMES:
            block = make_attention(name, 256, (6, 4))  # of 32 channels two hidden ones are left, which may both be dead
            for p in block.parameters():
                torch.nn.init.normal_(p, std=0.1)  # zero-initialized projections would hide what lies behind them
            (block(torch.rand(2, 256, 6, 4, requires_grad=True)) ** 2).sum().backward()
            for key, p in block.named_parameters():
                self.assertTrue(p.grad is not None and p.grad.abs().sum() > 0, f"{name}: {key}")

    def test_parameter_counts(self):
        # at 1024 channels, as listed in the design notes (SE with r = 16; CBAM adds a 7x7 convolution and a norm)
        counts = {"se": 132_160, "cbam": 132_260, "eca": 5, "sna": 0, "none": 0, "ppcr": 7 * 49, "sa": 2 * 1024**2}
        for name, count in counts.items():
            block = make_attention(name, 1024, (7, 7))
            self.assertEqual(sum(p.numel() for p in block.parameters()), count, name)

    def test_unknown_name_lists_the_known(self):
        with self.assertRaisesRegex(ValueError, "must be one of .*'none', 'se', 'eca', .*'sna', 'ppcr'.* got 'senet'"):
            make_attention("senet", 8, (4, 4))

    def test_options_reach_their_block(self):
        # hidden widths by hand: 64 channels over the reduction
        self.assertEqual(make_attention("se", 64, (4, 4), reduction=4).fc[0].out_features, 16)
        self.assertEqual(make_attention("cbam", 64, (4, 4), reduction=8).mlp[0].out_features, 8)
        self.assertEqual(make_attention("scse", 64, (4, 4), reduction=2).channel.fc[0].out_features, 32)
        self.assertEqual(make_attention("aa", 64, (4, 4), num_heads=2).num_heads, 2)
        self.assertEqual(make_attention("ppcr", 64, (4, 4), groups=[1, 8]).weight.shape, (1, 9, 4, 4))
        x = torch.rand(2, 16, 5, 5)
        exact = make_attention("sna", 16, (5, 5), exact=True, rank=2)(x)  # by a decomposition
        torch.testing.assert_close(
            make_attention("sna", 16, (5, 5), num_squarings=14, rank=2)(x), exact, atol=1e-3, rtol=1e-3
        )

    def test_options_that_a_block_has_not_or_that_are_out_of_range_are_refused(self):
        for name, options, words in (
            ("se", {"rank": 2}, r"attention_options of se must be among \['reduction'\], got 'rank'"),
            ("none", {"rank": 2}, r"attention_options of none must be among \[\], got 'rank'"),
            ("ppcr", {"groups": [0]}, "groups must be"),
            ("sna", {"exact": "yes"}, "exact must be"),
            ("scse", {"reduction": 128}, "at most the number of channels 64, got 128"),
        ):
            with self.assertRaisesRegex(ValueError, words):
                make_attention(name, 64, (4, 4), **options)

    def test_augmentation_needs_divisible_channels(self):
        with self.assertRaisesRegex(ValueError, r"divisible by 4 \* num_heads = 16, got 24"):
            make_attention("aa", 24, (4, 4))


class TestBlocksByHand(unittest.TestCase):
    def test_eca(self):
        block = make_attention("eca", 2, (1, 1))  # kernel 1
        torch.nn.init.constant_(block.conv.weight, 2.0)
        x = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        torch.testing.assert_close(block(x).flatten(), torch.stack([torch.tensor(0.0), torch.tensor(2.0).sigmoid()]))

    def test_zeroed_gates_are_one_half_each(self):
        x = torch.rand(1, 32, 3, 3)
        for name, factor in (("se", 0.5), ("cbam", 0.25), ("scse", 1.0)):
            block = make_attention(name, 32, (3, 3)).eval()
            for p in block.parameters():
                torch.nn.init.zeros_(p)
            torch.testing.assert_close(block(x), factor * x)

    def test_non_local_matches_explicit_softmax(self):
        block, x = make_attention("sa", 4, (2, 3)), torch.rand(1, 4, 2, 3)
        torch.testing.assert_close(block(x), x)  # identity at the start
        torch.nn.init.normal_(block.project.weight)
        q, k, v = (layer(x).flatten(2)[0] for layer in (block.query, block.key, block.value))  # (2, 6)
        y = v @ torch.softmax(q.T @ k, dim=1).T
        torch.testing.assert_close(block(x), x + block.project(y.view(1, 2, 2, 3)))

    def test_augmentation_matches_explicit_loops(self):
        block, x = make_attention("aa", 16, (2, 3)), torch.rand(1, 16, 2, 3)
        q, k, v = (f.view(4, 6) for f in block.qkv(x)[0].chunk(3))  # one channel a head
        expected = torch.zeros(4, 6)
        for head in range(4):
            for i in range(6):
                logits = torch.stack(
                    [
                        q[head, i]
                        * (k[head, j] + block.rows[j // 3 - i // 3 + 1, 0] + block.columns[j % 3 - i % 3 + 2, 0])
                        for j in range(6)
                    ]
                )
                expected[head, i] = (logits.softmax(0) * v[head]).sum()
        expected = torch.cat([block.conv(x), block.project(expected.view(1, 4, 2, 3))], dim=1)
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


class TestAttentionPlacement(unittest.TestCase):
    def test_usual_places(self):
        self.assertEqual(AttentionPlacement.of("sna", None), (True, False, 0))
        self.assertEqual(AttentionPlacement.of("se", None), (False, True, 0))
        self.assertFalse(AttentionPlacement.of("aa", "both").in_stage(0))

    def test_unknown_place(self):
        with self.assertRaisesRegex(ValueError, "'stem', 'blocks' or 'both', got 'top'"):
            AttentionPlacement.of("sna", "top")


if __name__ == "__main__":
    unittest.main()
