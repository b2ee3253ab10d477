# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path

import yaml

from bundle.command import shown_config
from bundle.command.layers import merged_layers, read_layer

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ["--args_file", str(ROOT / "configs" / "args_sna_train.yaml")]


class TestShownConfig(unittest.TestCase):
    def test_it_is_the_merged_configuration_as_yaml(self):
        shown = yaml.safe_load("\n".join(shown_config(ARGUMENTS)))
        layers = yaml.safe_load(Path(ARGUMENTS[1]).read_text())["config_file"]
        merged = merged_layers(read_layer(ROOT / layer) for layer in layers)
        self.assertEqual({key: shown[key] for key in merged}, merged)

    def test_each_key_names_the_last_layer_that_sets_it(self):
        lines = [*shown_config([*ARGUMENTS, "--seed", "3"], ["max_epochs", "loss_name", "seed"])]
        self.assertRegex(lines[0], r"^max_epochs: 20 +# .*configs/train.yaml$")
        self.assertRegex(lines[1], r"^loss_name: cross_entropy +# .*configs/sna_train.yaml$")
        self.assertRegex(lines[2], r"^seed: 3 +# the command line$")

    def test_what_a_run_refuses_is_refused_here(self):
        with self.assertRaisesRegex(ValueError, "did you mean '--seed'"):
            [*shown_config([*ARGUMENTS, "--sed", "3"])]
        with self.assertRaisesRegex(ValueError, "the configuration has no key 'sed'"):
            [*shown_config(ARGUMENTS, ["sed"])]

    def test_help_and_an_error_are_short(self):
        script = [sys.executable, str(ROOT / "scripts" / "show_config.py")]
        self.assertIn("--only", subprocess.run([*script, "--help"], capture_output=True, text=True).stdout)
        refused = subprocess.run([*script, "--args_file", "none.yaml"], capture_output=True, text=True)
        self.assertEqual((refused.returncode, refused.stderr.count("\n")), (1, 1))
        self.assertTrue(refused.stderr.startswith("error: "))


if __name__ == "__main__":
    unittest.main()
