# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.lists.normal_or_not import load_anomaly_table


class TestAnomalyTable(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.table = Path(folder.name) / "t.csv"

    def labels(self, text: str) -> dict[str, list[tuple[str, int]]]:
        self.table.write_text(text)
        lists = load_anomaly_table(self.table)
        return {split: [(item["image"], item["label"]) for item in items] for split, items in lists.items() if items}

    def test_label_or_classes_say_what_is_normal(self):
        split = {"training": [("a.png", 0), ("b.png", 1)], "validation": [("c.png", 0)], "test": [("d.png", 1)]}
        rows = ("a.png,training", "b.png,training", "c.png,validation", "d.png,test")
        for head, cells in (
            ("label", "0101"),
            ("Normal,mass,edema", ("1,0,0", "0,1,0", "1,0,0", "0,1,1")),
            ("ILD,No finding,site", ("0,1,north", "1,0,", "0,1,north", "1,0,south")),
            ("normal", "1010"),
            ("label,normal,mass", ("0,0,1", "1,1,0", "0,1,1", "1,1,1")),  # the column label decides
        ):
            with self.subTest(head=head):
                lines = [f"{row},{cell}" for row, cell in zip(rows, cells, strict=True)]
                self.assertEqual(self.labels("\n".join([f"image,split,{head}", *lines])), split)
        self.assertEqual(self.labels("image,site\na.png,1\nb.png,2"), {"training": [("a.png", 0), ("b.png", 0)]})

    def test_an_image_of_no_class_is_left_out(self):
        with self.assertLogs("bundle.lists.normal_or_not", "INFO") as logs:
            found = self.labels("image,split,normal,mass\na.png,training,1,0\nb.png,test,0,0\nc.png,test,0,1")
        self.assertEqual(found, {"training": [("a.png", 0)], "test": [("c.png", 1)]})
        self.assertIn("t.csv: 1 images are neither normal nor of another class", logs.output[0])

    def test_classes_without_a_normal_one_are_refused(self):
        for text in ("image,split,mass,site\na.png,training,0,x", "image,mass\na.png,0"):
            with self.assertRaisesRegex(
                ValueError, r"t.csv must say which images are normal, .* \['mass'\]: add 'label'"
            ):
                self.labels(text)


if __name__ == "__main__":
    unittest.main()
