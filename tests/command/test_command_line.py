# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import pytest
import yaml

from bundle.command.command_line import CommandLine

ROOT = Path(__file__).resolve().parents[2]


class TestCommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "bundle"
        self.write("base.yaml", {"batch_size": 4, "loader": {"_target_": "DataLoader", "batch_size": "@batch_size"}})
        self.write("task.yaml", {"train": {"handlers": [{"interval": 1}], "loss": "x"}, "+more": [1], "run": []})
        self.args = self.write("args.yaml", {"config_file": [self.path("base.yaml"), self.path("task.yaml")]})

    def path(self, name: str) -> str:
        return str(self.root / "configs" / name)

    def write(self, name: str, content: dict) -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def check(self, *flags: str) -> None:
        CommandLine(["--args_file", self.args, *flags]).check()

    def test_settings_are_those_of_the_files_and_then_of_the_flags(self):
        flags = ["--batch_size", "8", "--train::loss=y", "--name", "[a", "--quiet", "--resume", "--model_dir", "1#2"]
        settings = CommandLine(["--args_file", self.args, *flags]).settings()
        self.assertEqual((settings["batch_size"], settings["quiet"]), (8, True))
        self.assertEqual(settings["loader"]["batch_size"], "@batch_size")
        self.assertEqual((settings["train::loss"], settings["name"], settings["model_dir"]), ("y", "[a", "1#2"))

    def test_known_flags_pass(self):
        self.check(
            "--batch_size", "5", "--run_id=run", "--train::handlers::0::interval", "-1", "--workflow_type", "train"
        )
        self.check("--loader::drop_last", "True", "--+more", "[2]", "--train#loss", "y", "--batch-size", "3")

    def test_a_flag_without_value_and_a_word_without_flag(self):
        for flags, message in (
            (["--batch_size"], "--batch_size must have a value, got none; .* needs --batch_size=VALUE"),
            (["--batch_size", "--train#loss", "y"], "--batch_size must have a value"),
            (["--train#loss", "two", "words"], "'words' belongs to no flag: a value with spaces must stand in quotes"),
            (["--batch_size=1", "2"], "'2' belongs to no flag"),
        ):
            with self.subTest(flags=flags), self.assertRaisesRegex(ValueError, message):
                self.check(*flags)

    def test_a_part_of_a_configuration_is_told_apart_from_a_whole_one(self):
        with self.assertRaisesRegex(
            ValueError, "base.yaml' is a part of a configuration, without 'run': start a whole"
        ):
            CommandLine(["--config_file", self.path("base.yaml")]).check()

    def test_an_unknown_flag_names_the_nearest(self):
        for flag, near in (
            ("batchsize", "batch_size"),
            ("train::los", "train::loss"),
            ("train::handlers::7", None),
            ("logging_fil", "logging_file"),
            ("qqq", None),
        ):
            meant = f"did you mean '--{near}'" if near else "none like it"
            with self.assertRaisesRegex(ValueError, f"'--{flag}' is no setting of this run: .*{meant}"):
                self.check(f"--{flag}", "5")

    def test_an_old_flag_names_the_new_one(self):
        for old, new in (
            ("made_abnormal_share", "synthetic_anomaly_share"),
            ("backbone_weights", "weights"),
            ("pretrained", "weights"),
        ):
            with self.assertRaisesRegex(ValueError, f"'--{old}' .*: its name is '--{new}' now"):
                self.check(f"--{old}", "0")

    def test_a_run_that_trains_nothing_names_the_model_in_place_of_the_start(self):
        with self.assertRaisesRegex(ValueError, "'--weights' is no setting of this run: .* given as '--model_dir'"):
            self.check("--weights", "random")

    def test_settings_of_tracking_are_known_with_tracking(self):
        self.check("--tracking", "mlflow", "--experiment_name", "a")
        with self.assertRaisesRegex(ValueError, "'--experiment_name' is no setting"):
            self.check("--experiment_name", "a")

    def test_configurations_stay_in_their_bundle(self):
        outside = self.root.parent / "elsewhere.yaml"
        outside.write_text("secret: 1\nrun: []")
        self.write("args.yaml", {"config_file": [self.path("base.yaml"), str(outside)]})
        with self.assertRaisesRegex(ValueError, "config_file must lie in the bundle 'bundle', got '.*elsewhere.yaml'"):
            self.check()
        self.write("args.yaml", {"config_file": [self.path("base.yaml"), self.path("task.yaml")]})
        self.write("task.yaml", {"train": {"loss": f"%{outside}::secret"}})
        with self.assertRaisesRegex(ValueError, "task.yaml: train::loss: a file must lie in the bundle 'bundle'"):
            self.check()
        CommandLine(["--config_file", f"['{self.path('base.yaml')}', '{outside}']"]).check()  # the user's own word

    def test_origin_of_a_key(self):
        command_line = CommandLine(["--args_file", self.args, "--batch_size", "5"])
        self.assertEqual(command_line.origin("batch_size"), "the command line")
        self.assertEqual(command_line.origin("train::loss"), self.path("task.yaml"))
        self.assertEqual(command_line.origin("more"), self.path("task.yaml"))
        self.assertEqual(command_line.origin("nothing"), "")

    @pytest.mark.full
    def test_a_run_answers_in_one_line(self):
        # the flag, then what is wrong in the configuration itself: file and key
        start = [sys.executable, "-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_train.yaml"]
        shared = ["--output_dir", str(self.root / "out"), "--dataset_dir", str(self.root)]
        for flags, words in (
            (["--batchsize", "5"], "error: '--batchsize' is no setting of this run: did you mean '--batch_size'?\n"),
            (["--held_back", "@nothing"], "error: the referring item `@nothing` is not defined in the config content."),
        ):
            done = subprocess.run([*start, *shared, *flags], cwd=ROOT, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
        self.assertTrue(done.stderr.endswith("('held_back' in the command line)\n"), done.stderr)


if __name__ == "__main__":
    unittest.main()
