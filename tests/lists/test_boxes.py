# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.lists.boxes import (
    BOX_CLASSES,
    box_of_mask,
    has_boxes,
    items_with_boxes,
    mining_table,
    read_boxes,
    read_chestxray14_boxes,
    read_coco_boxes,
)
from bundle.lists.known_sets.chestxray14 import chestxray14_table

HEAD = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
# the official files are data and not part of the repository; what they hold is tested on files made here too
ANNOTATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"


class TestChestXray14Boxes(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def write(self, rows):
        path = self.folder / "BBox_List_2017.csv"
        path.write_text(HEAD + rows)
        return path

    def test_boxes_as_edges_by_image_and_label(self):
        path = self.write("a.png,Infiltrate,10,20,30.5,40,,,\na.png,Mass,0,0,5,5,,,\na.png,Mass,7,7,5,5,,,\n")
        found = read_chestxray14_boxes(path)["a.png"]
        self.assertEqual(found["Infiltration"].tolist(), [[10, 20, 40.5, 60]])
        self.assertEqual(found["Mass"].shape, (2, 4))

    def test_box_over_the_border_is_clipped_and_one_outside_refused(self):
        found = read_chestxray14_boxes(self.write("a.png,Mass,1000,-4,50,20,,,\n"))
        self.assertEqual(found["a.png"]["Mass"].tolist(), [[1000, 0, 1024, 16]])
        with self.assertRaisesRegex(ValueError, "'b.png': boxes must overlap the image of 1024 rows"):
            read_chestxray14_boxes(self.write("b.png,Mass,1100,0,50,20,,,\n"))

    def test_other_files_are_refused(self):
        with self.assertRaisesRegex(ValueError, "findings must be among .* got 'Hernia' for 'a.png'"):
            read_chestxray14_boxes(self.write("a.png,Hernia,1,1,2,2,,,\n"))
        path = self.folder / "other.csv"
        path.write_text("name,label\n")
        with self.assertRaisesRegex(ValueError, "'other.csv' must begin with"):
            read_chestxray14_boxes(path)

    def test_gzipped(self):
        path = self.folder / "list.csv.gz"
        with gzip.open(path, "wt") as file:
            file.write(HEAD + "a.png,Mass,1,2,3,4,,,\n")
        self.assertEqual(read_chestxray14_boxes(path)["a.png"]["Mass"].tolist(), [[1, 2, 4, 6]])

    @pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the official annotation files are not here")
    def test_official_file(self):
        found = read_chestxray14_boxes(ANNOTATIONS / "BBox_List_2017.csv.gz")
        self.assertEqual(len(found), 880)
        counts = {c: sum(len(boxes.get(c, ())) for boxes in found.values()) for c in BOX_CLASSES}
        self.assertEqual(list(counts.values()), [180, 146, 153, 123, 85, 79, 120, 98])


class TestCocoBoxes(unittest.TestCase):
    def test_boxes_by_file_name(self):
        content = {
            "images": [{"id": 1, "file_name": "tb/x.png", "width": 100, "height": 50}],
            "categories": [{"id": 4, "name": "ActiveTuberculosis"}],
            "annotations": [{"image_id": 1, "category_id": 4, "bbox": [90, 40, 30, 5]}],
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "coco.json"
            path.write_text(json.dumps(content))
            found = read_coco_boxes(path)
            by_suffix = read_boxes(path)
            path.write_text("{}")
            with self.assertRaisesRegex(ValueError, "'coco.json' must be a COCO detection file"):
                read_coco_boxes(path)
        self.assertEqual(found["x.png"]["ActiveTuberculosis"].tolist(), [[90, 40, 100, 45]])
        self.assertEqual(by_suffix["x.png"].keys(), found["x.png"].keys())

    COCO = {
        "images": [{"id": i, "file_name": f"{d}/x.png", "width": 9, "height": 9} for i, d in enumerate("ab")],
        "categories": [{"id": 4, "name": "TB"}],
        "annotations": [{"image_id": i, "category_id": 4, "bbox": [i, 0, 2, 2]} for i in range(2)],
    }

    def read(self, text: str):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "coco.json"
            path.write_text(text, encoding="utf-8")
            return read_coco_boxes(path)

    def test_folders_tell_images_of_one_name_apart(self):
        found = self.read(json.dumps(self.COCO))
        self.assertEqual([found[f"/data/{d}/x.png"]["TB"].tolist()[0][0] for d in "ab"], [0, 1])
        self.assertEqual([boxes["TB"].tolist()[0][0] for boxes in found.values()], [0, 1])  # as an evaluation does
        with self.assertRaisesRegex(ValueError, r"'x.png' may be one of \['a/x.png', 'b/x.png'\]"):
            found["/data/c/x.png"]
        items = [{"image": "/data/a/x.png"}, {"image": "/data/b/x.png"}, {"image": "/data/a/y.png"}]
        self.assertEqual(has_boxes(items, found), [True, True, False])
        one = self.read(
            json.dumps(
                {
                    **self.COCO,
                    "images": [{**self.COCO["images"][0], "file_name": "x.png"}] * 1,
                    "annotations": self.COCO["annotations"][:1],
                }
            )
        )
        with self.assertRaisesRegex(ValueError, "those of 'x.png' fit two images, in 'a' and 'b'"):
            has_boxes(items, one)

    def test_one_line_for_every_mistake(self):
        def changed(part: str, **changes) -> str:
            entry = {k: v for k, v in {**self.COCO[part][0], **changes}.items() if v != "gone"}
            return json.dumps({**self.COCO, part: [entry, *self.COCO[part][1:]]})

        for text, message in (
            (changed("images", file_name="gone"), r"'coco.json' images\[0\]: 'file_name' is missing"),
            (changed("images", height="gone"), r"images\[0\]: 'height' is missing"),
            (changed("images", width="x"), r"image 0, height and width: must be finite numbers, got \[9, 'x'\]"),
            (changed("images", id=1), r"images\[1\]: id must be a number or a word of its own, got 1"),
            (changed("categories", name="gone"), r"categories\[0\]: 'name' is missing"),
            (changed("annotations", image_id="gone"), r"annotations\[0\]: 'image_id' is missing"),
            (changed("annotations", category_id="gone"), r"annotations\[0\]: 'category_id' is missing"),
            (changed("annotations", image_id=7), r"annotations\[0\]: image_id must be that of an entry .* got 7"),
            (changed("annotations", category_id=[1]), r"annotations\[0\]: category_id must be that of an entry"),
            (changed("annotations", bbox="gone"), r"annotations\[0\]: 'bbox' is missing"),
            (changed("annotations", bbox=[1, 2]), r"annotations\[0\]: bbox must be left, upper, width and height"),
            (changed("annotations", bbox=[1, 2, float("nan"), 3]), r"annotations\[0\]: must be finite numbers"),
            (json.dumps({**self.COCO, "images": ["x"]}), r"images\[0\]: must be an object, got 'x'"),
            (json.dumps({**self.COCO, "images": {}}), r"it has no \['images'\]"),
            ("[]", "must be a COCO detection file, it has no"),
            ("{", "must be a COCO detection file, it is not JSON"),
        ):
            with self.subTest(message=message), self.assertRaisesRegex(ValueError, message) as caught:
                self.read(text)
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(FileNotFoundError, "boxes must be an existing file, got ''"):
            read_coco_boxes("")


class TestMiningSet(unittest.TestCase):
    def test_annotated_images_join_the_training_images_and_their_patients_leave_the_others(self):
        rows = [
            {"image": f"{name}.png", "patient": patient, "split": split, "label": [1]}
            for name, patient, split in (("a", 1, "training"), ("b", 2, "test"), ("c", 2, "test"), ("d", 3, "test"))
        ]
        table = mining_table(rows, {"b.png"})
        self.assertEqual(
            [(r["image"], r["split"]) for r in table], [("a.png", "training"), ("b.png", "training"), ("d.png", "test")]
        )
        self.assertEqual(rows[1]["split"], "test")
        with self.assertRaisesRegex(ValueError, "must have some of the 1 annotated images"):
            mining_table(rows, {"x.png"})

    def test_items_by_name(self):
        items = [{"image": "folder/a.png"}, {"image": "folder/b.png"}]
        self.assertEqual(has_boxes(items, {"b.png"}), [False, True])
        self.assertEqual(items_with_boxes(items, {"b.png"}), items[1:])
        self.assertEqual(items_with_boxes(items, None), items)
        with self.assertRaisesRegex(ValueError, "some of 2 images must be among the 1 annotated ones"):
            items_with_boxes(items, {"x.png"})

    @pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the official annotation files are not here")
    def test_official_files(self):
        boxes = read_chestxray14_boxes(ANNOTATIONS / "BBox_List_2017.csv.gz")
        table = mining_table(chestxray14_table(ANNOTATIONS / "Data_Entry_2017_v2020.csv.gz"), boxes)
        home = {}
        for row in table:
            self.assertEqual(home.setdefault(row["patient"], row["split"]), row["split"])
        mined = [row for row in table if row["image"] in boxes]
        self.assertEqual((len(mined), {row["split"] for row in mined}), (880, {"training"}))


class TestBoxOfMask(unittest.TestCase):
    def test_hand_computed_value_and_empty_mask(self):
        mask = np.zeros((8, 6), dtype=np.uint8)
        mask[2:5, 1:4] = 255
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.png"
            Image.fromarray(mask).save(path)
            self.assertEqual(box_of_mask(path).tolist(), [1, 2, 4, 5])
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
            with self.assertRaisesRegex(ValueError, "'mask.png' is empty"):
                box_of_mask(path)


if __name__ == "__main__":
    unittest.main()
