# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The shipped models, used without a folder or by their names; the run says which."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

from bundle.files import file_sha256
from bundle.model import read_model
from tests.folders import FolderTestCase
from tests.workflows import ROOT, run_command, run_workflow

FILM = next((ROOT / "models/demo_films").glob("*.dcm"))
SHIPPED = {"adfa": "chest_xray_anomaly", "sna": "chest_xray_findings", "msa": "chest_xray_localization"}


class TestShippedModels(FolderTestCase):
    def named_model(self, family: str, **settings) -> dict:
        """Return what the record of an inference says of the model, after the tables and the report say the same."""
        out = self.folder / "out"
        formats = ["json", "report"]
        run_workflow(f"{family}_inference", input=str(FILM), output_dir=str(out), formats=formats, **settings)
        model = json.loads((out / "run.json").read_text())["model"]
        algorithm = json.loads((out / "predictions.json").read_text())["algorithm"]
        self.assertEqual((algorithm["model"], algorithm["weights_sha256"]), (model["name"], model["weights_sha256"]))
        self.assertIn(f'<th scope="row">Model</th><td>{model["name"]}</td>', (out / "report.html").read_text())
        return model

    def test_the_record_names_the_shipped_model(self):
        for family, name in SHIPPED.items():
            with self.subTest(family):
                digest = file_sha256(ROOT / "models" / name / "model.pt")
                with self.assertLogs("bundle.model.read_file", "WARNING") as log:
                    found = self.named_model(family)
                self.assertEqual(found, {"name": name, "weights_sha256": digest})
                self.assertIn(f"the shipped model '{name}' is used", log.output[0])

    def test_a_name_is_a_model_folder_on_the_command_line(self):
        report = self.folder / "out/report.html"
        for family, name in SHIPPED.items():
            words = ("--args_file", f"configs/args_{family}_inference.yaml", "--input", str(FILM), "--model_dir", name)
            status, errors = run_command(*words, "--output_dir", str(report.parent), "--formats", "report")
            self.assertEqual((status, errors), (0, ""))
            self.assertIn(f"Answered by the shipped model {name}, a baseline", report.read_text())

    def test_one_line_where_the_model_is_of_another_family(self):
        out = self.folder / "out"
        for task, flags, message in (
            ("msa_inference", ["--model_dir", SHIPPED["sna"]], "is a model of family sna, msa is asked for."),
            ("sna_evaluate", ["--model_dir", SHIPPED["adfa"]], "is a model of family adfa, sna is asked for."),
            ("sna_inference", ["--model", SHIPPED["sna"]], "'--model' is no setting of this run: .* as '--model_dir'"),
        ):
            source = ("--dataset_dir" if "evaluate" in task else "--input", str(FILM.parent))
            with self.subTest(task, flags=flags):
                words = ("--args_file", f"configs/args_{task}.yaml", *source, "--output_dir", str(out), *flags)
                status, errors = run_command(*words)
                self.assertEqual((status, errors.count("\n")), (1, 1), errors)
                self.assertRegex(errors, message)
                self.assertFalse(out.exists())

    def test_evaluation_takes_the_shipped_model_too(self):
        classes = read_model(SHIPPED["sna"])["classes"]
        films = sorted(FILM.parent.glob("*.dcm"))[:2]
        rows = [[film.name, film.stem, "test", *(1 for _ in classes)] for film in films]
        with (self.folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "patient", "split", *classes], *rows])
        for film in films:
            shutil.copy(film, self.folder)
        out = self.folder / "out"
        run_workflow("sna_evaluate", dataset_dir=str(self.folder), output_dir=str(out), formats=["json"])
        self.assertEqual(json.loads((out / "run.json").read_text())["model"]["name"], SHIPPED["sna"])

    def test_the_record_names_a_folder_without_its_path(self):
        own = self.folder / "Doe_Jane" / "of_ours"
        shutil.copytree(ROOT / "models/chest_xray_anomaly", own)
        digest = file_sha256(own / "model.pt")
        self.assertEqual(self.named_model("adfa", model_dir=str(own)), {"name": "of_ours", "weights_sha256": digest})
        self.assertEqual(self.named_model("adfa", model_dir=str(own / "model.json"))["name"], "of_ours")
        self.assertNotIn("Doe_Jane", (self.folder / "out/run.json").read_text())

    def test_the_working_directory_has_a_name_too(self):
        own = self.folder / "of_ours"
        shutil.copytree(ROOT / "models/chest_xray_anomaly", own)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(own)
        self.assertEqual(read_model(".").name, "of_ours")
