# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A training that goes on from a model: what it takes, what is new, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import jsonschema
import torch
from torch import nn

import bundle
from bundle.command import BundleWorkflow
from bundle.errors import cause_of
from bundle.files import file_sha256
from bundle.model import read_model
from tests.folders import FolderTestCase
from tests.test_bad_days import write_pictures
from tests.workflows import ROOT, run_command, run_workflow, workflow_of, write_start

OF_MODEL = {
    "image_size": [48, 64],
    "resize": [56, 72],
    "mean": [0.4, 0.4, 0.4],
    "adjustments": ["crop_border"],
    "attention": "cbam",
    "frozen_stages": 3,
}
KNOWN = ["bar", "square", "disc"]
NEW = {"classes": ["ring", "square", "bar"], "exclusive": False, "normal_class": ""}
LOG = "bundle.model.start"


class TestTrainingStart(FolderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.model, self.out = self.folder / "of_ours", self.folder / "out"
        torch.manual_seed(0)
        write_start(self.model, "sna", classes=KNOWN, exclusive=False, normal_class="", weights="random", **OF_MODEL)

    def begun(self, layers=(), **settings) -> tuple[BundleWorkflow, nn.Module]:
        """Return a training before its first step, and its network."""
        settings = {"init_from": str(self.model), "output_dir": str(self.out), "dataset_dir": "", **NEW, **settings}
        workflow = workflow_of("sna_train", layers, **settings)
        workflow.initialize()
        return workflow, workflow.parser.get_parsed_content("network_def").eval()

    def refused(self, message: str, *words: str) -> None:
        """Check that a command ends with one line, and that nothing was written."""
        flags = ("--dataset_dir", str(self.folder), "--output_dir", str(self.out), *words)
        status, errors = run_command("--args_file", "configs/args_sna_train.yaml", *flags)
        self.assertEqual((status, errors.count("\n")), (1, 1), errors)
        self.assertRegex(errors, message)
        self.assertFalse(self.out.exists())

    def test_a_class_of_the_same_name_has_the_probabilities_of_the_model(self):
        with self.assertLogs(LOG, "INFO") as log:
            workflow, network = self.begun()
        before = bundle.load_model(self.model, "cpu").network
        images = torch.rand(2, 3, *OF_MODEL["image_size"])
        with torch.no_grad():
            wanted, found = before(images).sigmoid(), network(images).sigmoid()
        torch.testing.assert_close(found[:, 1:], wanted[:, [1, 0]])
        self.assertGreater((found[:, 0] - wanted[:, 2]).abs().max(), 1e-3)  # not the row at its place in the model
        total = sum(parameter.numel() for parameter in network.parameters())
        taken = total - network.fc.in_features - 1  # all but the row of the new class
        message = (
            f"training starts from the model 'of_ours': {taken} of {total} parameters are taken; new classes: ring"
        )
        self.assertEqual([record.getMessage() for record in log.records], [message])
        for name, value in OF_MODEL.items():
            self.assertEqual(workflow.parser.get_parsed_content(name), value, name)

    def test_a_shipped_model_goes_on_by_its_name(self):
        name, film = "chest_xray_findings", next((ROOT / "models/demo_films").glob("*.dcm"))
        model = bundle.load_model(name, "cpu")
        _, network = self.begun(init_from=name, classes=["Fracture", "Effusion", "Mass"])
        image = model.preprocessed(str(film))[None]
        with torch.no_grad():
            wanted, found = model.network(image).sigmoid()[0], network(image).sigmoid()[0]
        known = model.file["classes"]
        torch.testing.assert_close(found[1:], wanted[[known.index("Effusion"), known.index("Mass")]])

    def test_another_attention_is_new_and_the_rest_is_taken(self):
        with self.assertLogs(LOG, "INFO") as log:
            _, network = self.begun(attention="se")
        saved = torch.load(self.model / "model.pt", weights_only=True)
        new = {key for key in network.state_dict() if key not in saved}
        self.assertTrue(new and all(key.startswith("attention.") for key in new), new)
        for key, value in network.state_dict().items():
            if key not in new and not key.startswith("fc."):
                self.assertTrue(torch.equal(value, saved[key]), key)
        taken, total = map(int, re.findall(r"(\d+) of (\d+)", log.output[0])[0])
        added = sum(parameter.numel() for parameter in network.attention.parameters())
        self.assertEqual(total - taken, added + network.fc.in_features + 1)

    def test_the_model_file_names_what_it_started_from(self):
        write_pictures(self.folder / "images", 8)
        with (self.folder / "labels.csv").open("w", newline="") as file:
            rows = [[f"images/{i:02d}.png", f"p{i}", ("training", "validation")[i % 2], i // 2 % 2] for i in range(8)]
            csv.writer(file).writerows([["image", "patient", "split", "square"], *rows])
        settings = {"dataset_dir": str(self.folder), "output_dir": str(self.out), "tensorboard": False, "max_epochs": 1}
        run_workflow("sna_train", init_from=str(self.model), **{**NEW, "classes": ["square"]}, **settings)
        content = read_model(self.out).content
        digest = file_sha256(self.model / "model.pt")
        self.assertEqual(content["started_from"], {"name": "of_ours", "weights_sha256": digest})
        jsonschema.validate(content, json.loads((ROOT / "docs/model.schema.json").read_text()))
        self.assertEqual({name: content["settings"][name] for name in OF_MODEL}, OF_MODEL)

    def test_a_flag_that_contradicts_the_model_is_one_line(self):
        start = ("--init_from", str(self.model), "--classes", "square,ring")
        for words, message in (
            (("--image_size", "64"), r"--image_size \[64, 64\] contradicts the model 'of_ours', .* with \[48, 64\]"),
            (("--mean", "0,0,0"), r"--mean \[0.*\] contradicts the model 'of_ours', which was trained with \[0.4,"),
            (("--frozen_stages", "5"), "--frozen_stages 5 contradicts the model 'of_ours', which was trained with 3"),
            (("--weights", "default"), "--weights default contradicts --init_from, which has the weights"),
        ):
            with self.subTest(words):
                self.refused(message, *start, *words)

    def test_a_model_that_cannot_be_gone_on_from_is_one_line(self):
        write_start(self.folder / "adfa", "adfa", image_size=[32, 32])
        for start, message in (
            ("chest_xray_finding", "init_from must be the folder of a trained model, 'chest_xray_finding' does not"),
            ("chest_xray_anomaly", "is a model of family adfa, sna is asked for"),
            (str(self.folder / "adfa"), "is a model of family adfa, sna is asked for"),
        ):
            with self.subTest(start):
                self.refused(message, "--init_from", start)

    def test_another_network_and_other_weights(self):
        message = "--backbone resnet18 contradicts the model 'of_ours', which was trained with efficientnet_lite0"
        with self.assertRaisesRegex(ValueError, message):
            self.begun(backbone="resnet18")
        torch.save(bundle.load_model(self.model, "cpu").network.half().state_dict(), Path(self.model, "model.pt"))
        with self.assertRaises(RuntimeError) as caught:
            self.begun()
        self.assertRegex(str(cause_of(caught.exception)), "is not the file that model.json describes: the SHA-256")
