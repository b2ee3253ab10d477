# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import torch

from bundle.anomaly.topk import soft_topk_reference

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/benchmarks/benchmark_soft_topk.py"


class TestBenchmarkSoftTopK(unittest.TestCase):
    def test_the_reference_is_right(self):
        spec = importlib.util.spec_from_file_location("benchmark_soft_topk", SCRIPT)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        d = torch.rand(2, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
        for epsilon in (0.1, 0.01):  # the plain and the stabilized sweeps
            near = 0.5 + epsilon * d  # wide gaps take the sweeps too long
            out = script.SinkhornTopK.apply(near, 3, epsilon, 1000)
            torch.testing.assert_close(out, soft_topk_reference(near, 3, epsilon), atol=1e-6, rtol=0)
        gradient = torch.autograd.gradcheck(lambda x: script.SinkhornTopK.apply(x, 3, 0.5, 300), (d,))
        self.assertTrue(gradient)


if __name__ == "__main__":
    unittest.main()
