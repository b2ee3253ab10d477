# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def commands_of(target: str) -> str:
    """Return what make would run for a target where nothing is installed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "DATA", "PYTHON")}
    words = ["make", "--no-print-directory", "--dry-run", "--always-make", target]  # make test is a make, too
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


class TestEnvironments(unittest.TestCase):
    def test_the_demo_has_the_plain_package_in_an_environment_of_its_own(self):
        commands = commands_of("demo")
        self.assertIn(
            ".venv-demo/bin/python -m pip install --quiet --constraint constraints.txt --editable '.'", commands
        )
        self.assertIn("\n.venv-demo/bin/python scripts/demo.py ", commands)
        self.assertNotIn(".venv/", commands)

    def test_the_tests_have_theirs(self):
        commands = commands_of("test")
        self.assertIn(".venv/bin/python -m pip install --quiet --constraint constraints.txt", commands)
        self.assertIn("--editable '.[dev,service]'", commands)
        self.assertIn("\n.venv/bin/python -m pytest ", commands)
        self.assertNotIn(".venv-demo", commands)

    def test_clean_removes_both(self):
        self.assertRegex(commands_of("clean"), r"^rm -rf \.venv-demo \.venv ")


if __name__ == "__main__":
    unittest.main()
