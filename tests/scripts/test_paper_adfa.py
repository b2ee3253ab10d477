# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import sys
import unittest
from pathlib import Path
from unittest import mock

import torch

from bundle.anomaly import ADFA

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/benchmarks"


class TestPaperADFA(unittest.TestCase):
    def test_the_network_computes_what_the_paper_formulates(self):
        with mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]):
            paper_map = importlib.import_module("paper_adfa").paper_map
        torch.manual_seed(0)
        network = ADFA.paper(image_size=(32, 48), weights="random", descriptor_channels=8, epsilon=0.3).eval()
        network.center_bank.set_centers(torch.randn_like(network.center_bank.centers))
        image, gradients = torch.randn(2, 3, 32, 48), []
        for function in (lambda x: network(x).flatten(1), lambda x: paper_map(network, x, 500)):
            network.zero_grad()
            out = function(image)
            out.square().mean().backward()
            gradients.append((out.detach(), network.descriptor.projection.weight.grad.clone()))
        for ours, paper in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, paper, atol=1e-4, rtol=1e-3)


if __name__ == "__main__":
    unittest.main()
