# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
import unittest
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.lists import AnomalyDataList
from bundle.lists.normals import item_key
from bundle.lists.splits import with_folds


class DataListTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root, self.drawn = Path(folder.name), 0

    def pictures(self, folder: str, count: int, stem: str = "image ") -> None:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            self.drawn += 1  # no two pictures are the same
            Image.new("I;16", (2, 2), self.drawn).save(self.root / folder / f"{stem}{i}.png")

    def noise(self, name: str, seed: int, size: tuple[int, int] = (120, 100)) -> Image.Image:
        """Save a picture that no other seed's resembles."""
        small = np.random.default_rng(seed).integers(0, 256, (20, 20), dtype=np.uint8)
        picture = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.root / name)
        return picture

    def touch(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(name)

    def write(self, name: str, text: str) -> Path:
        (self.root / name).write_text(text)
        return self.root / name


class TestAnomalyDataList(DataListTestCase):
    def check(self, data: AnomalyDataList, layout: str, training: int, normal: int, abnormal: int) -> None:
        self.assertEqual(data.layout, layout)
        self.assertEqual(len(data.training) + len(data.validation), training)
        self.assertEqual(Counter(i["label"] for i in data.test), Counter({0: normal, 1: abnormal}))
        everything = data.training + data.validation + data.test
        self.assertEqual(len({i["image"] for i in everything}), len(everything))
        self.assertEqual(len({i["key"] for i in everything}), len(everything))
        self.assertEqual({tuple(i) for i in everything}, {("image", "label", "key", "patient")})

    def test_good_tree(self):
        self.pictures("train/good", 8)
        self.pictures("test/good", 2)
        self.pictures("test/crack", 3)
        self.pictures("test/hole", 1)
        self.check(AnomalyDataList(self.root), "good_tree", 8, 2, 4)

    def test_an_image_beside_the_one_folder_is_not_left_out_unsaid(self):
        self.pictures("set/no", 6)
        self.pictures("set/yes", 5)
        self.touch("README")
        self.assertEqual(AnomalyDataList(self.root).layout, "brainmri")
        self.pictures("", 1)
        with self.assertRaisesRegex(ValueError, "can be taken for normal, it has folders named yes"):
            AnomalyDataList(self.root)

    def test_good_tree_in_capitals(self):
        self.pictures("Train/Good", 8)
        self.pictures("Test/Good", 2)
        self.pictures("Test/Crack", 3)
        self.check(AnomalyDataList(self.root), "good_tree", 8, 2, 3)

    def test_covid19(self):
        for folder, count in (("train/NORMAL", 6), ("test/NORMAL", 2), ("test/PNEUMONIA", 3), ("train/PNEUMONIA", 2)):
            self.pictures(folder, count)
        self.check(AnomalyDataList(self.root), "covid19", 6, 2, 3)

    def test_brainmri_has_the_counts_of_table_2(self):
        self.pictures("no", 98)
        self.pictures("yes", 5)
        data = AnomalyDataList(self.root)
        self.check(data, "brainmri", 58, 40, 5)
        again, other = AnomalyDataList(self.root), AnomalyDataList(self.root, seed=1)
        self.assertEqual(data.test, again.test)
        self.assertNotEqual(data.test, other.test)

    def test_copies_of_an_image_stay_on_one_side(self):
        self.pictures("no", 98)
        self.pictures("yes", 5)
        for i in range(0, 98, 2):
            shutil.copy(self.root / "no" / f"image {i}.png", self.root / "no" / f"image {i + 1}.png")
        for seed in range(3):
            data = AnomalyDataList(self.root, seed=seed)
            self.check(data, "brainmri", 58, 40, 5)
            parts = [{Path(i["image"]).read_bytes() for i in p} for p in (data.training, data.validation, data.test)]
            self.assertEqual(len(parts[0] | parts[1] | parts[2]), sum(len(part) for part in parts))
            folds = with_folds(data.training + data.validation)
            contents = {(Path(i["image"]).read_bytes(), i["fold"]) for i in folds}
            self.assertEqual(len(contents), 29)

    def test_frames_of_a_file_and_images_of_a_patient_stay_on_one_side(self):
        frames = [f"loop{i % 4}.dcm#frame={i // 4},0,train" for i in range(20)]
        self.touch(*(f"loop{i}.dcm" for i in range(4)))
        data = AnomalyDataList(self.write("frames.csv", "\n".join(["image,label,split", *frames])))
        files = [{i["image"].split("#")[0] for i in items} for items in (data.training, data.validation)]
        self.assertFalse(files[0] & files[1])
        self.assertEqual(
            len({(i["image"].split("#")[0], i["fold"]) for i in with_folds(data.training, 2)}), len(files[0])
        )

    def copied(self, source: str, *names: str) -> None:
        """Save rescaled, re-encoded, cropped and padded copies of a picture."""
        with Image.open(self.root / source) as picture:
            crop = picture.crop((2, 1, picture.width - 1, picture.height - 2)).resize((70, 90))
            padded = Image.new("L", (150, 150))
            padded.paste(picture, (10, 20))
            for name, copy in zip(names, (picture.resize((60, 50)), crop, padded), strict=False):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                copy.save(self.root / name)

    def test_near_copies_stay_on_one_side(self):
        # rescaled, re-encoded, cropped or padded copies differ in every byte, so SHA-256 cannot see them
        for i in range(40):
            self.noise(f"no/{i}.png", i)
            self.copied(f"no/{i}.png", f"no/copy {i}.jpg", f"no/another {i}.png", f"no/padded {i}.bmp")
        for i in range(3):
            self.noise(f"yes/{i}.png", 100 + i)
        self.copied("no/0.png", "yes/same.jpg")
        for seed in range(3):
            out = self.root / "near_copies.csv"
            with self.assertLogs("bundle.lists", "INFO") as logs:
                data = AnomalyDataList(self.root, layout="brainmri", seed=seed, copies_file=out)
            picture = [
                {re.sub(r"\D", "", Path(i["image"]).stem) for i in p if not i["label"]} for p in self.parts(data)
            ]
            self.assertEqual(len(set().union(*picture)), sum(map(len, picture)))
            folds = with_folds(data.training + data.validation)
            numbers = {(re.sub(r"\D", "", Path(i["image"]).stem), i["fold"]) for i in folds}
            self.assertEqual(len(numbers), len({number for number, _ in numbers}))
            self.assertRegex("\n".join(logs.output), r"one picture under two labels: '(no|yes)/.*' \([01]\) and ")
            same = next((i for i in data.test if i["image"].endswith("same.jpg")), None)
            self.assertEqual(same is None, "0" in picture[0] | picture[1])
            rows = list(csv.DictReader(out.open()))
            self.assertGreaterEqual(len(rows), 121)
            self.assertTrue(all(float(row["correlation"]) >= 0.91 for row in rows))
            self.assertEqual({row["second_split"] for row in rows} - {""}, {"training", "validation", "test"})
        with self.assertNoLogs("bundle.lists.near_copies"):
            plain = AnomalyDataList(self.root, layout="brainmri", group_pictures=False)
        self.assertEqual({i["patient"] for i in plain.training}, {""})

    def parts(self, data: AnomalyDataList) -> tuple[list[dict], ...]:
        return data.training, data.validation, data.test

    def test_near_copies_across_a_given_split_are_told_and_stay(self):
        for i in range(8):
            self.noise(f"train/good/{i}.png", i)
        self.copied("train/good/0.png", "test/good/copy.jpg")
        self.copied("train/good/1.png", "test/crack/copy.jpg")
        with self.assertLogs("bundle.lists", "WARNING") as logs:
            data = AnomalyDataList(self.root, copies_file=self.root / "list.csv")
        text = "\n".join(logs.output)
        self.assertIn("2 test images are of patients, or copies of images, that training has too", text)
        self.assertIn("one picture under two labels: 'train/good/1.png' (0) and 'test/crack/copy.jpg' (1)", text)
        self.assertEqual((len(data.training) + len(data.validation), len(data.test)), (8, 2))
        rows = list(csv.DictReader((self.root / "list.csv").open()))
        self.assertEqual([row["second_split"] for row in rows], ["test", "test"])

    def test_a_split_that_shares_images_is_told(self):
        self.pictures("train/good", 8)
        self.pictures("test/good", 2)
        shutil.copy(self.root / "train/good/image 0.png", self.root / "test/good/copy.png")
        with self.assertLogs("bundle.lists.normals", "WARNING") as logs:
            AnomalyDataList(self.root)
        self.assertIn("1 test images are of patients, or copies of images, that training has too", logs.output[0])

    def test_busi_in_capitals_leaves_its_masks_out(self):
        self.pictures("Normal", 9)
        self.pictures("Normal", 9, "image (1)_mask")
        self.pictures("Benign", 2)
        self.pictures("MALIGNANT", 3)
        self.check(AnomalyDataList(self.root), "busi", 6, 3, 5)

    def test_sipakmed_leaves_its_cropped_cells_out(self):
        for name in ("im_Superficial-Intermediate", "im_Parabasal", "im_Dyskeratotic", "im_Koilocytotic"):
            self.pictures(f"{name}/{name}", 6)
            self.pictures(f"{name}/{name}/CROPPED", 4)
        self.check(AnomalyDataList(self.root), "sipakmed", 8, 4, 12)

    def test_a_folder_whose_folders_say_otherwise_is_not_all_normal(self):
        names = "malignant PNEUMONIA tumor yes abnormal covid COVID-19 test Benign cancer val Defect not_normal".split()
        for name in names:
            with self.subTest(name=name):
                shutil.rmtree(self.root)
                self.pictures(f"a/{name}/deeper", 5)
                with self.assertRaisesRegex(
                    ValueError, f"taken for normal, it has folders named {name}: give .*--layout"
                ):
                    AnomalyDataList(self.root)
                self.check(AnomalyDataList(self.root, layout="flat"), "flat", 5, 0, 0)
                self.check(AnomalyDataList(self.root / "a" / name), "flat", 5, 0, 0)

    def test_a_normal_folder_beside_others_says_that_the_others_are_not(self):
        # as downloaded: IQ-OTHNCCD, the brain tumor MRI set, OCT of Kermany; and names in other languages
        for names in (
            ("Bengin cases", "Normal cases"),
            ("glioma", "notumor", "pituitary"),
            ("NORMAL", "DRUSEN"),
            ("Gesund", "Krank \u00e8"),
            ("scans of Malignant cases",),
        ):
            with self.subTest(names=names):
                shutil.rmtree(self.root)
                for name in names:
                    self.pictures(f"{name}", 5)
                with self.assertRaisesRegex(ValueError, "can be taken for normal, it has folders named"):
                    AnomalyDataList(self.root)
        shutil.rmtree(self.root)
        self.pictures("normal 1", 5)
        self.pictures("normal 2", 5)
        self.assertGreater(len(AnomalyDataList(self.root).training), 0)

    def test_every_other_folder_is_normal(self):
        self.pictures("a/b", 5)
        self.check(AnomalyDataList(self.root), "flat", 5, 0, 0)

    def test_csv(self):
        rows = [f"{i}.png,0,train,p{i % 3}" for i in range(6)] + ["x.png,1,test,", "y.png,0,test,p9", "z.png,1,train,"]
        path = self.write("list.csv", "\n".join(["image,label,split,patient", *rows]))
        self.touch(*(f"{name}.png" for name in "012345xyz"))
        with self.assertLogs("bundle.lists.normals", "WARNING") as logs:
            data = AnomalyDataList(path)
        self.assertIn("1 abnormal images for training or validation are left out", logs.output[0])
        self.assertEqual(data.test[0]["image"], str(self.root / "x.png"))
        self.assertEqual(len(data.training) + len(data.validation), 6)
        patients = [{i["patient"] for i in items} for items in (data.training, data.validation)]
        self.assertFalse(patients[0] & patients[1])

    def test_images_for_validation_of_ones_own_are_held_back(self):
        # 5 normals to train with and 2 for validation as the table says; the two abnormal ones among them teach nothing
        rows = [
            f"{i}.png,{split},{label},p{i}"
            for i, (split, label) in enumerate(
                [
                    *[("training", 0)] * 5,
                    ("training", 1),
                    ("validation", 0),
                    ("validation", 0),
                    ("validation", 1),
                    ("test", 1),
                ]
            )
        ]
        self.touch(*(f"{i}.png" for i in range(10)))
        table = self.write("list.csv", "\n".join(["image,split,label,patient", *rows]))
        lists: dict[str, list] = {"training": [], "validation": [], "test": []}
        for row in csv.DictReader(table.open()):
            lists[row["split"]].append({"image": row["image"], "label": int(row["label"]), "patient": row["patient"]})
        for path in (table, self.write("list.json", json.dumps(lists))):
            with self.assertLogs("bundle.lists.normals", "WARNING") as logs:
                data = AnomalyDataList(path, held_back=0.5)
            self.assertIn("2 abnormal images for training or validation are left out", logs.output[0])
            names = [[Path(item["image"]).stem for item in items] for items in self.parts(data)]
            self.assertEqual(names, [["0", "1", "2", "3", "4"], ["6", "7"], ["9"]])
            self.assertEqual(sorted(Path(item["image"]).stem for item in data.left_out), ["5", "8"])
        self.write("list.csv", table.read_text().replace("6.png,validation,0,p6", "6.png,validation,0,p1"))
        with self.assertLogs("bundle.lists.normals", "WARNING") as logs:
            AnomalyDataList(table)
        self.assertIn("1 validation images are of patients, or copies of images, that training has", logs.output[1])

    def test_json(self):
        self.touch(*(f"a/{i}.png" for i in range(5)), "b/t.png")
        test = [{"image": str(self.root / "b/t.png"), "label": 1}]
        path = self.write(
            "a/list.json", json.dumps({"training": [{"image": f"{i}.png"} for i in range(5)], "test": test})
        )
        self.check(AnomalyDataList(path, allow_outside=True), "json", 5, 0, 1)

    def test_one_line_for_every_mistake(self):
        self.touch("x.png")
        self.write("lfs.png", "version https://git-lfs.github.com/spec/v1\n")
        for name, text, message in (
            ("a.csv", "file\nx.png", "a.csv must have rows and a column 'image', got columns \\['file'\\]"),
            ("b.csv", "image,label\nx.png,2", "b.csv row 2: label 'label' must be 0 or 1, got '2'"),
            ("c.csv", "image,label\n,0", "c.csv row 2: image must not be empty"),
            ("d.csv", "image,label\nx.png,1", "d.csv has abnormal images, so it needs a column 'split'"),
            (
                "e.csv",
                "image,split\nx.png,dev",
                r"e.csv row 2: split must be one of \['training', 'validation', 'test'\], got 'dev'",
            ),
            ("f.json", "{", "'f.json' must be a MONAI data list, it is not JSON"),
            ("g.json", "[]", "'g.json' must be a MONAI data list with a list 'training'"),
            ("h.json", '{"training": [{"label": 0}]}', r"'h.json' training\[0\]: needs an 'image'"),
            ("i.json", '{"training": ["x.png"]}', r"'i.json' training\[0\]: needs an 'image'"),
            ("j.txt", "", "dataset_dir must be a folder, a CSV or a JSON file, got 'j.txt'"),
            ("k.csv", "image\nx.png", "training needs at least 4 normal images, found 1"),
            ("l.csv", "image,label\nx.png,", "l.csv row 2: label 'label' must be 0 or 1, got ''"),
            ("m.csv", "image,label\nx.png,nan", "m.csv row 2: label 'label' must be 0 or 1, got 'nan'"),
            ("n.csv", "image\ny.png\n\nx.png", "n.csv row 2: image 'y.png' cannot be read: it does not exist"),
            ("o.csv", "image\nx.png\n./x.png", "o.csv row 3: image 'x.png' is listed already in o.csv row 2"),
            (
                "p.csv",
                "image\nlfs.png",
                "p.csv row 2: image 'lfs.png' cannot be read: a pointer of Git LFS; 'git lfs pull'",
            ),
            (
                "q.json",
                '{"training": [{"image": "x.png", "label": NaN}]}',
                r"training\[0\]: label must be 0 or 1, got nan",
            ),
            ("r.json", '{"training": [{"image": ["x.png"]}]}', r"'r.json' training\[0\]: needs an 'image'"),
            (
                "s.csv",
                "image,label,split\nx.png,1,train",
                r"no normal training images|at least 4 normal images, found 0",
            ),
        ):
            with self.subTest(name=name), self.assertRaisesRegex(ValueError, message):
                AnomalyDataList(self.write(name, text))
        for path in ("", self.root / "nothing"):
            with self.assertRaisesRegex(FileNotFoundError, "dataset_dir must be an existing folder, CSV or JSON"):
                AnomalyDataList(path)
        with self.assertRaisesRegex(ValueError, "layout must be auto or one of .* got 'mvtec'"):
            AnomalyDataList(self.root, "mvtec")
        empty = self.root / "empty"
        empty.mkdir()
        with self.assertRaisesRegex(ValueError, r"no normal training images found in 'empty' \(layout flat\)"):
            AnomalyDataList(empty)


class TestHelpers(DataListTestCase):
    def test_item_key(self):
        self.assertEqual(item_key(3, "a/Müller (1).nii.gz"), "000003_M_ller_1_")
        self.assertEqual(len(item_key(0, "x" * 300 + ".png")), 47)

    def test_copies_in_a_table(self):
        self.pictures("", 10)
        for i in range(10):
            shutil.copy(self.root / f"image {i}.png", self.root / f"copy {i}.png")
        names = [f"{kind} {i}.png" for kind in ("image", "copy") for i in range(10)]
        data = AnomalyDataList(self.write("list.csv", "\n".join(["image", *names])))
        contents = [{Path(i["image"]).read_bytes() for i in items} for items in (data.training, data.validation)]
        self.assertFalse(contents[0] & contents[1])


if __name__ == "__main__":
    unittest.main()
