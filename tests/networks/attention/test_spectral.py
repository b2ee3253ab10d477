# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch

from bundle.networks.attention.spectral import low_rank_approximation


def _matrices(b: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(b, h, w, generator=generator, dtype=torch.double)


class TestLowRankApproximation(unittest.TestCase):
    def test_hand_computed_value(self):
        # [[4, 0], [3, 0]] has one singular value, 5, with u = (0.8, 0.6) and v = (1, 0)
        m = torch.tensor([[[4.0, 0.0], [3.0, 0.0]]])
        torch.testing.assert_close(low_rank_approximation(m), m)

    def test_matches_the_full_decomposition(self):
        for h, w in ((6, 6), (5, 9), (9, 5)):
            for rank in (1, 2, 3):
                m = _matrices(3, h, w)
                u, s, vh = torch.linalg.svd(m, full_matrices=False)
                expected = torch.einsum("bhk,bk,bkw->bhw", u[:, :, :rank], s[:, :rank], vh[:, :rank])
                torch.testing.assert_close(low_rank_approximation(m, rank, 14), expected, atol=1e-6, rtol=1e-6)
                torch.testing.assert_close(low_rank_approximation(m, rank, exact=True), expected)

    def test_the_default_suffices_for_positive_and_signed_matrices(self):
        signed = torch.randn(64, 14, 14, generator=torch.Generator().manual_seed(0))
        for m in (_matrices(4, 14, 14).float(), signed[:, :, :8], signed):
            s = torch.linalg.svdvals(m)
            m = m[s[:, 1] / s[:, 0] < 0.98]  # closer ones have no leading direction to speak of
            torch.testing.assert_close(
                low_rank_approximation(m), low_rank_approximation(m, exact=True), atol=1e-3, rtol=0
            )

    def test_a_vector_orthogonal_to_the_constant_one_is_found(self):
        m = torch.tensor([[[2.0, -2.0], [1.0, 1.0]]])
        torch.testing.assert_close(low_rank_approximation(m), torch.tensor([[[2.0, -2.0], [0.0, 0.0]]]))

    def test_gradient_is_that_of_the_full_decomposition(self):
        weight = torch.rand(5, 7, dtype=torch.double)
        for rank in (1, 2):
            gradients = []
            for kwargs in ({"num_squarings": 10}, {"exact": True}):
                m = _matrices(2, 5, 7).requires_grad_()
                (low_rank_approximation(m, rank, **kwargs) * weight).sum().backward()
                gradients.append(m.grad)
            torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)

    def test_gradcheck(self):
        m = _matrices(1, 3, 4).requires_grad_()
        self.assertTrue(torch.autograd.gradcheck(lambda x: low_rank_approximation(x, 2, 3), (m,)))

    def test_zero_constant_and_sparse_matrices_stay_finite(self):
        one = torch.zeros(6, 8)
        one[2, 3] = 1.0
        m = torch.stack([torch.zeros(6, 8), torch.full((6, 8), 2.0), one, one * 1e-6]).requires_grad_()
        for rank in (1, 3):
            y = low_rank_approximation(m, rank)
            torch.testing.assert_close(y, m, atol=1e-5, rtol=1e-5)  # each has rank 0 or 1
            (gradient,) = torch.autograd.grad(y.square().sum() + y.sum(), m)
            self.assertTrue(gradient.isfinite().all())

    def test_ranks_past_that_of_the_matrix_stay_finite(self):
        generator = torch.Generator().manual_seed(0)
        row, mixed = torch.randn(500, 1, 7, generator=generator), torch.zeros(500, 7, 7)
        mixed[torch.arange(500), torch.randint(7, (500,), generator=generator)] = row[:, 0]
        for m in (row.expand(-1, 7, -1), mixed, torch.randn(500, 7, 1, generator=generator) * row):
            for rank in (2, 3):
                x = m.clone().requires_grad_()
                y = low_rank_approximation(x, rank)
                torch.testing.assert_close(y, m, atol=1e-5, rtol=1e-5)
                (gradient,) = torch.autograd.grad(y.square().sum(), x)
                torch.testing.assert_close(gradient, 2 * m, atol=1e-3, rtol=1e-3)

    def test_rank_past_the_size_changes_nothing(self):
        m = _matrices(2, 3, 4)
        torch.testing.assert_close(low_rank_approximation(m, 6), m, atol=1e-4, rtol=1e-4)


if __name__ == "__main__":
    unittest.main()
