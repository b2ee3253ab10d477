# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What an overnight run may meet: a full disk, a folder that is read-only, images that go away, another batch size."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import resource
import shutil
import tempfile
import unittest
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bundle.command import prepare_run
from bundle.files import CannotWriteError, atomic_path
from bundle.results import Progress, ResultsWriter
from tests.workflows import START, run_workflow, workflow_of, write_start

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"image_size": [64, 64]}
FAMILIES = {"adfa": {"weights": "random"}, "sna": {"weights": None}, "msa": {"weights": None}}


def run_here(name: str, **settings) -> None:
    run_workflow(name, **(SMALL if name.endswith("train") else {}), **settings)


def write_pictures(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = generator.integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).resize((72, 64)).save(folder / f"{i:02d}.png")


def write_model(family: str, folder: Path) -> None:
    """Write the untrained network of a family."""
    torch.manual_seed(0)
    settings = {"dataset_dir": "", **SMALL, **FAMILIES[family]}
    network = workflow_of(START[family], **settings).parser.get_parsed_content("network_def")
    if family == "adfa":
        network.center_bank.centers.normal_()
    write_start(folder, family, network, **settings)


def scores_of(folder: Path) -> dict[str, list[float]]:
    """Return the numbers of each image of the table of predictions."""
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if "score" in name or name.startswith(("p_", "probability"))]
    return {row["source"]: [float(row[name]) for name in names if row[name]] for row in rows}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file but the report, which has the time in it."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let writes beyond a size fail half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def nobody_special() -> Iterator[None]:
    """Give up the rights of root, for whom no folder is read-only."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


class TestBadDays(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.images = cls.root / "images"
        write_pictures(cls.images, 7)
        for family in FAMILIES:
            write_model(family, cls.root / family)
        cls.settings = {"model_dir": cls.root / "adfa", "formats": ["csv", "nifti"], "batch_size": 3, "secret": ""}
        cls.settings["fixed_time"] = "2026-03-04T05:06:07"  # run.json tells the time of each run
        run_here("adfa_inference", input=cls.images, output_dir=cls.root / "whole", **cls.settings)

    def infer(self, out: Path, **settings) -> None:
        run_here("adfa_inference", **{"input": self.images, "output_dir": out, **self.settings, **settings})

    def test_scores_do_not_depend_on_batch_size_or_order(self):
        names = [f"{i:02d}.png" for i in range(7)]
        others = random.Random(1).sample(names, len(names))
        self.assertNotEqual(names, others)
        shuffled = self.root / "shuffled"
        shuffled.mkdir()
        for name, other in zip(names, others, strict=True):
            shutil.copy(self.images / name, shuffled / other)
        for family in FAMILIES:
            scores = []
            for kind, images, size in (("one", self.images, 1), ("four", self.images, 4), ("order", shuffled, 3)):
                out = self.root / f"{family}_{kind}"
                settings = {"model_dir": self.root / family, "formats": ["csv"]}
                run_here(f"{family}_inference", input=images, output_dir=out, batch_size=size, **settings)
                scores.append(scores_of(out))
            scores[2] = {name: scores[2][other] for name, other in zip(names, others, strict=True)}
            self.assertGreater(len({tuple(row) for row in scores[0].values()}), 1)
            for other in scores[1:]:
                for name in names:
                    np.testing.assert_allclose(other[name], scores[0][name], rtol=1e-5, atol=1e-6)

    def test_the_same_seed_gives_the_same_files(self):
        found = []
        for name in ("first", "second"):
            out = self.root / name / "model"  # a record names the folder of its model
            run_here(
                "adfa_train", dataset_dir=self.images, output_dir=out, max_epochs=1, tensorboard=False, batch_size=4
            )
            run_here(
                "adfa_inference", input=self.images, output_dir=out / "results", **{**self.settings, "model_dir": out}
            )
            found.append(files_of(out))
        self.assertEqual(found[0].keys(), found[1].keys())
        self.assertEqual([name for name in found[0] if found[0][name] != found[1][name]], [])

    def test_a_full_disk_is_one_line_and_the_run_continues_later(self):
        out = self.root / "full"
        with full_disk(5000), self.assertRaisesRegex(RuntimeError, "") as caught:
            self.infer(out)
        self.assert_cannot_write(caught.exception, "'.*full/.*' cannot be written: File too large.")
        self.assertFalse(list(out.rglob(".partial-*")))
        self.infer(out, resume=True)
        self.assertEqual(files_of(out), files_of(self.root / "whole"))

    def test_a_disk_that_is_full_already_is_told_before_anything_is_read(self):
        with full_disk(0), self.assertRaisesRegex(OSError, "^output_dir '.*none' cannot be written: File too large.$"):
            prepare_run(self.root / "none", seed=None, debug=True)

    def assert_cannot_write(self, error: BaseException, message: str) -> None:
        while error.__cause__ is not None:
            error = error.__cause__
        self.assertIsInstance(error, CannotWriteError)
        self.assertRegex(str(error), f"^{message}$")

    def test_a_run_that_lacks_only_its_tables(self):
        out = self.root / "late"
        with unittest.mock.patch.object(ResultsWriter, "close", side_effect=OSError("killed")):
            with self.assertRaises(RuntimeError):
                self.infer(out)
        self.infer(out, resume=True)
        self.assertEqual(files_of(out), files_of(self.root / "whole"))

    def test_a_read_only_folder_is_one_line(self):
        folder = self.root / "read_only"
        folder.mkdir(mode=0o555)
        self.root.chmod(0o755)
        with nobody_special():
            with self.assertRaisesRegex(OSError, "^output_dir '.*read_only' cannot be written: Permission denied.$"):
                prepare_run(folder, seed=None, debug=True)
            with self.assertRaisesRegex(CannotWriteError, "^'.*a.csv' cannot be written: Permission denied.$"):
                with atomic_path(folder / "a.csv") as partial:
                    partial.write_text("")

    def test_images_that_go_away(self):
        images, out = self.root / "going", self.root / "gone"
        shutil.copytree(self.images, images)
        remaining = Progress.remaining

        def lose(progress, items):
            (images / "03.png").unlink()
            (images / "05.png").write_bytes((images / "05.png").read_bytes()[:60])
            return remaining(progress, items)

        with unittest.mock.patch.object(Progress, "remaining", lose):
            self.infer(out, input=images)
        with (out / "failures.csv").open(newline="") as file:
            failures = dict(list(csv.reader(file))[1:])
        self.assertEqual(list(failures), ["03.png", "05.png"])
        self.assertEqual(failures["03.png"], "03.png: the file must exist, it does not.")
        self.assertRegex(failures["05.png"], "^05.png: the file must be whole")
        self.assertEqual(len(scores_of(out)), 5)


if __name__ == "__main__":
    unittest.main()
