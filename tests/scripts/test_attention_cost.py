# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path
from types import ModuleType

import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def load_script(name: str) -> ModuleType:
    """Import a script as a module, which is how only tests use it."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestAttentionCost(unittest.TestCase):
    def test_multiply_adds_of_one_convolution(self):
        # 4 output channels, 3 x 3 x 2 inputs, 5 x 6 positions
        layer = torch.nn.Conv2d(2, 4, 3, padding=1)
        self.assertEqual(
            load_script("benchmarks/attention_cost").multiply_adds(layer, torch.rand(3, 2, 5, 6)), 4 * 18 * 30
        )


if __name__ == "__main__":
    unittest.main()
