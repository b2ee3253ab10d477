# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A small run of the fuzzer; docs/results.md has the large one."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class TestFuzzReading(unittest.TestCase):
    @pytest.mark.full
    def test_sixty_damaged_files_are_accounted_for(self):
        command = [sys.executable, "scripts/checks/fuzz_reading.py", "--count", "60", "--seed", "1", "--processes", "1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("60 files, 0 not accounted for", done.stdout)


if __name__ == "__main__":
    unittest.main()
