# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import csv
import io
import re
import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from bundle.lists import AnomalyDataList
from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES, chestxray14_table
from bundle.lists.known_sets.image_folders import class_folders_of, collection_rows, folder_classes
from bundle.lists.known_sets.layouts import Collection, folder_items
from bundle.lists.known_sets.vindr import VINDR_CLASSES, vindr_classes, vindr_table
from tests.folders import FolderTestCase


class _InFolder(FolderTestCase):
    def picture(self, name: str, seed: int = 0, size: int = 60) -> Path:
        """Save a picture that no other seed's resembles; of one seed a size is a near copy of another."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(path, format="png")
        return path

    def touch(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("no image")


class TestImageFolders(_InFolder):
    def setUp(self):
        super().setUp()
        for name in ("no", "yes"):
            for i in range(20):
                # every image twice, once of them as an identical file, once rescaled
                self.picture(f"{name}/{i}.png", 100 * len(name) + i // 2, 60 + 9 * (i % 2) * (i % 4 == 1))

    def test_copies_stay_in_one_split(self):
        rows = collection_rows(class_folders_of(self.root, {"normal": "no", "tumor": "yes"}), self.root)
        self.assertEqual(len(rows), 40)
        home, pictures = {}, {}
        for row in rows:
            self.assertEqual(home.setdefault(row["patient"], row["split"]), row["split"])
            picture = (row["label"][0], int(Path(row["image"]).stem) // 2)
            self.assertEqual(pictures.setdefault(picture, row["patient"]), row["patient"])
            self.assertEqual(row["label"], [1, 0] if row["image"].startswith("no/") else [0, 1])
        self.assertEqual({row["split"] for row in rows}, {"training", "validation", "test"})
        self.assertEqual(len(home), 20)

    def test_copies_of_test_images_are_not_trained_on(self):
        self.picture("test/t.png", 200, 77)
        with self.assertLogs("bundle.lists.known_sets.image_folders", "WARNING") as logs:
            folders = (("a", "no", "training"), ("b", "yes", "training"), ("a", "test", "test"))
            items = [item for name, *place in folders for item in folder_items(self.root, place[0], [name], place[1])]
            rows = collection_rows(Collection(items, ("a", "b"), None), self.root, ("training", "validation"))
        self.assertEqual(len(rows), 39)
        self.assertEqual([row["image"] for row in rows if row["split"] == "test"], ["test/t.png"])
        self.assertIn(
            "2 images are left out: they are of patients, or copies of images, of the data set's own", logs.output[0]
        )

    def test_empty_folder_and_folders_of_a_split(self):
        (self.root / "empty").mkdir()
        with self.assertRaisesRegex(ValueError, "class 'a' must have images, 'empty' has none"):
            class_folders_of(self.root, {"a": "empty"})
        self.assertEqual(folder_classes(self.root), {"empty": "empty", "no": "no", "yes": "yes"})
        (self.root / "Test").mkdir()
        with self.assertRaisesRegex(ValueError, "must have one folder a class, .* none named for a split, got .*Test"):
            folder_classes(self.root)


class TestDownloads(_InFolder):
    """Data sets laid out as people download them, for anomaly detection (normals) and label tables alike."""

    def both(self, classes: list[str], normal: set[str], abnormal: set[str], out: set[str]) -> list[dict]:
        """Check what AnomalyDataList and prepare_labels make of the folder; return the rows of the table."""
        data = AnomalyDataList(self.root)
        listed = [data.training + data.validation + data.test]
        found = {Path(i["image"]).relative_to(self.root).as_posix(): i["label"] for i in listed[0]}
        self.assertEqual({name for name, label in found.items() if not label}, normal)
        self.assertEqual({name for name, label in found.items() if label}, abnormal)
        with tempfile.TemporaryDirectory() as folder:
            rows = self.prepared("auto", Path(folder) / "labels.csv")
        self.assertEqual(list(rows[0])[3:], classes)
        self.assertEqual({row["image"] for row in rows}, normal | abnormal | out)
        for patient in {row["patient"] for row in rows}:
            self.assertEqual(len({row["split"] for row in rows if row["patient"] == patient}), 1)
        return rows

    def prepared(self, dataset: str, table: Path) -> list[dict]:
        script = Path(__file__).parents[3] / "scripts/prepare_labels.py"
        arguments = [str(script), dataset, str(self.root), str(table)]
        with (
            mock.patch.object(sys, "argv", arguments),
            mock.patch("logging.basicConfig"),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            runpy.run_path(str(script), run_name="__main__")
        self.assertTrue((table.parent / "near_copies.csv").is_file())
        return list(csv.DictReader(table.open()))

    def test_busi(self):
        images = {
            k: [f"Dataset_BUSI_with_GT/{k}/{k} ({i}).png" for i in range(1, 13)]
            for k in ("normal", "benign", "malignant")
        }
        for n, name in enumerate(name for names in images.values() for name in names):
            self.picture(name, n)
            self.picture(name.replace(".png", "_mask.png"), 1000 + n)
        self.picture("Dataset_BUSI_with_GT/benign/benign (1)_mask_1.png", 2000)
        self.picture("Dataset_BUSI_with_GT/.DS_Store")
        self.touch("README", "license.txt")  # beside the one folder
        rows = self.both(
            ["normal", "benign", "malignant"], set(images["normal"]), {*images["benign"], *images["malignant"]}, set()
        )
        self.assertEqual({row["benign"] for row in rows if "benign (" in row["image"]}, {"1"})

    def test_sipakmed(self):
        slides = {}
        names = ("Superficial-Intermediate", "Parabasal", "Metaplastic", "Dyskeratotic", "Koilocytotic")
        for n, kind in enumerate(names):
            slides[kind] = {f"im_{kind}/im_{kind}/{i:03}.bmp" for i in range(1, 7)}
            for i in range(1, 7):
                self.picture(f"im_{kind}/im_{kind}/{i:03}.bmp", 10 * n + i)
                self.picture(f"im_{kind}/im_{kind}/CROPPED/{i:03}_01.bmp", 1000 + 10 * n + i)
                self.touch(f"im_{kind}/im_{kind}/{i:03}_nuc01.dat", f"im_{kind}/im_{kind}/CROPPED/{i:03}_01_cyt.dat")
        self.both(
            list(names), slides[names[0]] | slides[names[1]], slides[names[3]] | slides[names[4]], slides[names[2]]
        )

    def test_kermany(self):
        base = "archive/chest_xray"
        train = {
            f"{base}/train/NORMAL/{name}-0001.jpeg" for name in (*(f"IM-01{i:02}" for i in range(9)), "NORMAL2-IM-0100")
        }
        train |= {f"{base}/train/NORMAL/IM-0100-0001-0002.jpeg", f"{base}/val/NORMAL/NORMAL2-IM-1427-0001.jpeg"}
        sick = {f"{base}/train/PNEUMONIA/person{i}_bacteria_{i + 9}.jpeg" for i in range(10, 18)}
        shared = f"{base}/train/PNEUMONIA/person1_virus_7.jpeg"  # the number of a test person
        test = {f"{base}/test/NORMAL/IM-0001-0001.jpeg", f"{base}/test/NORMAL/NORMAL2-IM-0003-0001.jpeg"}
        abnormal = {f"{base}/test/PNEUMONIA/person1_virus_6.jpeg", f"{base}/test/PNEUMONIA/person2_bacteria_3.jpeg"}
        for n, name in enumerate(sorted(train | sick | {shared} | test | abnormal)):
            self.picture(name, n)
            self.picture(name.replace("chest_xray", "__MACOSX/chest_xray"), n)
        for name in (f"{base}/.DS_Store", f"{base}/train/.DS_Store", f"{base}/test/NORMAL/._IM-0001-0001.jpeg"):
            self.picture(name)
        rows = self.both(["normal", "pneumonia"], train | test, abnormal, sick)
        patient = {Path(row["image"]).name: row["patient"] for row in rows}
        self.assertEqual(patient["IM-0100-0001.jpeg"], patient["IM-0100-0001-0002.jpeg"])
        self.assertNotEqual(patient["IM-0100-0001.jpeg"], patient["NORMAL2-IM-0100-0001.jpeg"])
        self.assertEqual({row["image"] for row in rows if row["split"] == "test"}, test | abnormal)

    def chestxray14(self) -> tuple[set[str], set[str]]:
        lines, names = [], {"": set(), "Mass|Edema": set()}
        for p in range(24):
            for i, finding in enumerate(names):
                name = f"images_{p % 3 + 1:03}/images/{p:08}_{i:03}.png"
                self.picture(name, 2 * p + i)
                names[finding].add(name)
                lines.append(f"{Path(name).name},{finding or 'No Finding'},{i},{p},60,M,PA,2682,2749,0.143,0.143,")
        head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
        head += ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
        (self.root / "Data_Entry_2017.csv").write_text("\n".join([head, *lines]))
        (self.root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
        return names[""], names["Mass|Edema"]

    def test_chestxray14(self):
        normal, sick = self.chestxray14()
        tested = {name for name in normal | sick if int(Path(name).name[:8]) < 5}
        for file, names in (("test_list.txt", tested), ("train_val_list.txt", (normal | sick) - tested)):
            (self.root / file).write_text("\ufeff" + "\n".join(Path(name).name for name in sorted(names)))
        rows = self.both(list(CHESTXRAY14_CLASSES), normal, sick & tested, sick - tested)
        self.assertEqual({row["image"] for row in rows if row["split"] == "test"}, tested)
        self.assertEqual({row["patient"] for row in rows}, {str(p) for p in range(24)})
        self.assertEqual({row["Mass"] + row["Edema"] + row["Hernia"] for row in rows}, {"000", "110"})

    def test_chestxray14_without_lists_is_split_by_patient(self):
        self.chestxray14()
        data = AnomalyDataList(self.root)
        patients = [{i["patient"] for i in items} for items in (data.training + data.validation, data.test)]
        self.assertFalse(patients[0] & patients[1])
        next(self.root.rglob("00000000_000.png")).unlink()
        with self.assertLogs("bundle.lists.known_sets.chestxray14", "WARNING") as logs:
            AnomalyDataList(self.root)
        self.assertIn("1 of the 48 images of ChestX-ray14 are not there", logs.output[0])

    def test_vindr_of_kaggle(self):
        lines, kinds = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"], {0: set(), 1: set(), 2: set()}
        for i in range(30):
            self.picture(f"train/{i:032x}.dicom", i)
            kinds[i % 3].add(f"train/{i:032x}.dicom")
            votes = (["No finding"] * 3, ["ILD", "ILD", "Cardiomegaly"], ["ILD", "Cardiomegaly", "No finding"])[i % 3]
            lines += [f"{i:032x},{vote},0,R{r},,,," for r, vote in enumerate(votes)]
        self.picture(f"test/{99:032x}.dicom", 99)
        (self.root / "train.csv").write_text("\n".join(lines))
        # no two readers agree on the third kind: neither normal nor abnormal
        rows = self.both(list(VINDR_CLASSES), kinds[0], kinds[1], kinds[2])
        self.assertEqual({row["ILD"] for row in rows if row["image"] in kinds[1]}, {"1"})

    def test_vindr_of_physionet(self):
        base = "physionet.org/files/vindr-cxr/1.0.0"  # where wget lays it, its own files beside
        self.touch("physionet.org/robots.txt", f"{Path(base).parent}/index.html", f"{base}/LICENSE.txt")
        head = [*VINDR_CLASSES[:-1], "Edema", "Rib fracture", "Other disease", "No finding"]
        paths: dict[str, set[str]] = {"normal": set(), "train": set(), "test": set()}
        for split, count in (("train", 24), ("test", 6)):
            readers = ["R1", "R2", "R3"] if split == "train" else [""]
            lines = [",".join(["image_id", *(["rad_id"] if split == "train" else []), *head])]
            for i in range(count):
                name = f"{base}/{split}/{count}{i:030x}.dicom"
                self.picture(name, 100 * count + i)
                paths[split if i % 2 else "normal"].add(name)
                cells = [str(int(c == ("Rib fracture" if i % 2 else "No finding"))) for c in head]
                lines += [",".join([Path(name).stem, *filter(None, [reader]), *cells]) for reader in readers]
            (self.root / base / "annotations").mkdir(exist_ok=True)
            (self.root / base / f"annotations/image_labels_{split}.csv").write_text("\n".join(lines))
        classes = [*VINDR_CLASSES, "Edema", "Rib fracture", "Other diseases"]
        rows = self.both(classes, paths["normal"], paths["test"], paths["train"])
        self.assertEqual({Path(row["image"]).parent.name for row in rows if row["split"] == "test"}, {"test"})
        self.assertEqual({row["Rib fracture"] for row in rows if row["image"] in paths["train"]}, {"1"})

    def test_covidx(self):
        names = {k: set() for k in ("normal", "pneumonia", "COVID-19")}
        for split in ("train", "test"):
            lines = []
            for i in range(24):
                kind = list(names)[i % 3]
                name = f"{split}/{kind} {i}.png"  # some file names have spaces
                self.picture(name, 50 * len(split) + i)
                names[kind].add(name)
                lines.append(f"{split}{i // 3} {Path(name).name} {kind} rsna")
            (self.root / f"{split}.txt").write_text("\n".join(lines))
        sick = names["pneumonia"] | names["COVID-19"]
        test = {name for name in sick if name.startswith("test")}
        rows = self.both(["COVID-19", "normal", "pneumonia"], names["normal"], test, sick - test)
        self.assertEqual({row["patient"][:-1] for row in rows if row["split"] == "test"}, {"test"})
        for split in ("train", "test"):
            text = (self.root / f"{split}.txt").read_text()
            (self.root / f"{split}.txt").write_text(re.sub("(normal|pneumonia) rsna", "negative rsna", text))
        with self.assertRaisesRegex(
            ValueError, "does not say which images are normal, its classes are COVID-19, negative"
        ):
            AnomalyDataList(self.root)


class TestVinDr(_InFolder):
    def table(self, lines: list[str], **kwargs) -> dict[str, list[str]]:
        path = self.root / "train.csv"
        filler = [f"x{i},No finding,14,R{r}" for i in range(10) for r in range(3)]
        path.write_text("image_id,class_name,class_id,rad_id\n" + "\n".join(lines + filler))
        rows = vindr_table(path, **kwargs)
        return {r["image"]: [c for c, y in zip(VINDR_CLASSES, r["label"], strict=True) if y] for r in rows}

    def test_readers_vote_and_boxes_do_not(self):
        lines = ["i,ILD,5,R1", "i,ILD,5,R1", "i,Cardiomegaly,3,R1", "i,Cardiomegaly,3,R2", "i,No finding,14,R3"]
        self.assertEqual(self.table(lines)["i.dicom"], ["Cardiomegaly"])
        self.assertEqual(self.table(lines, min_readers=1)["i.dicom"], ["Cardiomegaly", "ILD", "No finding"])

    def test_classes_of_physionet_beside_kaggles(self):
        with contextlib.suppress(ValueError):  # more labels than the table of Kaggle's classes has
            self.table(["i,Edema,0,R1", "i,edema,0,R2", "i,No finding,14,R3"])
        self.assertEqual(vindr_classes(self.root / "train.csv"), (*VINDR_CLASSES, "Edema"))
        row = next(r for r in vindr_table(self.root / "train.csv") if r["patient"] == "i")
        self.assertEqual((len(row["label"]), row["label"][-1], sum(row["label"])), (16, 1, 1))

    def test_bad_input(self):
        with self.assertRaisesRegex(ValueError, "train.csv row 2: class must be one of VinDr's 28, got 'Fracture'"):
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
        self.assertEqual([r["image"] for r in rows if r["split"] == "test"], ["0_0.png", "0_1.png"])
        positive = [c for c, y in zip(CHESTXRAY14_CLASSES, rows[1]["label"], strict=True) if y]
        self.assertEqual((positive, sum(rows[0]["label"])), (["Mass", "Edema"], 0))
        for patient in range(12):
            self.assertEqual(len({r["split"] for r in rows if r["patient"] == str(patient)}), 1)

    def test_own_split(self):
        self.assertEqual({r["split"] for r in chestxray14_table(self.entry)}, {"training", "validation", "test"})

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
