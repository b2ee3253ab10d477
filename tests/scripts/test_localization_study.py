# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/studies/localization"


def run(*args, script="localization_study"):
    """Run the script in this process and return what it printed."""
    argv = [script, *map(str, args)]
    with mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]):
        module = importlib.import_module(script)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            module.main()
    return out.getvalue()


class TestLocalizationStudy(unittest.TestCase):
    @pytest.mark.full
    def test_synthetic_images_from_end_to_end_and_again(self):
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "masks").mkdir()
            for kind, count in (("normal", 8), ("benign", 10), ("malignant", 10)):
                (root / kind).mkdir()
                for i in range(count):
                    pixels = rng.integers(0, 120, (48, 64)).astype(np.uint8)
                    if kind != "normal":
                        mask = np.zeros((48, 64), np.uint8)
                        mask[10:30, 20:40] = 255
                        Image.fromarray(mask).save(root / "masks" / f"{kind}_{i}_0.png")
                        pixels[mask > 0] += 120
                    Image.fromarray(pixels).save(root / kind / f"{kind}_{i}.png")
            rows = root / "rows.jsonl"
            args = ["busi", root, "--rows", rows, "--seeds", 1, "--size", 64, "--epochs", 1, 1, 1]
            run(*args)
            found = [json.loads(line) for line in rows.read_text().splitlines()]
            # plain, multi-scale, two more steps at inference, three modes of three steps; three classes each
            self.assertEqual(len({row["method"] for row in found}), 4 + 9)
            self.assertEqual(len(found), 3 * 13)
            self.assertTrue(all(0 <= row["acc@0.1"] <= 1 for row in found))
            self.assertEqual(run(*args), "")  # nothing left to do
            trained = root / "trained.jsonl"
            self.assertIn("full t=3", run(*args[:2], "--rows", trained, *args[4:], "--train_last"))
            self.assertIn("| full t=3 |", run("report", "--rows", rows))
            resnet = ["--trunk", "resnet18", "--epochs", 1, 1, 1, "--size", 32, "--seeds", 1]
            self.assertIn("full t=3", run("busi", root, "--rows", root / "resnet.jsonl", *resnet))
            options = root / "options.jsonl"
            run("busi", root, "--rows", options, *args[4:8], "--epochs", 1, 1, script="localization_options")
            found = [json.loads(line)["method"] for line in options.read_text().splitlines()]
            self.assertEqual(len(found), 3 * 5)
            self.assertIn("anomaly prior", found)


if __name__ == "__main__":
    unittest.main()
