# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.lists import LabelDataList


class TestLabelDataList(unittest.TestCase):
    def test_each_split_has_its_rows_and_is_read_when_asked_for(self):
        with tempfile.TemporaryDirectory() as name:
            folder, names = Path(name), [f"{i}.png" for i in range(6)]
            lists = LabelDataList(folder / "labels.csv", folder, ["sick"])  # the table is not there yet
            for image in names:
                (folder / image).touch()
            splits = ["training"] * 4 + ["validation", "test"]
            rows = [f"{image},p{i},{split},{i % 2}" for i, (image, split) in enumerate(zip(names, splits, strict=True))]
            (folder / "labels.csv").write_text("\n".join(["image,patient,split,sick", *rows]))
            found = {
                part: [Path(i["image"]).name for i in lists.of(part)] for part in ("training", "validation", "test")
            }
        self.assertEqual(found, {"training": names[:4], "validation": names[4:5], "test": names[5:]})
        with self.assertRaises(FileNotFoundError):
            _ = lists.test


if __name__ == "__main__":
    unittest.main()
