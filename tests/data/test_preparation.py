# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from bundle.data.chestxray14 import CHESTXRAY14_CLASSES, chestxray14_table
from bundle.data.image_folders import image_folder_table
from bundle.data.vindr import VINDR_CLASSES, vindr_table


class _InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)


class TestImageFolders(_InFolder):
    def setUp(self):
        super().setUp()
        for name in ("no", "yes"):
            (self.root / name).mkdir()
            for i in range(20):
                (self.root / name / f"{i}.png").write_text(f"{name} {i // 2}")  # every image twice

    def test_copies_stay_in_one_split(self):
        rows = image_folder_table(self.root, {"normal": "no", "tumor": "yes"})
        self.assertEqual(len(rows), 40)
        home = {}
        for row in rows:
            self.assertEqual(home.setdefault(row["patient"], row["split"]), row["split"])
            self.assertEqual(row["label"], [1, 0] if row["path"].startswith("no/") else [0, 1])
        self.assertEqual({row["split"] for row in rows}, {"train", "val", "test"})

    def test_copies_of_test_images_are_not_trained_on(self):
        (self.root / "test").mkdir()
        (self.root / "test" / "t.png").write_text("no 0")
        rows = image_folder_table(self.root, {"a": "no", "b": "yes"}, {"a": "test"}, ("train", "val"))
        self.assertEqual(len(rows), 39)
        self.assertEqual([row["path"] for row in rows if row["split"] == "test"], ["test/t.png"])

    def test_empty_folder(self):
        (self.root / "empty").mkdir()
        with self.assertRaisesRegex(ValueError, "class 'a' must have files, 'empty' has none"):
            image_folder_table(self.root, {"a": "empty"})


class TestVinDr(_InFolder):
    def table(self, lines: list[str], **kwargs) -> dict[str, list[str]]:
        path = self.root / "train.csv"
        filler = [f"x{i},No finding,14,R{r}" for i in range(10) for r in range(3)]
        path.write_text("image_id,class_name,class_id,rad_id\n" + "\n".join(lines + filler))
        rows = vindr_table(path, **kwargs)
        return {r["path"]: [c for c, y in zip(VINDR_CLASSES, r["label"], strict=True) if y] for r in rows}

    def test_readers_vote_and_boxes_do_not(self):
        lines = ["i,ILD,5,R1", "i,ILD,5,R1", "i,Cardiomegaly,3,R1", "i,Cardiomegaly,3,R2", "i,No finding,14,R3"]
        self.assertEqual(self.table(lines)["i.dicom"], ["Cardiomegaly"])
        self.assertEqual(self.table(lines, min_readers=1)["i.dicom"], ["Cardiomegaly", "ILD", "No finding"])

    def test_bad_input(self):
        with self.assertRaisesRegex(ValueError, "train.csv row 2: class must be one of VinDr's 15, got 'Fracture'"):
            self.table(["i,Fracture,5,R1"])
        with self.assertRaisesRegex(ValueError, r"min_readers must be in \[1, 3\], got 4"):
            self.table([], min_readers=4)


class TestChestXray14(_InFolder):
    def setUp(self):
        super().setUp()
        self.entry = self.root / "entry.csv"
        lines = [f"{p}_{i}.png,{'Edema|Mass' if i else 'No Finding'},{p}" for p in range(12) for i in range(2)]
        self.entry.write_text("Image Index,Finding Labels,Patient ID\n" + "\n".join(lines))

    def test_official_split_and_validation_by_patient(self):
        tests = self.root / "test_list.txt"
        tests.write_text("0_0.png\n0_1.png\n")
        rows = chestxray14_table(self.entry, tests)
        self.assertEqual([r["path"] for r in rows if r["split"] == "test"], ["0_0.png", "0_1.png"])
        positive = [c for c, y in zip(CHESTXRAY14_CLASSES, rows[1]["label"], strict=True) if y]
        self.assertEqual((positive, sum(rows[0]["label"])), (["Mass", "Edema"], 0))
        for patient in range(12):
            self.assertEqual(len({r["split"] for r in rows if r["patient"] == str(patient)}), 1)

    def test_own_split(self):
        self.assertEqual({r["split"] for r in chestxray14_table(self.entry)}, {"train", "val", "test"})

    def test_patient_on_both_sides_and_unknown_image(self):
        tests = self.root / "test_list.txt"
        tests.write_text("0_0.png")
        with self.assertRaisesRegex(ValueError, "row 3: the patient is on both sides of test_list.txt"):
            chestxray14_table(self.entry, tests)
        tests.write_text("99_0.png")
        with self.assertRaisesRegex(ValueError, "'99_0.png' is not one"):
            chestxray14_table(self.entry, tests)


if __name__ == "__main__":
    unittest.main()
