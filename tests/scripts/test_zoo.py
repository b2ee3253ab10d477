# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import download_large_files

from bundle.files import file_sha256
from bundle.model.content import sealed

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = {
    "adfa_anomaly_detection": "chest_xray_anomaly",
    "breast_ultrasound_anomaly_detection": "breast_ultrasound_anomaly",
    "msa_xray_localization": "chest_xray_localization",
    "sna_xray_classification": "chest_xray_findings",
}
FILMS = sorted((ROOT / "models" / "demo_films").glob("*.dcm"))
# in a process that finds the bundle's package alone
PREDICT = """
import json, sys
import bundle
found = bundle.load_model(sys.argv[1], "cpu").predict(sys.argv[2:])
print(json.dumps([[result.anomaly_score, result.probabilities] for result in found]))
"""


def run(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


class TestZoo(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        done = run("build_zoo.py", "--output_dir", cls.root)
        assert done.returncode == 0, done.stderr[-2000:]

    @pytest.mark.full
    def test_the_zips_pass_every_check_away_from_the_repository(self):
        done = run("checks/check_zoo.py", *sorted(self.root.glob("*.zip")))
        self.assertEqual(done.returncode, 0, done.stdout[-4000:])
        self.assertEqual(len(re.findall(" ok ", done.stdout)), 8 * len(BUNDLES), done.stdout)

    @pytest.mark.full
    def test_they_predict_what_the_shipped_models_predict(self):
        for name, model in BUNDLES.items():
            found = {}
            for place, weights in ((self.root / name, "models"), (ROOT, model)):
                done = subprocess.run(
                    [sys.executable, "-c", PREDICT, weights, *map(str, FILMS[:3])],
                    cwd=place,
                    env={**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
                    capture_output=True,
                    text=True,
                )
                self.assertEqual(done.returncode, 0, done.stderr[-2000:])
                found[place] = json.loads(done.stdout.splitlines()[-1])
            self.assertEqual(len(found[ROOT]), 3)
            self.assertEqual(found[self.root / name], found[ROOT], name)

    def test_no_page_links_to_what_is_not_there_and_training_keeps_the_model(self):
        for name, model in BUNDLES.items():
            for page in (self.root / name / "docs").glob("*.md"):
                for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
                    self.assertTrue((page.parent / link).exists(), f"{name}: {page.name} links to {link}")
            config = json.loads((self.root / name / "configs" / "train.json").read_text())
            self.assertEqual(config["output_dir"], "$@bundle_root + '/trained'")
            flags = yaml.safe_load((ROOT / "models" / "models.yaml").read_text())[model]["flags"]
            for key in flags.keys() & {"max_epochs", "learning_rate", "loss_name"}:
                self.assertEqual(config[key], flags[key])

    def test_what_lies_in_them(self):
        for name, model in BUNDLES.items():
            with zipfile.ZipFile(self.root / f"{name}_v0.1.0.zip") as archive:
                names = {file.removeprefix(f"{name}/") for file in archive.namelist()}
                config = json.loads(archive.read(f"{name}/configs/train.json"))
                page = archive.read(f"{name}/docs/README.md").decode()
            for file in ("train", "evaluate", "inference", "multi_gpu_train", "multi_gpu_evaluate", "metadata"):
                self.assertIn(f"configs/{file}.json", names)
            for file in ("LICENSE", "docs/data_license.txt", "models/model.pt", "bundle/__init__.py"):
                self.assertIn(file, names)
            self.assertEqual([key for key in config if key.startswith("+")], [])
            card = (ROOT / "models" / model / "README.md").read_text()
            self.assertIn(card.split("\n\n")[1], page.split("# Model Overview")[0])
            self.assertEqual("docs/demo_films.jpg" in names, "](demo_films.jpg)" in card)
            self.assertIn("--config_file configs/inference.json --input", page)
            headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
            order = ["Description", "Model Overview", "Data", "Training configuration", "Input", "Output"]
            order += ["Performance", "MONAI Bundle Commands", "References", "License"]
            self.assertEqual([heading for heading in headings if heading in order], order)

    def test_versions_are_the_pinned_ones_and_the_root_is_in_step(self):
        root = json.loads((ROOT / "configs" / "metadata.json").read_text())
        built = json.loads((self.root / next(iter(BUNDLES)) / "configs" / "metadata.json").read_text())
        self.assertEqual(
            {key: built[key] for key in root if key != "network_data_format"},
            {key: root[key] for key in root if key != "network_data_format"},
        )
        project = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
        needed = set(re.findall(r'"([A-Za-z0-9_-]+)', project)) - {"monai", "torch", "numpy"}
        self.assertEqual(set(built["required_packages_version"]), needed)

    @pytest.mark.full
    def test_weights_that_were_trained_and_lie_elsewhere(self):
        name, source, out = next(iter(BUNDLES)), self.root / "weights", self.root / "large"
        state = torch.load(self.root / name / "models" / "model.pt", weights_only=True)
        (source / name).mkdir(parents=True)
        trained = source / name / "model.pt"
        torch.save({key: value + 0.5 for key, value in state.items()}, trained)
        content = json.loads((self.root / name / "models" / "model.json").read_text())
        content["weights"]["sha256"], content["calibration"] = file_sha256(trained), None
        (source / name / "model.json").write_text(json.dumps(sealed(content)))
        done = run("build_zoo.py", "--output_dir", out, "--bundles", name, "--weights", source, "--large_files_url",
                   out.as_uri())  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertIn("without a card", (out / name / "docs" / "README.md").read_text())
        (entry,) = yaml.safe_load((out / name / "large_files.yml").read_text())["large_files"]
        written = torch.load(out / f"{name}_model.pt", weights_only=True)
        self.assertEqual(entry["hash_val"], file_sha256(out / f"{name}_model.pt"))
        self.assertTrue(
            all(torch.equal(tensor, (state[key] + 0.5).to(tensor.dtype)) for key, tensor in written.items())
        )
        self.assertFalse((out / name / "models" / "model.pt").exists())
        (out / f"{name}_model.pt").rename(out / name / "model.pt")  # to where the URL points
        download_large_files(bundle_path=str(out / name))
        self.assertEqual(file_sha256(out / name / "models" / "model.pt"), entry["hash_val"])


if __name__ == "__main__":
    unittest.main()
