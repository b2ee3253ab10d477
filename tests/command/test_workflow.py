# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person meets who types a command: paths of any kind, and one line for each mistake."""

from __future__ import annotations

import csv
import logging
import os
import pickle
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow
from PIL import Image

from bundle.command import BundleWorkflow
from bundle.command.closing_words import _next_commands
from tests.synthetic_dicom import save_dicom
from tests.test_bad_days import write_model
from tests.workflows import run_command, workflow_of

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--image_size", "64", "--resize=64x64", "--batch_size", "4", "--num_workers", "0", "--device", "cpu"]
FRESH = {
    "adfa": ["--weights", "random"],
    "sna": ["--weights", "null"],
    "msa": ["--weights", "null"],
}
MIXED = ["--mixed_training", "true"]  # pictures and a DICOM loop
# what Python Fire, MONAI, YAML, a pattern or a shell could take for something else
NAMES = ["a#1 $x @y %z", "[1, 2] 'q' \"d\"", "-dir", "two\nlines", "Röntgen 胸部", "123", "$1+1", "%x.yaml", "{a}::b#c"]


def args(task: str) -> list[str]:
    return ["--args_file", str(ROOT / "configs" / f"args_{task}.yaml"), *SMALL]


def write_pictures(folder: Path, count: int, start: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(start, start + count):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}#.png")


def write_labels(path: Path, images: Path) -> None:
    """Write a label table with every split and both classes; images are named relative to their folder."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "split", "normal", "mass"])
        names = [image.name for image in sorted(images.glob("*.png"))] + ["lo#op.dcm#frame=0", "lo#op.dcm#frame=1"]
        for i, name in enumerate(names):
            label = i % 2
            writer.writerow([name, f"p{i}", ("training", "validation", "test")[i // 4], 1 - label, label])


class _Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        self.root = Path(folder.name).resolve()
        os.chdir(self.root)
        self.addCleanup(logging.getLogger().setLevel, logging.getLogger().level)

    def succeeds(self, *words: str) -> None:
        status, errors = run_command(*words)
        self.assertEqual(status, 0, errors)

    def refused(self, *words: str, message: str) -> None:
        status, errors = run_command(*words)
        self.assertEqual(status, 1)
        self.assertRegex(errors, f"(?s)^error: {message}")
        self.assertEqual(errors.count("\n"), 1, errors)


class TestPathsOfAnyKind(_Folder):
    """Relative paths from another directory than the configurations', through the words of a command line."""

    @pytest.mark.full
    def test_anomaly_detection(self):
        for name in NAMES:
            with self.subTest(name=name):
                data, out = Path(name, "data"), Path(name, "out")
                write_pictures(data / "train" / "good", 6)
                write_pictures(data / "test" / "good", 2, 6)
                write_pictures(data / "test" / "le#sion", 2, 8)
                places = [f"--dataset_dir={data}", f"--feature_cache={Path(name, 'cache')}"]
                training = [*args("adfa_train"), *FRESH["adfa"], "--max_epochs", "1", "--tensorboard", "false"]
                self.succeeds(*training, *places, f"--output_dir={out}")
                self.assertTrue((out / "model.pt").is_file() and (out / "calibration.json").is_file())
                self.assertTrue(any(Path(name, "cache").iterdir()))
                self.assertFalse((out / "tensorboard").exists())
                self.succeeds(*args("adfa_evaluate"), places[0], f"--model_dir={out}", f"--output_dir={out / 'e'}")
                self.assertTrue((out / "e" / "metrics.json").is_file())
                save_dicom(data / "test" / "lo#op.dcm", np.arange(3200, dtype=np.uint16).reshape(2, 40, 40))
                single = [
                    f"--model_dir={out}",
                    f"--ckpt_path={out / 'model.pt'}",
                    f"--calibration_path={out / 'calibration.json'}",
                ]
                self.succeeds(*args("adfa_inference"), f"--input={data / 'test'}", f"--output_dir={out / 'i'}", *single)
                with (out / "i" / "predictions.csv").open(newline="", encoding="utf-8") as file:
                    found = [(row["source"], row["frame"]) for row in csv.DictReader(file)]
                pictures = ["good/6#.png", "good/7#.png", "le#sion/8#.png", "le#sion/9#.png"]
                frames = [("lo#op.dcm", "0"), ("lo#op.dcm", "1")]
                self.assertEqual(sorted(found), [(picture, "0") for picture in pictures] + frames)

    def test_findings_and_localization(self):
        # two rounds, of which each has half of the difficult characters, since training takes its time
        for name in ("a#1 $x @y %z 'q' ü", '-[1, 2]\n"d"'):
            data, out = Path(name, "data"), Path(name, "out")
            write_pictures(data, 10)
            save_dicom(data / "lo#op.dcm", np.arange(3200, dtype=np.uint16).reshape(2, 40, 40))
            write_labels(Path(name, "la#bels.csv"), data)
            shared = [f"--dataset_dir={data}", f"--labels_csv={Path(name, 'la#bels.csv')}", "--classes", "normal,mass"]
            for family, task in (("sna", "sna_train"), ("msa", "msa_train_backbone")):
                with self.subTest(name=name, family=family):
                    model = out / family
                    training = [*args(task), *FRESH[family], *MIXED, "--max_epochs=1", "--tensorboard=False"]
                    self.succeeds(*training, *shared, f"--output_dir={model}")
                    self.succeeds(
                        *args(f"{family}_inference"), "--classes", "[normal, mass]", f"--input={data}",
                        f"--model_dir={model}", f"--output_dir={model / 'i'}", "--formats", "csv",
                        *(["--aggregate", "false"] if family == "msa" else []),
                    )  # fmt: skip
                    self.assertTrue((model / "i" / "predictions.csv").is_file())
            self.succeeds(
                *args("sna_evaluate"), *shared, f"--model_dir={out / 'sna'}", f"--output_dir={out / 'e'}",
                "--bootstrap_samples", "10",
            )  # fmt: skip
            start = [f"--start_from={out / 'msa' / 'model.pt'}", f"--output_dir={out / 'head'}", "--max_epochs", "1"]
            self.succeeds(*args("msa_train_head"), *FRESH["msa"], *MIXED, *shared, *start)

    def test_what_a_program_gives(self):
        for name in NAMES:
            write_model("adfa", self.root / name)
            workflow = create_workflow(
                args_file=str(ROOT / "configs" / "args_adfa_inference.yaml"), image_size=[64, 64], resize=[64, 64],
                model_dir=self.root / name, output_dir=f"{name}/out", input=name, title=name, logging_file=False,
            )  # fmt: skip
            self.assertIsInstance(workflow, BundleWorkflow)
            values = [workflow.parser.get_parsed_content(key) for key in ("input", "output_dir", "title", "ckpt_path")]
            self.assertEqual(values, [name, f"{name}/out", name, f"{self.root / name}/model.pt"])
            workflow.set_path("input", "@x#1")
            self.assertEqual(workflow.parser.get_parsed_content("input"), "@x#1")


