# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from PIL import Image

from bundle.data import AnomalyDataList
from bundle.data.datalists import item_key, read_table, split_held_back, with_folds, with_made_abnormal
from bundle.data.layouts import _table2


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
        data = AnomalyDataList(self.write("frames.csv", "\n".join(["image,label,split", *frames])))
        files = [{i["image"].split("#")[0] for i in items} for items in (data.training, data.validation)]
        self.assertFalse(files[0] & files[1])
        self.assertEqual(
            len({(i["image"].split("#")[0], i["fold"]) for i in with_folds(data.training, 2)}), len(files[0])
        )
        normals = [{"image": f"{i}.png", "label": 0, "patient": f"p{i % 5}"} for i in range(200)]
        lists = _table2(normals, [], 58, 40, 0)
        train, test = ({i["patient"] for i in lists[name]} for name in ("training", "test"))
        self.assertFalse(train & test)
        self.assertEqual((len(train), len(lists["test"])), (2, 40))

    def test_a_split_that_shares_images_is_told(self):
        self.pictures("train/good", 8)
        self.pictures("test/good", 2)
        shutil.copy(self.root / "train/good/image 0.png", self.root / "test/good/copy.png")
        with self.assertLogs("bundle.data.datalists", "WARNING") as logs:
            AnomalyDataList(self.root)
        self.assertIn("1 test images are of patients, or copies of images, that training has too", logs.output[0])

    def test_busi_leaves_its_masks_out(self):
        self.pictures("normal", 9)
        self.pictures("normal", 9, "image (1)_mask")
        self.pictures("benign", 2)
        self.pictures("malignant", 3)
        self.check(AnomalyDataList(self.root), "busi", 6, 3, 5)

    def test_sipakmed_leaves_its_cropped_cells_out(self):
        for name in ("im_Superficial-Intermediate", "im_Parabasal", "im_Dyskeratotic", "im_Koilocytotic"):
            self.pictures(f"{name}/{name}", 6)
            self.pictures(f"{name}/{name}/CROPPED", 4)
        self.check(AnomalyDataList(self.root), "sipakmed", 8, 4, 12)

    def test_every_other_folder_is_normal(self):
        self.pictures("a/b", 5)
        self.check(AnomalyDataList(self.root), "flat", 5, 0, 0)

    def test_csv(self):
        rows = [f"{i}.png,0,train,p{i % 3}" for i in range(6)] + ["x.png,1,test,", "y.png,0,test,p9", "z.png,1,train,"]
        path = self.write("list.csv", "\n".join(["image,label,split,patient", *rows]))
        with self.assertLogs("bundle.data.datalists", "WARNING") as logs:
            data = AnomalyDataList(path)
        self.assertIn("1 abnormal images in the training list are left out", logs.output[0])
        self.assertEqual(data.test[0]["image"], str(self.root / "x.png"))
        self.assertEqual(len(data.training) + len(data.validation), 6)
        patients = [{i["patient"] for i in items} for items in (data.training, data.validation)]
        self.assertFalse(patients[0] & patients[1])

    def test_json(self):
        content = {"training": [{"image": f"{i}.png"} for i in range(5)], "test": [{"image": "/a/t.png", "label": 1}]}
        path = self.write("list.json", json.dumps(content))
        self.check(AnomalyDataList(path, allow_outside=True), "json", 5, 0, 1)

    def test_one_line_for_every_mistake(self):
        for name, text, message in (
            ("a.csv", "file\nx.png", "'a.csv' must have rows and a column 'image', got columns \\['file'\\]"),
            ("b.csv", "image,label\nx.png,2", "'b.csv' row 2: label must be 0 or 1, got '2'"),
            ("c.csv", "image,label\n,0", "'c.csv' row 2: image must not be empty"),
            ("d.csv", "image,label\nx.png,1", "'d.csv' has abnormal images, so it needs a column 'split'"),
            ("e.csv", "image,split\nx.png,val", "'e.csv' row 2: split must be training or test"),
            ("f.json", "{", "'f.json' must be a MONAI data list, it is not JSON"),
            ("g.json", "[]", "'g.json' must be a MONAI data list with a list 'training'"),
            ("h.json", '{"training": [{"label": 0}]}', r"'h.json' training\[0\]: needs an 'image'"),
            ("i.json", '{"training": ["x.png"]}', r"'i.json' training\[0\]: needs an 'image'"),
            ("j.txt", "", "dataset_dir must be a folder, a CSV or a JSON file, got 'j.txt'"),
            ("k.csv", "image\nx.png", "training needs at least 4 normal images, found 1"),
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

    def test_read_table_keeps_what_is_known(self):
        path = self.write("t.csv", "\ufeffimage,label,site\na.png,,\nb.png,1,north\n")
        self.assertEqual(
            read_table(path), [{"image": "a.png", "label": 0}, {"image": "b.png", "label": 1, "site": "north"}]
        )

    def test_split_held_back(self):
        items = [{"image": str(i), "patient": f"p{i // 4}"} for i in range(40)]
        for seed in range(5):
            training, held = split_held_back(items, 0.2, 10, seed)
            self.assertEqual(len(held), 12)  # whole patients until at least 10
            self.assertEqual(sorted((*training, *held), key=lambda i: int(i["image"])), items)
            self.assertFalse({i["patient"] for i in training} & {i["patient"] for i in held})
        self.assertEqual(len(split_held_back([{"image": str(i)} for i in range(5)], 0.2, 10, 0)[1]), 2)
        self.assertEqual(len(split_held_back([{"image": str(i)} for i in range(100)], 0.2, 10, 0)[1]), 20)

    def test_large_patients_stay_in_training(self):
        for counts, expected in (((50, 10), (50, 10)), ((100, 5, 5, 5), (100, 15)), ((40, 40), (40, 40))):
            items = [{"patient": f"p{p}"} for p, count in enumerate(counts) for _ in range(count)]
            for seed in range(3):
                self.assertEqual(tuple(map(len, split_held_back(items, 0.2, 10, seed))), expected)

    def test_copies_in_a_table(self):
        self.pictures("", 10)
        for i in range(10):
            shutil.copy(self.root / f"image {i}.png", self.root / f"copy {i}.png")
        names = [f"{kind} {i}.png" for kind in ("image", "copy") for i in range(10)]
        data = AnomalyDataList(self.write("list.csv", "\n".join(["image", *names])))
        contents = [{Path(i["image"]).read_bytes() for i in items} for items in (data.training, data.validation)]
        self.assertFalse(contents[0] & contents[1])

    def test_split_needs_enough(self):
        with self.assertRaisesRegex(ValueError, "at least 4 normal images, found 3"):
            split_held_back([{}] * 3, 0.2, 1, 0)
        with self.assertRaisesRegex(ValueError, "at least 2 patients, found 1"):
            split_held_back([{"patient": "a"}] * 8, 0.2, 1, 0)

    def test_with_made_abnormal(self):
        items = [{"image": "a", "key": "0_a", "label": 0}, {"image": "b", "key": "1_b", "label": 0}]
        out = with_made_abnormal(items, copies=1, seed=2)
        self.assertEqual([i["label"] for i in out], [0, 0, 1, 1])
        self.assertEqual([i["made_abnormal_seed"] for i in out], [-1, -1, 2_000_006, 2_000_007])
        self.assertEqual(len({i["key"] for i in out}), 4)
        self.assertEqual(items[0], {"image": "a", "key": "0_a", "label": 0})


if __name__ == "__main__":
    unittest.main()
