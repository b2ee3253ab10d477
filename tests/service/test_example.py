# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The settings that docs/service.md begins with are those of a service that starts and answers a film."""

from __future__ import annotations

import re

from bundle.model import read_model
from bundle.service.settings import load_settings
from tests.folders import FolderTestCase
from tests.service.helpers import quiet_workflow
from tests.workflows import ROOT

FILM = next((ROOT / "models/demo_films").glob("*.dcm"))


class TestExampleSettings(FolderTestCase):
    def test_the_shipped_models_answer_a_film(self):
        (example,) = re.findall(r"```yaml\n# service\.yaml.*?```", (ROOT / "docs/service.md").read_text(), re.DOTALL)
        (self.folder / "here").mkdir()
        (self.folder / "configs").symlink_to(ROOT / "configs")  # paths are relative to the file's folder
        (self.folder / "here/service.yaml").write_text(example.removeprefix("```yaml\n").removesuffix("```"))
        settings = load_settings(self.folder / "here/service.yaml")
        names = {model.name: model.settings["model_dir"] for model in settings.models}
        self.assertEqual(names, {"adfa": "chest_xray_anomaly", "sna": "chest_xray_findings"})
        for model in settings.models:
            with self.subTest(model.name), quiet_workflow(model, self.folder / "scratch") as workflow:
                self.assertTrue(workflow.takes("DX"))
                produced = workflow.run([FILM], self.folder / model.name)
                self.assertEqual(produced.weights, read_model(names[model.name]).weights_sha256)
                self.assertEqual(produced.failures, [])
                self.assertIn("sr", {kind for _, kind, _ in produced.results})
