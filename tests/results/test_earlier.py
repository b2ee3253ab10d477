# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unittest

from bundle.results import ResultsWriter
from bundle.results.earlier import files_of_earlier, remove_earlier
from tests.folders import FolderTestCase
from tests.results.test_writer import some_result

FORMATS = ("json", "nifti", "overlay")


class TestEarlierRun(FolderTestCase):
    def run_of(self, numbers: range) -> set[str]:
        with ResultsWriter(self.folder / "out", FORMATS) as writer:
            for number in numbers:
                writer.add(some_result(self.folder, number))
        return self.pictures()

    def pictures(self) -> set[str]:
        out = self.folder / "out"
        return {path.relative_to(out).as_posix() for path in out.glob("*/*")}

    def test_a_run_of_other_images_leaves_no_picture_of_the_first(self):
        self.run_of(range(3))
        other = self.folder / "out" / "overlays" / "mine.png"
        other.write_bytes(b"not of a run")
        self.assertEqual(self.run_of(range(1)), {"overlays/000000.png", "heatmaps/000000.nii.gz", "overlays/mine.png"})

    def test_a_run_without_a_result_removes_nothing(self):
        before = self.run_of(range(2))
        self.assertEqual(self.run_of(range(0)), before)

    def test_only_files_of_the_three_folders_are_removed(self):
        out = self.folder / "out"
        (out / "overlays").mkdir(parents=True)
        (self.folder / "kept.txt").write_text("outside")
        (out / "model.pt").write_text("weights")
        (out / "overlays" / "link.png").symlink_to(self.folder / "kept.txt")
        named = ["../kept.txt", "overlays/../../kept.txt", "model.pt", "/etc/passwd", "overlays/link.png"]
        (out / "predictions.json").write_text(json.dumps({"images": [{"files": dict(enumerate(named))}]}))
        earlier = files_of_earlier(out)
        self.assertEqual(earlier, {"overlays/link.png"})
        self.assertEqual(remove_earlier(out, earlier, set()), 0)
        self.assertTrue((self.folder / "kept.txt").is_file() and (out / "overlays" / "link.png").is_symlink())

    def test_a_damaged_table_names_nothing(self):
        for text in ("", "[]", '{"images": 3}', '{"images": [{"files": ["overlays/a.png"]}]}', "[" * 100000):
            (self.folder / "predictions.json").write_text(text)
            self.assertEqual(files_of_earlier(self.folder), frozenset())


if __name__ == "__main__":
    unittest.main()