class TestArgumentsFromAnywhere(_Folder):
    def test_layers_lie_beside_their_arguments_not_in_the_working_directory(self):
        # another bundle's layers, which must not be taken
        (self.root / "configs").mkdir()
        for file in (ROOT / "configs").glob("*.yaml"):
            (self.root / "configs" / file.name).write_text("run: 'another bundle'\n")
        write_model("adfa", self.root / "model")
        Image.new("L", (40, 40)).save(self.root / "a.png")
        self.succeeds(*args("adfa_inference"), "--model_dir", "model", "--input", "a.png", "--output_dir", "out")
        self.assertTrue((self.root / "out" / "predictions.csv").is_file())
        workflow = create_workflow(
            args_file=str(ROOT / "configs" / "args_adfa_inference.yaml"), model_dir="model", image_size=64, resize=64,
            output_dir="out",
        )  # fmt: skip
        self.assertIn("evaluator", workflow.parser)
        self.assertEqual(workflow.parser.get_parsed_content("image_size"), [64, 64])


class TestOneLineForEachMistake(_Folder):
    def setUp(self):
        super().setUp()
        write_pictures(self.root / "data", 4)
        (self.root / "file").write_text("no folder")
        self.train = [*args("adfa_train"), "--dataset_dir", "data", "--output_dir", "out"]
        self.infer = [*args("adfa_inference"), "--input", "data", "--output_dir", "out"]

    def tearDown(self):
        self.assertFalse((self.root / "out").exists(), "checked before anything is written")

    def test_options(self):
        for words, message in (
            (["--max_epochs", "abc"], "max_epochs must be a whole number of at least 1, got 'abc'."),
            (["--max_epochs=-1"], "max_epochs must be a whole number of at least 1, got '-1'."),
            (["--max_epochs", "-1"], "max_epochs must be a whole number of at least 1, got '-1'."),
            (["--resume", "flase"], "resume must be True or False, got 'flase'."),
            (["--dataset_dir"], "--dataset_dir must have a value, got none"),
            (["--dataset_dir", "-x"], "'--x' is no setting of this run"),
            (["--dataset_dir", "nothing"], "dataset_dir must be an existing folder, CSV or JSON file, got 'nothing'."),
            (["--dataset_dir", "my", "data"], "'data' belongs to no flag: a value with spaces must stand in quotes"),
            (["--output_dir", "file"], "output_dir 'file' cannot be written: File exists."),
        ):
            with self.subTest(words=words):
                self.refused(*self.train, *words, message=message)
        if not torch.cuda.is_available():
            self.refused(*self.train, "--device", "cuda", message=r"device must be one of this machine's \(cpu.*'cuda'")

    def test_models(self):
        for words, message in (
            (["--model_dir", "nothing"], "model_dir must be the folder of a trained model, 'nothing' does not exist."),
            (["--model_dir", "file"], "model_dir must be the folder of a trained model, 'file' has no model.json."),
            (["--ckpt_path", "data"], "ckpt_path must be an existing file, got the folder 'data'."),
            (["--exported", "no.onnx"], "exported must be an existing file, got 'no.onnx'."),
            (["--formats", "pdf"], "formats must be some of csv, .*, got 'pdf'."),
        ):
            with self.subTest(words=words):
                self.refused(*self.infer, *words, message=message)

    def test_layers(self):
        (self.root / "configs").mkdir()
        (self.root / "configs" / "mine.yaml").write_text("max_epochs: 0\n")
        (self.root / "configs" / "broken.yaml").write_text("max_epochs: [1\n")
        (self.root / "configs" / "twice.yaml").write_text("seed: 1\nseed: 2\n")
        layers = ["base", "train", "adfa", "adfa_train"]
        for name, message in (
            ("mine", "'.*mine.yaml': max_epochs must be a whole number of at least 1, got 0."),
            ("broken", "'.*broken.yaml', line 2: must be YAML"),
            ("twice", "'.*twice.yaml', line 2: must be YAML: key 'seed' must come once."),
            ("absent", "config_file must be an existing file, got 'configs/absent.yaml'."),
        ):
            files = [f"configs/{layer}.yaml" for layer in [*layers, name]]
            with self.subTest(name=name):
                self.refused(*self.train, "--config_file", f"[{','.join(files)}]", message=message)
        part = ["--workflow_name", "bundle.command.BundleWorkflow", "--config_file", "configs/adfa.yaml"]
        self.refused(*part, message="'.*adfa.yaml' is a part of a configuration, without 'run': start a whole one")


