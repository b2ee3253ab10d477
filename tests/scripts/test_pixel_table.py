# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Every file with pixels that pydicom ships is read as plain pydicom reads it, or refused with a reason."""

from __future__ import annotations

import runpy
import unittest
import warnings
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RADIOGRAPHS = sorted((ROOT.parent / "shared" / "data" / "cxr_samples").glob("*.dcm"))


class TestPixelTable(unittest.TestCase):
    def test_every_shipped_file(self):
        script = runpy.run_path(str(ROOT / "scripts/checks/pixel_table.py"))
        documented = (ROOT / "docs" / "pixels.md").read_text()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [
                script["row"](path) for path in script["shipped_files"]() + RADIOGRAPHS if script["has_pixels"](path)
            ]
        self.assertGreater(len(rows), 90)
        for name, result, comment in rows:
            with self.subTest(name):
                if result in ("skipped", "refused"):
                    self.assertRegex(comment, r"\w+ .*\.$")
                else:
                    self.assertEqual(comment, "equal")
                if find_spec("libjpeg") is None:
                    self.assertIn(f"| {name} | {result} | {comment} |", documented)


if __name__ == "__main__":
    unittest.main()
