# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

from bundle.lists.table import load_label_table, read_table, write_label_table
from tests.folders import FolderTestCase

HEADER = "image,patient,split,edema,mass\n"
ROWS = ["a.png,p1,training,1,0", "b.png,p1,training,1,1", "c.png,p2,validation,0,1", "d.png,p3,test,0,0"]


class TestLabelTable(FolderTestCase):
    def setUp(self):
        super().setUp()
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
        (item,) = self.load(ROWS, split="validation")
        self.assertEqual(item["image"], str((self.root / "c.png").resolve()))
        self.assertEqual((item["label"], item["patient"], item["key"]), ([0, 1], "p2", "000004"))
        self.assertEqual(len(self.load(ROWS)), 4)

    def test_round_trip(self):
        both = {"split": "training", "label": [1, 1]}
        rows = [{"image": "a.png", "patient": "p, 1", **both}, {"image": "b.png", "patient": "q", **both}]
        write_label_table(rows, self.root / "out.csv", ["edema", "mass"])
        items = load_label_table(self.root / "out.csv", self.root, ["mass", "edema"])
        self.assertEqual([i["patient"] for i in items], ["p, 1", "q"])

    def test_without_patients_every_image_is_its_own(self):
        rows = ["a.png,1,1", "b.png,1,1", "c.png,0,0"]
        self.assertEqual([i["patient"] for i in self.load(rows, "image,edema,mass\n")], ["a.png", "b.png", "c.png"])

    def test_tables_as_people_write_them(self):
        expected = self.load(ROWS)
        for text in (
            "\ufeffimage;patient;split;edema;mass\r\na.png;p1;training;1,0;0,0\r\n"
            "b.png;p1;training;1;1\r\n;;;;\r\nc.png;p2;validation;0;1\r\nd.png;p3;test;0;0\r\n",
            "image\tpatient\tsplit\tedema\tmass\na.png\tp1\ttraining\tyes\tno\nb.png\tp1\ttraining\tTrue\ttrue\n"
            'c.png\tp2\tvalidation\t0.0\t1.0\n"d.png"\tp3\ttest\tFALSE\t0\n\n',
            '"image", patient ,split,edema,mass,\n a.png ,p1,training, 1 ,0,\nb.png,p1,training,1,1,\n'
            "c.png,p2,validation,0,1,\nd.png,p3,test,0,0,\n",
        ):
            (self.root / "labels.csv").write_bytes(text.encode())
            items = load_label_table(self.root / "labels.csv", self.root, ["edema", "mass"])
            strip = [{k: v for k, v in item.items() if k != "key"} for item in items]
            self.assertEqual(strip, [{k: v for k, v in item.items() if k != "key"} for item in expected])
        self.refused("row 1: every column must have a name of its own, 'mass' is there twice", [], "image,mass,mass\n")
        self.refused("row 2: must have at most 3 cells, as the header, got 4", ["a,b.png,1,0"], "image,edema,mass\n")
        self.refused("row 2: label 'mass' must be 0 or 1, got 'nan'", ["a.png,1,nan"], "image,edema,mass\n")

    def test_training_needs_both_values_of_a_class(self):
        for value, rows in (
            (1, ["a.png,training,1,1", "b.png,training,1,0"]),
            (0, ["a.png,training,0,1", "b.png,training,0,0"]),
        ):
            rows += ["c.png,test,1,1", "d.png,test,1,1"]
            rule = f"class 'edema' must have images with and without it to train on, it is {value} in every row"
            self.refused(rule, rows, "image,split,edema,mass\n", split="training")

    def test_pointer_of_git_lfs(self):
        (self.root / "a.png").write_text("version https://git-lfs.github.com/spec/v1\n")
        self.refused("row 2: image 'a.png' cannot be read: a pointer of Git LFS; 'git lfs pull' fetches the file", ROWS)

    def test_missing_column(self):
        self.refused(
            "labels.csv row 1: column 'mass' is missing, the columns are", ROWS, "image,patient,split,edema,x\n"
        )
        self.refused("column 'split' is missing", ["a.png,1,1"], "image,edema,mass\n", split="training")

    def test_label_not_binary(self):
        self.refused("labels.csv row 4: label 'mass' must be 0 or 1, got '2'", [*ROWS[:2], "c.png,p2,validation,0,2"])
        self.refused("row 2: label 'mass' must be 0 or 1, got ''", ["a.png,p1,training,1,"])

    def test_class_with_one_sample(self):
        self.refused("'edema' must have at least two positive images, it has one, row 2", [ROWS[0], ROWS[2], ROWS[3]])
        self.refused("'edema' must have at least two positive images, it has none", ROWS[2:])

    def test_a_table_to_test_with_may_lack_a_finding(self):
        rows = ["a.png,p1,test,0,1", "b.png,p2,test,0,0"]
        (self.root / "labels.csv").write_text("image,patient,split,edema,mass\n" + "\n".join(rows) + "\n")
        items = load_label_table(self.root / "labels.csv", self.root, ["edema", "mass"], "test")
        self.assertEqual([item["label"] for item in items], [[0, 1], [0, 0]])
        self.refused("'edema' must have at least two positive images, it has none", rows)

    def test_patient_in_two_splits(self):
        self.refused(
            "row 4: the patient is in split 'validation' here and in 'training' in row 2",
            [*ROWS[:2], "c.png,p1,validation,0,1"],
        )

    def test_image_listed_twice(self):
        self.refused(
            "row 4: image 'a.png' is listed already in labels.csv row 2", [*ROWS[:2], "./a.png,p1,training,0,1"]
        )

    def test_image_outside_or_absent(self):
        self.refused("row 2: image '../a.png' must lie in '.*'; --allow_outside True", ["../a.png,p1,training,1,0"])
        self.refused("row 2: image 'x.png' cannot be read: it does not exist", ["x.png,p1,training,1,0"])
        self.refused("row 2: image must not be empty", [",p1,training,1,0"])

    def test_exclusive_classes(self):
        self.refused("row 3: exactly one class must be 1, got 2", ROWS, exclusive=True)
        self.refused("exclusive must be True or False, got 'false'", ROWS, exclusive="false")

    def test_unknown_and_empty_split(self):
        self.refused("row 2: split must be one of .*, got 'dev'", ["a.png,p1,dev,1,0"])
        self.refused("split must be one of .*, got 'dev'", ROWS, split="dev")
        self.refused("split 'test' must have rows", ["a.png,p1,training,1,1", "b.png,p1,training,1,1"], split="test")

    def test_names_of_before_are_understood_and_hinted_at_once(self):
        new = self.load(ROWS)
        old = [row.replace("training", "train").replace("validation", "Val") for row in ROWS]
        for split, part in ((None, new), ("val", new[2:3]), ("test", new[3:])):
            with self.subTest(split=split), self.assertLogs("bundle.lists.table", "INFO") as logs:
                table = self.root / f"{split}.csv"
                table.write_text("\n".join([HEADER.strip().replace("image", "path"), *old]))
                for _ in range(2):
                    self.assertEqual(load_label_table(table, self.root, ["edema", "mass"], split), part)
            hint = "'path' is 'image' now, 'train' is 'training' now, 'val' is 'validation' now"
            self.assertEqual([line.split(": ")[1] for line in logs.output], [f"{hint}; the names of before still work"])

    def test_old_and_new_names_in_one_table(self):
        rule = r"split must be one of \['training', 'validation', 'test'\] in all rows"
        self.refused(f"labels.csv: {rule}, got 'val' in row 4 and 'training' in row 2", [*ROWS[:2], "c.png,p2,val,0,1"])
        self.refused(f"{rule}, got 'train' in row 2 and 'training' in row 3", ["a.png,p1,train,1,0", ROWS[1]])
        self.refused(
            "labels.csv row 1: 'path' is the old name of the column 'image', both are there",
            [row.replace(",", ",,", 1) for row in ROWS],
            HEADER.replace("image", "image,path"),
        )

    def test_no_table(self):
        with self.assertRaisesRegex(FileNotFoundError, "must be an existing CSV file"):
            load_label_table(self.root / "none.csv", self.root, ["a"])

    def test_as_people_write_them(self):
        expected = (
            ["image", "label"],
            [(2, {"image": "a b.png", "label": "0"}), (4, {"image": "c;d,e.png", "label": "1"})],
        )
        table = self.root / "t.csv"
        for text in (
            'image,label\na b.png,0\n\n"c;d,e.png",1\n',
            '\ufeffimage;label\r\na b.png;0\r\n;\r\n"c;d,e.png";1\r\n',
            " image \t label \na b.png\t0\n\t\nc;d,e.png\t1\t\n",
            'path,label,\n a b.png , 0 ,\n,,\n"c;d,e.png",1,\n',
        ):
            for encoding in ("utf-8", "utf-16"):
                table.write_bytes(text.encode(encoding))
                columns, rows = read_table(table)
                self.assertEqual((columns, [(n, dict(sorted(row.items()))) for n, row in rows]), expected, text)
        for content, message in (
            (
                b"image,label,label\na.png,0,1",
                "t.csv row 1: every column must have a name of its own, 'label' is there",
            ),
            (b"image,label\na,b.png,0", "t.csv row 2: must have at most 2 cells, as the header, got 3"),
            (b"image\nM\xfcller.png", "'t.csv' must be a table in UTF-8, it is not; save it as 'CSV UTF-8'"),
            (b"", "t.csv must have rows and a column 'image'"),
        ):
            table.write_bytes(content)
            with self.assertRaisesRegex(ValueError, message):
                read_table(table)


if __name__ == "__main__":
    unittest.main()
