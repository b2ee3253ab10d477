# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.data.label_table import load_label_table, write_label_table

HEADER = "path,patient,split,edema,mass\n"
ROWS = ["a.png,p1,train,1,0", "b.png,p1,train,1,1", "c.png,p2,val,0,1", "d.png,p3,test,0,0"]


class TestLabelTable(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name in "abcd":
            (self.root / f"{name}.png").touch()

    def load(self, rows: list[str], header: str = HEADER, **kwargs) -> list[dict]:
        table = self.root / "labels.csv"
        table.write_text(header + "\n".join(rows) + "\n")
        return load_label_table(table, self.root, ["edema", "mass"], **kwargs)

    def refused(self, message: str, rows: list[str], header: str = HEADER, **kwargs) -> None:
        with self.assertRaisesRegex(ValueError, message) as caught:
            self.load(rows, header, **kwargs)
        self.assertNotIn("\n", str(caught.exception))

    def test_items(self):
        (item,) = self.load(ROWS, split="val")
        self.assertEqual(item["image"], str((self.root / "c.png").resolve()))
        self.assertEqual((item["label"], item["patient"], item["key"]), ([0, 1], "p2", "000004"))
        self.assertEqual(len(self.load(ROWS)), 4)

    def test_round_trip(self):
        both = {"split": "train", "label": [1, 1]}
        rows = [{"path": "a.png", "patient": "p, 1", **both}, {"path": "b.png", "patient": "q", **both}]
        write_label_table(rows, self.root / "out.csv", ["edema", "mass"])
        items = load_label_table(self.root / "out.csv", self.root, ["mass", "edema"])
        self.assertEqual([i["patient"] for i in items], ["p, 1", "q"])

    def test_without_patients_every_image_is_its_own(self):
        rows = ["a.png,1,1", "b.png,1,1"]
        self.assertEqual([i["patient"] for i in self.load(rows, "path,edema,mass\n")], ["a.png", "b.png"])

    def test_missing_column(self):
        self.refused("labels.csv row 1: column 'mass' is missing, the columns are", ROWS, "path,patient,split,edema\n")
        self.refused("column 'split' is missing", ["a.png,1,1"], "path,edema,mass\n", split="train")

    def test_label_not_binary(self):
        self.refused("labels.csv row 4: label 'mass' must be 0 or 1, got '2'", [*ROWS[:2], "c.png,p2,val,0,2"])
        self.refused("row 2: label 'mass' must be 0 or 1, got ''", ["a.png,p1,train,1,"])

    def test_class_with_one_sample(self):
        self.refused("'edema' must have at least two positive images, it has one, row 2", [ROWS[0], ROWS[2], ROWS[3]])
        self.refused("'edema' must have at least two positive images, it has none", ROWS[2:])

    def test_patient_in_two_splits(self):
        self.refused(
            "row 4: the patient is in split 'val' here and in 'train' in row 2", [*ROWS[:2], "c.png,p1,val,0,1"]
        )

    def test_image_listed_twice(self):
        self.refused("row 4: image './a.png' is listed already in row 2", [*ROWS[:2], "./a.png,p1,train,0,1"])

    def test_image_outside_or_absent(self):
        self.refused("row 2: path must stay inside the image folder, got '../a.png'", ["../a.png,p1,train,1,0"])
        self.refused("row 2: image 'x.png' does not exist", ["x.png,p1,train,1,0"])

    def test_exclusive_classes(self):
        self.refused("row 3: exactly one class must be 1, got 2", ROWS, exclusive=True)
        self.refused("exclusive must be True or False, got 'false'", ROWS, exclusive="false")

    def test_unknown_and_empty_split(self):
        self.refused("row 2: split must be one of .*, got 'dev'", ["a.png,p1,dev,1,0"])
        self.refused("split 'test' must have rows", ["a.png,p1,train,1,1", "b.png,p1,train,1,1"], split="test")

    def test_no_table(self):
        with self.assertRaisesRegex(FileNotFoundError, "must be an existing CSV file"):
            load_label_table(self.root / "none.csv", self.root, ["a"])


if __name__ == "__main__":
    unittest.main()
