# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import yaml
from PIL import Image

from bundle.lists import read_boxes
from tests.folders import FolderTestCase

ROOT = Path(__file__).resolve().parents[2]
with mock.patch.object(sys, "path", [str(ROOT / "scripts/studies"), *sys.path]):
    import controls
    import paired
    import run_study
    import study_sets
    import tables

STUDIES = sorted((ROOT / "scripts/studies").rglob("*.yaml"))


def workflow(command):
    """Stand in for a run: the AUROC says which method and seed it was asked for."""
    flags = dict(zip((word[2:] for word in command[5::2]), command[6::2], strict=True))
    out = Path(flags["output_dir"])
    out.mkdir(parents=True)
    if "_train" in command[4]:
        training = {"items": 4, "digest": "0123456789abcdef0123"}
        phase = Path(command[4]).stem.partition("train")[2]
        method = flags.get("method", "adfa") + phase + (f" from {flags['start_from']}" if "start_from" in flags else "")
        (out / "model.json").write_text(json.dumps({"training_set": training, "method": method}))
    else:
        method = json.loads((Path(flags["model_dir"]) / "model.json").read_text())["method"]
        auroc = 0.5 + 0.1 * int(flags["seed"]) + (0.2 if method == "padim" else 0)
        metrics = {"auroc": auroc, "auroc_interval": [auroc - 0.1, auroc + 0.1], "sensitivity": None}
        (out / "metrics.json").write_text(json.dumps(metrics))
        (out / "scores.csv").write_text("image,anomaly_score\n")