class TestNoImagesNamed(_Folder):
    def test_the_working_directory_is_not_taken_for_it(self):
        write_pictures(self.root / "data", 4)
        write_model("adfa", self.root / "model")
        for task, words, name in (
            ("adfa_inference", ["--model_dir", "model"], "input"),
            ("adfa_evaluate", ["--model_dir", "model"], "dataset_dir"),
            ("adfa_train", FRESH["adfa"], "dataset_dir"),
            ("adfa_inference", ["--model_dir", "model", "--input="], "input"),
        ):
            with self.subTest(task=task, words=words):
                message = f"{name} must be given, such as --{name} PATH, got nothing."
                self.refused(*args(task), *words, "--output_dir", "out", message=message)


class TestWeightsThatAreNone(_Folder):
    def test_one_line_each(self):
        write_pictures(self.root / "data", 2)
        (self.root / "labels.csv").write_text(
            "image,patient,split,normal,mass\n0#.png,a,training,1,0\n1#.png,b,validation,0,1\n"
        )
        write_model("adfa", self.root / "adfa")
        torch.save({"a": Path("x")}, self.root / "saved.pt")
        rule = "weights must be a state dict without code,"
        whole = (self.root / "adfa" / "model.pt").read_bytes()
        (self.root / "pickled.pt").write_bytes(pickle.dumps({"a": Path("x")}))
        (self.root / "truncated.pt").write_bytes(whole[: len(whole) // 2])
        (self.root / "empty.pt").write_bytes(b"")
        (self.root / "other.pt").write_bytes(whole)
        words = [*args("msa_train_head"), *FRESH["msa"], "--dataset_dir", "data", "--labels_csv", "labels.csv"]
        for name, message in (
            ("pickled", f"{rule} 'pickled.pt' is not: it holds other objects than tensors, which could run code"),
            ("saved", f"{rule} 'saved.pt' is not: it holds other objects than tensors"),
            ("truncated", f"{rule} 'truncated.pt' is not: it is truncated or damaged; copy it again."),
            ("empty", f"{rule} 'empty.pt' is not: it is no file of torch.save."),
            ("other", "weights 'other.pt' do not fit MSA: "),
        ):
            with self.subTest(name=name):
                start = ["--start_from", f"{name}.pt", "--classes", "normal,mass", "--output_dir", "out"]
                self.refused(*words, *start, message=message)

    def test_a_model_of_another_family(self):
        write_pictures(self.root / "data", 1)
        write_model("sna", self.root / "model")
        words = ["--input", "data", "--output_dir", "out", "--model_dir", "model"]
        self.refused(
            *args("adfa_inference"), *words, message="'model/model.json' is a model of family sna, adfa is asked"
        )
        self.assertFalse((self.root / "out").exists())


class TestLastLines(_Folder):
    def test_the_next_command_can_be_typed(self):
        write_pictures(self.root / "my data" / "train" / "good", 6)
        write_pictures(self.root / "my data" / "test" / "good", 2, 6)
        write_pictures(self.root / "my data" / "test" / "mass", 2, 8)
        words = [*FRESH["adfa"], "--max_epochs", "1", "--dataset_dir", "my data", "--output_dir", "my out"]
        with self.assertLogs("bundle.command.workflow", logging.INFO) as log:
            self.succeeds(*args("adfa_train"), *words)
        lines = [line.split(":", 2)[2] for line in log.output]
        self.assertEqual(lines[0], "wrote 'my out/model.pt', 'my out/calibration.json', 'my out/model.json'")
        self.assertRegex(lines[1], r"^best synthetic_anomaly_auroc on validation: [01]\.\d{3} \(epoch [01]\)$")
        typed = [shlex.split(line.removeprefix("next: ")) for line in lines if line.startswith("next: ")]
        self.assertEqual(
            [Path(words[5]).name for words in typed], ["args_adfa_evaluate.yaml", "args_adfa_inference.yaml"]
        )
        self.assertEqual(typed[0][:4], ["python", "-m", "monai.bundle", "run"])
        with self.assertLogs("bundle.command.workflow", logging.INFO) as log:
            self.succeeds(*typed[0][4:], *SMALL)
        lines = [line.split(":", 2)[2] for line in log.output]
        self.assertIn("report.html, predictions.csv", lines[0])
        self.assertTrue(lines[0].endswith("in 'my out/evaluation'"), lines[0])
        self.assertRegex(lines[1], r"^AUROC: [01]\.\d{3} \(95 % interval ")
        self.assertEqual(lines[2], "next: open 'my out/evaluation/report.html' in a browser")

    def test_a_phase_is_followed_by_the_next(self):
        data = ["--dataset_dir", "-d", "--classes", "a b,c"]
        command = ["--args_file", "configs/args_msa_train_backbone.yaml", f"{data[0]}={data[1]}", *data[2:]]
        os.chdir(ROOT)
        program = str(Path(monai.bundle.__file__).with_name("__main__.py"))
        with mock.patch.object(sys, "argv", [program, "run", *command]):
            (line,) = _next_commands(Path("configs/args_msa_train_backbone.yaml"), "o/backbone")
        self.assertEqual(
            shlex.split(line)[4:],
            ["--args_file", "configs/args_msa_train_head.yaml", "--dataset_dir=-d", "--start_from",
             "o/backbone/model.pt", "--output_dir", "o/head", "--classes", '["a b", "c"]'],
        )  # fmt: skip


class TestTrainingOfPhases(_Folder):
    def test_flags_of_a_phase_are_read_as_a_command_line_reads_them(self):
        from scripts.train_msa import overrides_of

        words = ["--classes", "a b,c#d", "--labels_csv=l#1.csv", "--weights", "null", "--seed", "None"]
        words += ["--head_max_epochs", "3", "--mining_steps=2", "--amp", "false"]
        shared = {"classes": ["a b", "c#d"], "labels_csv": "l#1.csv", "weights": "null", "seed": "$None"}
        shared |= {"mining_steps": 2, "amp": False}
        self.assertEqual(overrides_of(words, "backbone"), shared)
        self.assertEqual(overrides_of(words, "head"), shared | {"max_epochs": 3})
        with self.assertRaisesRegex(ValueError, "max_epochs must be a whole number of at least 1, got '0'"):
            overrides_of(["--head_max_epochs", "0"], "head")
        with self.assertRaisesRegex(
            SystemExit, "error: further arguments must be pairs of --key and value, got a 'b c'"
        ):
            overrides_of(["a", "b c"], "head")

    def test_help_of_what_only_starts_others_needs_no_pytorch(self):
        for name in ("train_msa.py", "demo.py"):
            code = "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['x', '--help']; "
            code += "runpy.run_path(%r, run_name='__main__')"
            done = subprocess.run(
                [sys.executable, "-c", code % str(ROOT / "scripts" / name)], capture_output=True, text=True
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("--output_dir", done.stdout)


class TestWorkflowOfTests(unittest.TestCase):
    def test_it_is_the_one_of_the_command_line(self):
        self.assertIsInstance(workflow_of("adfa_train"), BundleWorkflow)


if __name__ == "__main__":
    unittest.main()
