# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import resource
import unittest

import torch

from bundle.files import CannotWriteError, atomic_path, remove_partial_files
from bundle.training.checkpoint import save_atomically
from tests.folders import FolderTestCase


class TestAtomicPath(FolderTestCase):
    def test_whole_or_absent(self):
        path = self.root / "new" / "map.nii.gz"
        with atomic_path(path) as partial:
            self.assertEqual((partial.parent, "".join(partial.suffixes)), (path.parent, ".nii.gz"))
            partial.write_text("first")
            self.assertFalse(path.exists())
        self.assertEqual(path.read_text(), "first")
        with (
            self.assertRaisesRegex(CannotWriteError, "map.nii.gz' cannot be written: disk full."),
            atomic_path(path) as p,
        ):
            p.write_text("half of the sec")
            raise OSError("disk full")
        self.assertEqual(path.read_text(), "first")
        self.assertEqual([p.name for p in path.parent.iterdir()], ["map.nii.gz"])

    def test_a_folder_that_is_none(self):
        (self.root / "file").touch()
        with (
            self.assertRaisesRegex(CannotWriteError, "below' cannot be written: "),
            atomic_path(self.root / "file" / "below"),
        ):
            pass

    def test_no_room_for_a_checkpoint(self):
        # a limit on the size of files fails a write half-way, as a full disk does
        path = self.root / "checkpoint.pt"
        save_atomically({"a": torch.ones(3)}, path)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with self.assertRaisesRegex(CannotWriteError, "checkpoint.pt' cannot be written: File too large."):
                save_atomically({"a": torch.ones(100_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual(torch.load(path, weights_only=True)["a"].tolist(), [1, 1, 1])
        self.assertEqual([p.name for p in self.root.iterdir()], ["checkpoint.pt"])

    def test_what_a_killed_process_left_is_removed(self):
        (self.root / "maps").mkdir()
        for name in (".partial-1.csv", "maps/.partial-2.png", "maps/a.png"):
            (self.root / name).touch()
        remove_partial_files(self.root)
        self.assertEqual([p.name for p in self.root.rglob("*") if p.is_file()], ["a.png"])


if __name__ == "__main__":
    unittest.main()
