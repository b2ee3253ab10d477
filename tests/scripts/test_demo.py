# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "demo.py"
with mock.patch.object(sys, "path", [str(ROOT / "scripts/checks"), *sys.path]):
    import check_docs


def run(*args):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, args)], capture_output=True, text=True)


class TestDemoFilms(unittest.TestCase):
    def test_films_are_those_of_the_demo_patients(self):
        with (ROOT / "models/demo_patients.csv").open(newline="") as stream:
            rows = {Path(row["image"]).stem: row for row in csv.DictReader(stream)}
        files = {path.stem: path for path in (ROOT / "models/demo_films").glob("*.dcm")}
        self.assertEqual(files.keys(), rows.keys())
        for name, path in files.items():
            with self.subTest(name):
                ds = pydicom.dcmread(path)
                self.assertLess(path.stat().st_size, 100_000)
                self.assertEqual((ds.Modality, ds.ViewPosition, ds.pixel_array.shape), ("CR", "PA", (512, 512)))
                self.assertEqual(ds.PatientID, f"DEMO-{rows[name]['patient']}")
                self.assertIn("Wang et al., CVPR 2017", ds.DerivationDescription)


class TestDemo(unittest.TestCase):
    @pytest.mark.full
    def test_own_images_from_end_to_end(self):
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for place, count in (("train/good", 6), ("test/good", 2), ("test/lesion", 2)):
                (root / place).mkdir(parents=True)
                for i in range(count):
                    Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(root / place / f"{i}.png")
            out = root / "out"
            done = run("--dataset_dir", root, "--output_dir", out, "--side", 64, "--epochs", 1)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            self.assertIn("AUROC: ", done.stdout)
            self.assertNotIn("synthetic", (out / "report.html").read_text())
            self.check_page_on(out, root / "test")

    def check_page_on(self, demo: Path, images: Path) -> None:
        """Run what docs/start.md has on the output of the demo: a command, and Python."""
        places = {"demo_output": str(demo), "PATH": str(images), "film.dcm": str(images / "good" / "0.png")}
        blocks = check_docs.blocks_of((ROOT / "docs/start.md").read_text(), "docs/start.md")
        commands = [c for block in blocks for c in check_docs.commands_of(block) if "demo_output" in c.text]
        self.assertEqual([c.python for c in commands], [False, True])
        for command in commands:
            text = check_docs.with_places(command.text, places)
            words = ["-c", text] if command.python else shlex.split(text)[1:]  # by this Python
            done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, f"{text}\n{done.stderr[-2000:]}")
        self.assertEqual(len((demo / "results" / "predictions.csv").read_text().splitlines()), 5)  # a head, four images

    def test_missing_data_is_one_line(self):
        done = run("--dataset_dir", "no_such_folder")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("must be an existing folder, CSV or JSON file, got 'no_such_folder'", done.stderr)

    def test_data_without_test_images_is_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            for i in range(4):
                Image.new("L", (40, 40), 20 * i).save(Path(folder) / f"{i}.png")
            done = run("--dataset_dir", folder, "--output_dir", Path(folder) / "out")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no test images; use folders train/good", done.stderr.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
