# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.localization.heatmaps import final_heatmap, mined_heatmaps, prior_on_grid
from bundle.networks.maps import normalized_maps


class TestNormalizedMaps(unittest.TestCase):
    def test_hand_computed_value(self):
        out = normalized_maps(torch.tensor([[1.0, 3.0, 5.0]]))
        self.assertEqual(out.tolist(), [[0.0, 0.5, 1.0]])

    def test_erased_positions_are_zero_and_take_no_part_in_the_range(self):
        out = normalized_maps(torch.tensor([[-4.0, 9.0, -2.0, -3.0]]), torch.tensor([[True, False, True, True]]))
        self.assertEqual(out.tolist(), [[0.0, 0.0, 1.0, 0.5]])

    def test_constant_and_fully_erased_maps_are_zero(self):
        maps = torch.full((2, 3, 3), 7.0)
        self.assertEqual(normalized_maps(maps).abs().max().item(), 0)
        erased = normalized_maps(torch.rand(2, 3, 3), torch.zeros(2, 3, 3))
        self.assertTrue(torch.equal(erased, torch.zeros(2, 3, 3)))

    def test_all_negative_map_is_stretched_like_any_other(self):
        maps = -torch.rand(1, 4, 4) - 1
        torch.testing.assert_close(normalized_maps(maps), normalized_maps(maps + 10), rtol=0, atol=1e-5)


class TestFinalHeatmap(unittest.TestCase):
    def test_hand_computed_value(self):
        # one row of three positions; step 1 erases the first, step 2 the second
        maps = [torch.tensor([[1.0, 0.6, 0.0]]), torch.tensor([[0.0, 1.0, 0.2]]), torch.tensor([[0.0, 0.0, 1.0]])]
        masks = [torch.tensor([[False, True, True]]), torch.tensor([[False, False, True]])]
        # t = 1: [1, 0.6, 0]; t = 2: [0, 1, 0.2] + [1, 0, 0]; t = 3: [0, 0, 1] + [1, 0, 0] + [0, 1, 0]
        expected = torch.tensor([[3.0, 2.6, 1.2]]) / 3
        torch.testing.assert_close(final_heatmap(maps, masks), expected)

    def test_raw_maps_of_a_standing_network_give_back_the_first(self):
        raw = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        _, masks, _ = mined_heatmaps(raw, steps=3)
        maps = [raw, raw * masks[0], raw * masks[1]]  # Eq. 7
        torch.testing.assert_close(final_heatmap(maps, list(masks)), raw)

    def test_too_few_masks(self):
        with self.assertRaisesRegex(ValueError, "got 2 maps and 0 masks"):
            final_heatmap([torch.zeros(1, 1), torch.zeros(1, 1)], [])


class TestPriorOfNoNumber(unittest.TestCase):
    def test_a_prior_that_is_none_does_not_become_one_that_favors_no_place(self):
        self.assertTrue(prior_on_grid(torch.full((1, 1, 4, 4), float("nan")), (2, 2)).isnan().all())
        self.assertEqual(prior_on_grid(torch.zeros(1, 1, 4, 4), (2, 2)).tolist(), [[[[1, 1], [1, 1]]]])


class TestMinedHeatmaps(unittest.TestCase):
    def test_second_step_finds_the_second_lesion(self):
        maps = torch.zeros(1, 1, 3, 9)
        maps[..., 1, 1:3] = 10.0
        maps[..., 1, 6:8] = 4.0  # below half of the maximum: invisible until the first is erased
        heats, masks, final = mined_heatmaps(maps, steps=2)
        self.assertAlmostEqual(heats[0, 0, 0, 1, 6].item(), 0.4, places=6)
        self.assertEqual(heats[1, 0, 0, 1, 6].item(), 1.0)
        self.assertEqual(masks[0, 0, 0].int().sum().item(), 25)
        self.assertEqual(masks[1, 0, 0].int().sum().item(), 23)
        self.assertEqual(final[0, 0, 1, 1].item(), 1.0)
        self.assertAlmostEqual(final[0, 0, 1, 6].item(), 0.7, places=6)

    def test_empty_map_stays_empty(self):
        heats, masks, final = mined_heatmaps(torch.zeros(1, 2, 4, 4), steps=3)
        self.assertEqual(heats.abs().sum().item() + final.abs().sum().item(), 0)
        self.assertTrue(masks.all())

    def test_one_step_is_the_plain_map(self):
        maps = torch.randn(2, 2, 5, 5)
        torch.testing.assert_close(mined_heatmaps(maps, steps=1)[2], normalized_maps(maps))

    def test_steps_below_one(self):
        with self.assertRaisesRegex(ValueError, "steps must be a whole number of at least 1, got 0"):
            mined_heatmaps(torch.zeros(1, 1, 2, 2), steps=0)

    def test_threshold_out_of_range(self):
        # at 0 the whole map is one component and is erased in the first step
        for value in (0, 1.1, float("nan"), "0.5"):
            with self.assertRaisesRegex(ValueError, r"threshold must be in \(0, 1\], got "):
                mined_heatmaps(torch.zeros(1, 1, 2, 2), threshold=value)


if __name__ == "__main__":
    unittest.main()