class TestStudy(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.study = self.root / "study.yaml"
        content = {
            "family": "adfa",
            "rows": "docs/results/none.csv",
            "sets": ["brainmri"],
            "seeds": [0, 1],
            "metrics": {"auroc": "auroc", "sensitivity": "sensitivity"},
            "variants": {"adfa": None, "padim": {"train": {"method": "padim"}}},
            "tables": {"both": {"metrics": ["auroc", "sensitivity"], "variants": ["padim"]}},
            "quick": {"seeds": [0]},
        }
        self.study.write_text(yaml.safe_dump(content))

    def run_it(self, *words):
        command = ["run_study.py", str(self.study), str(self.root), "--work", str(self.root / "work"), *words]
        out = io.StringIO()
        with (
            mock.patch.object(sys, "argv", command),
            mock.patch.object(tables, "STUDIES", self.root),
            mock.patch.object(run_study, "run_command", side_effect=workflow) as self.runs,
            mock.patch.object(run_study, "device_name", return_value="CPU"),
            redirect_stdout(out),
        ):
            run_study.main()
        return self.runs.call_count, out.getvalue()

    def test_rows_say_what_was_run_and_are_not_run_again(self):
        rows_path = self.root / "rows.csv"
        count, out = self.run_it("--rows", str(rows_path))
        self.assertEqual(count, 8)  # two variants, two seeds, training and evaluation
        rows = tables.read_rows(rows_path)
        self.assertEqual([(r["variant"], r["seed"]) for r in rows[:2]], [("adfa", "0"), ("padim", "0")])
        self.assertEqual(rows[0]["data_digest"], "0123456789abcdef")
        self.assertEqual((rows[0]["sensitivity"], rows[0]["items"], rows[0]["device"]), ("", "4", "CPU"))
        self.assertIn("OUT", rows[0]["command"])
        self.assertNotIn(str(self.root), rows[0]["command"])
        # by hand: mean of 0.7 and 0.8; the ends are 0.6 and 0.7, 0.8 and 0.9
        self.assertIn("| padim | 0.750 (0.65 to 0.85) [0.700 0.800] |", out)
        self.assertEqual(self.run_it("--rows", str(rows_path))[0], 0)
        self.assertTrue((self.root / "work/brainmri/padim_1/scores.csv").is_file())

    def test_a_set_with_its_own_split_is_run_once(self):
        study = {"sets": ["brainmri", "zhanglab"], "once": ["zhanglab"], "seeds": [0, 1], "variants": {"adfa": None}}
        found = [(job.set, job.seed) for job in run_study.jobs_of(study)]
        self.assertEqual(found, [("brainmri", 0), ("zhanglab", 0), ("brainmri", 1)])

    def test_quick_is_a_part_in_a_file_of_its_own(self):
        count, _ = self.run_it("--quick")
        self.assertEqual(count, 4)
        self.assertTrue((self.root / "work/quick_none.csv").is_file())

    def test_phases_start_from_the_one_before_and_are_shared(self):
        variants = {"CAM": {"phases": {"a": None}}, "MSA": {"phases": {"a": None, "b": {"max_epochs": 3}}}}
        study = {**yaml.safe_load(self.study.read_text()), "phases": {"a": {"max_epochs": 2}}, "variants": variants}
        self.study.write_text(yaml.safe_dump({**study, "seeds": [0]}))
        self.assertEqual(self.run_it("--rows", str(self.root / "rows.csv"))[0], 4)  # a, its test, b, its test
        configs = [Path(call.args[0][4]).name for call in self.runs.call_args_list]
        order = [
            "args_adfa_train_a.yaml",
            "args_adfa_evaluate.yaml",
            "args_adfa_train_b.yaml",
            "args_adfa_evaluate.yaml",
        ]
        self.assertEqual(configs, order)
        _, row = tables.read_rows(self.root / "rows.csv")
        first, second = row["command"].split(" && ")
        self.assertTrue(first.endswith("--max_epochs 2 --output_dir OUT/a"), first)
        self.assertTrue(second.endswith("--max_epochs 3 --start_from OUT/a/model.pt --output_dir OUT/b"), second)

    def test_a_kept_model_serves_what_differs_in_evaluation_alone(self):
        variants = {"a": None, "b": {"evaluate": {"false_alarm_rate": 0.2}}, "c": {"train": {"method": "padim"}}}
        study = {**yaml.safe_load(self.study.read_text()), "keep_models": True, "variants": variants, "seeds": [0]}
        self.study.write_text(yaml.safe_dump({**study, "tables": {}}))
        self.assertEqual(self.run_it("--rows", str(self.root / "rows.csv"))[0], 5)  # two trainings, three tests

    def test_an_unknown_variant_is_one_line(self):
        with self.assertRaisesRegex(SystemExit, "error: .* has no variant .'spade'.; it has"):
            self.run_it("--variants", "spade")

    def test_rows_of_other_columns_are_kept(self):
        rows_path = self.root / "rows.csv"
        rows_path.write_text("set,auroc\nbrainmri,0.5\n")
        with self.assertRaisesRegex(SystemExit, "must have the columns"):
            self.run_it("--rows", str(rows_path))
        self.assertEqual(rows_path.read_text(), "set,auroc\nbrainmri,0.5\n")

    def test_a_table_of_several_metrics(self):
        study = {"name": "a.yaml", "sets": ["a"], "variants": {"x": None}, "metrics": {"auroc": "", "mean_iou": ""}}
        study["tables"] = {"two": {"metrics": ["auroc", "mean_iou"]}}
        rows = [{"set": "a", "variant": "x", "seed": "0", "auroc": "0.5", "mean_iou": "0.25"}]
        self.assertEqual(tables.table_of(study, rows, "two").splitlines()[2], "| x | 0.500 | 0.250 |")
        self.assertEqual(tables.table_of(study, [], "two").splitlines()[2], "| x | not run | not run |")
        counts = [{"set": "a", "variant": "x", "seed": seed, "auroc": "0.5", "mean_iou": n} for seed, n in ("07", "19")]
        self.assertEqual(tables.table_of(study, counts, "two").splitlines()[2], "| x | 0.500 [0.500 0.500] | 8 [7 9] |")
        study["tables"] = {"turned": {"metrics": ["auroc", "mean_iou"], "lines": "sets"}}
        expected = ["|  | auroc | mean iou |", "|---|---|---|", "| a | 0.500 | 0.250 |"]
        self.assertEqual(tables.table_of(study, rows, "turned").splitlines(), expected)


class TestSets(unittest.TestCase):
    def test_films_of_a_fold_are_tested_and_normal_films_of_the_others_train(self):
        with tempfile.TemporaryDirectory() as name:
            data = Path(name)
            (data / "nih_part").mkdir()
            # image, patient, fold, view, no_finding
            films = ["a,1,0,PA,1", "b,2,0,PA,0", "c,3,1,PA,1", "d,4,1,PA,0", "e,5,2,AP,1", "f,6,3,PA,1"]
            text = "\n".join(["image,patient,fold,view,no_finding", *films])
            (data / "nih_part/manifest.csv").write_text(text)
            (data / "nih_part/boxes.csv").write_text("image,label,x,y,width,height\nb,Infiltrate,10,20,30,40\n")
            for path in ("train/NORMAL/IM-1.jpg", "test/NORMAL/IM-2.jpg", "test/PNEUMONIA/person3_virus_4.jpg"):
                (data / "zhanglab_xray" / path).parent.mkdir(parents=True)
                (data / "zhanglab_xray" / path).touch()
            chosen = study_sets.dataset_flags("adfa", "nih_pa", data, data / "work", 0)
            rows = tables.read_rows(chosen.both["dataset_dir"])
            boxes = read_boxes(chosen.evaluate["boxes_path"])
            there = study_sets.dataset_flags("adfa", "nih_pa_on_zhanglab", data, data / "work", 0)
            back = study_sets.dataset_flags("adfa", "zhanglab_on_nih_pa", data, data / "work", 0)
            tested = [tables.read_rows(each.evaluate["dataset_dir"]) for each in (there, back)]
        # fold 0 is tested; d is not normal, e is another view, fold 3 is kept for later evaluation
        found = [(Path(r["image"]).name, r["split"], r["label"]) for r in rows]
        self.assertEqual(found, [("a", "test", "0"), ("b", "test", "1"), ("c", "training", "0")])
        self.assertEqual(boxes["b"]["Infiltration"].tolist(), [[10, 20, 40, 60]])
        # elsewhere: trained with the same table, tested on normal films alone, never on ZhangLab's test
        self.assertEqual(there.both, chosen.both)
        found = [[(Path(r["image"]).name, r["split"]) for r in rows] for rows in tested]
        self.assertEqual(found[0], [("c", "training"), ("IM-1.jpg", "test")])
        self.assertEqual(found[1], [("IM-1.jpg", "training"), ("a", "test")])

    def test_films_of_a_fold_are_tested_and_all_of_the_others_train_a_classifier(self):
        with tempfile.TemporaryDirectory() as name:
            data = Path(name)
            (data / "nih_part").mkdir()
            # twelve patients of two films each, folds 0 to 3, every second patient normal
            films = [f"{p}_{i},{p},{p % 4},PA,{p // 4 % 2}" for p in range(24) for i in range(2)]
            text = "\n".join(["image,patient,fold,view,no_finding", *films])
            (data / "nih_part/manifest.csv").write_text(text)
            chosen = study_sets.dataset_flags("sna", "nih_pa", data, data / "work", 1)
            rows = tables.read_rows(chosen.both["labels_csv"])
        self.assertEqual(chosen.train["classes"], "normal,abnormal")
        self.assertEqual({int(r["patient"]) % 4 for r in rows}, {0, 1, 2})
        self.assertEqual({int(r["patient"]) % 4 for r in rows if r["split"] == "test"}, {1})
        self.assertEqual({r["split"] for r in rows if int(r["patient"]) % 4 != 1}, {"training", "validation"})
        self.assertEqual(len({(r["patient"], r["split"]) for r in rows}), 18)  # each patient in one split
        self.assertTrue(all(r["normal"] == str(int(r["patient"]) // 4 % 2) for r in rows))

    def test_a_box_that_ignores_the_image(self):
        with tempfile.TemporaryDirectory() as name:
            data = Path(name)
            for kind in ("normal", "benign", "malignant", "masks"):
                (data / "busi_part" / kind).mkdir(parents=True)
            random = np.random.default_rng(0)
            for kind in ("normal", "benign", "malignant"):
                for i in range(10):
                    pixels = random.integers(0, 255, (40, 80), dtype=np.uint8)
                    Image.fromarray(pixels).save(data / f"busi_part/{kind}/{kind}_{i}.png")
                    mask = np.zeros((40, 80), np.uint8)
                    mask[10:30, 20:60] = 255
                    if kind != "normal":
                        Image.fromarray(mask).save(data / f"busi_part/masks/{kind}_{i}_0.png")
            chosen = study_sets.dataset_flags("msa", "busi_part", data, data / "work", 0)
            rows = tables.read_rows(chosen.both["labels_csv"])
            metrics, training = controls.median_box(chosen)
        self.assertEqual(
            {(r["lesion"], r["benign"], r["malignant"]) for r in rows}, {tuple(x) for x in ("000", "110", "101")}
        )
        self.assertEqual(training["items"], sum(r["split"] == "training" for r in rows))
        # every lesion is at the same place, so the median box is that place
        self.assertEqual(metrics["classes"]["lesion"]["mean_iou"], 1.0)
        self.assertEqual(metrics["classes"]["lesion"]["images"], 4)  # 2 of 10 of each kind are tested

    def test_an_unknown_set_is_one_line(self):
        with self.assertRaisesRegex(SystemExit, "error: a set must be one of .*, got 'busi'"):
            study_sets.dataset_flags("adfa", "busi", Path(), Path(), 0)


class TestPaired(unittest.TestCase):
    def test_differences_by_hand(self):
        # of two pairs of one positive and one negative patient each; of a set, three images of a patient are one draw
        patients, targets = np.array(["a", "b", "b", "b"]), np.array([[1], [0], [0], [0]])
        good = paired.Predictions(patients, np.array([[0.9], [0.1], [0.1], [0.1]]), targets)
        half = paired.Predictions(patients, np.array([[0.5], [0.5], [0.5], [0.5]]), targets)
        self.assertEqual(paired.paired_difference([(half, good), (half, half)], 50), (0.25, 0.25, 0.25))

    def test_predictions_are_those_of_the_test_images(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "table.csv").write_text("image,patient,split,Mass\na.png,1,test,1\nb.png,2,training,0\n")
            (root / "predictions.csv").write_text("source,probability_Mass\na.png,0.75\n")
            found = paired.read_predictions(root, root / "table.csv", ["Mass"])
            self.assertEqual((found.probabilities.tolist(), found.targets.tolist()), ([[0.75]], [[1]]))
            (root / "predictions.csv").write_text("source,probability_Mass\nc.png,0.75\n")
            with self.assertRaisesRegex(SystemExit, "has no prediction of 1 test images, first 'a.png'"):
                paired.read_predictions(root, root / "table.csv", ["Mass"])


class TestPages(unittest.TestCase):
    def test_tables_are_those_of_their_rows(self):
        for page in tables.pages():
            with self.subTest(str(page.relative_to(ROOT))):
                text = page.read_text()
                self.assertEqual(tables.with_tables(text), text)

    def test_headline_is_the_mean_over_the_rows_and_refuses_what_was_not_run(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder, "page.yaml")
            Path(folder, "rows.csv").write_text("set,variant,seed,auroc\na,x,0,0.5\na,x,1,0.7\n")
            page.write_text(
                "heads: [q, v]\nlines: [[Q, {rows: rows.csv, set: a, variant: x, metric: auroc, name: X}]]\n"
            )
            self.assertEqual(tables.headline_of(page).splitlines()[-1], "| Q | X 0.600 |")  # (0.5 + 0.7) / 2
            page.write_text(page.read_text().replace("variant: x", "variant: y"))
            with self.assertRaisesRegex(SystemExit, "rows.csv has no auroc of a, y"):
                tables.headline_of(page)

    def test_studies_are_complete(self):
        for path in STUDIES:
            study = tables.read_study(path)
            with self.subTest(study["name"]):
                self.assertLessEqual({"family", "rows", "sets", "seeds", "metrics", "variants"}, study.keys())
                self.assertLessEqual({*study["sets"]}, study_sets.SETS[study["family"]].keys())
                for settings in study["variants"].values():
                    phases = (settings or {}).get("phases", {"": None})
                    for phase in phases if "control" not in (settings or {}) else ():
                        task = f"train_{phase}" if phase else "train"
                        self.assertTrue((ROOT / f"configs/args_{study['family']}_{task}.yaml").is_file())

    def test_rows_say_where_they_come_from(self):
        for path in STUDIES:
            study = tables.read_study(path)
            for row in tables.read_rows(ROOT / study["rows"]):
                with self.subTest(f"{study['name']} {row['set']} {row['variant']} {row['seed']}"):
                    self.assertRegex(row["commit"], r"^[0-9a-f]{7,}\+?$")
                    self.assertIn(row["variant"], study["variants"])
                    self.assertTrue(row["command"].startswith("python "))
                    self.assertEqual(len(row["data_digest"]), 16)


if __name__ == "__main__":
    unittest.main()
