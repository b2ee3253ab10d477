# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
import tempfile
import unittest
from pathlib import Path

import jsonschema
import torch
from torch import nn

from bundle.anomaly import ADFA
from bundle.classification import AttentionLite0
from bundle.files import file_sha256
from bundle.model import check_model, read_model, write_model
from bundle.model.content import FORMAT, sealed
from bundle.results.dicom.source import MANUFACTURER
from bundle.results.run_record import WRITTEN_BY

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "model.schema.json").read_text())
SETTINGS = {"resize": (32, 32), "top_fraction": 0.1, "classes": ["a", "b"]}


class TestModelFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "model"
        self.folder.mkdir()
        self.network = AttentionLite0(2, (32, 32), attention="se", weights=None)
        torch.save(self.network.state_dict(), self.folder / "model.pt")
        self.write()

    def write(self, **changes) -> None:
        arguments = {"family": "sna", "weights": self.folder / "model.pt", "network": self.network}
        write_model(self.folder, **{**arguments, "settings": SETTINGS, **changes})

    def change(self, **changes) -> None:
        file = self.folder / "model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    def test_it_follows_the_published_schema_and_holds_no_path(self):
        text = (self.folder / "model.json").read_text()
        jsonschema.validate(json.loads(text), SCHEMA)
        self.assertNotIn(str(self.folder.parent), text)

    def test_the_network_comes_back_as_it_was_made(self):
        network = read_model(self.folder).network()
        network.load_state_dict(self.network.state_dict())
        image = torch.rand(1, 3, 32, 32)
        torch.testing.assert_close(network.eval()(image), self.network.eval()(image), rtol=0, atol=0)
        self.assertIsNone(network.arguments["weights"])

    def test_a_file_with_the_old_names_of_the_start_is_read(self):
        # as version 0.1.0 wrote it before `weights` was its name in every family: always null
        path = self.folder / "model.json"
        content = json.loads(path.read_text())
        content["network"]["arguments"]["pretrained"] = None
        path.write_text(json.dumps(sealed(content)))
        model = read_model(self.folder)
        model.network().load_state_dict(self.network.state_dict())
        self.assertEqual(check_model(model, {}, self.network), [])

    def test_where_weights_started_is_not_told(self):
        (self.folder / "start.pt").write_bytes(b"")
        network = ADFA((32, 32), "resnet18", None)
        network.arguments["weights"] = str(self.folder / "start.pt")
        self.write(family="adfa", network=network)
        self.assertNotIn("start.pt", (self.folder / "model.json").read_text())

    def test_values_are_compared_and_not_texts(self):
        model = read_model(self.folder)
        same = {"resize": [32.0, 32], "top_fraction": 0.10, "classes": ("a", "b"), "unknown to the model": 7}
        self.assertEqual(check_model(model, same, self.network, model.weights_sha256), [])

    def test_a_model_from_before_the_whole_image_has_its_map_alone(self):
        network = ADFA((32, 32), "resnet18", None, whole_weight=0)
        torch.save(network.state_dict(), self.folder / "model.pt")
        self.write(family="adfa", network=network)
        written = json.loads((self.folder / "model.json").read_text())["network"]
        del written["arguments"]["whole_weight"]
        self.change(network=written)
        content = json.loads((self.folder / "model.json").read_text())
        (self.folder / "model.json").write_text(json.dumps(sealed(content)))
        model = read_model(self.folder)
        model.network().load_state_dict(network.state_dict())
        self.assertEqual(check_model(model, {}, model.network()), [])
        with self.assertRaisesRegex(ValueError, "whole_weight.*contradicts"):
            check_model(model, {}, ADFA((32, 32), "resnet18", None))

    def test_a_model_from_before_there_were_adjustments_had_none(self):
        model = read_model(self.folder)
        self.assertEqual(model["adjustments"], [])
        with self.assertRaisesRegex(ValueError, r'--adjustments \["stretch"\] contradicts .* \[\]'):
            check_model(model, {"adjustments": ["stretch"]}, self.network)

    def test_an_argument_that_came_later_has_its_default(self):
        network = json.loads((self.folder / "model.json").read_text())["network"]
        del network["arguments"]["attention"]  # as in a file from before there was a choice
        self.change(network=network)
        content = json.loads((self.folder / "model.json").read_text())
        (self.folder / "model.json").write_text(json.dumps(sealed(content)))
        model = read_model(self.folder)
        self.assertEqual(check_model(model, {}, model.network()), [])
        with self.assertRaisesRegex(
            ValueError, '--network_def {"attention": "se"} contradicts .* {"attention": "sna"}'
        ):
            check_model(model, {}, self.network)

    def test_each_contradiction_is_refused_with_both_values_and_the_way_to_do_it_on_purpose(self):
        model = read_model(self.folder)
        other = AttentionLite0(2, (32, 32), attention="none", weights=None)
        for settings, network, digest, message in (
            (
                {"resize": [36, 36]},
                self.network,
                None,
                r"--resize \[36, 36\] contradicts .* \[32, 32\].*override_model",
            ),
            ({"classes": ["b", "a"]}, self.network, None, r"--classes \[\"b\", \"a\"\] contradicts"),
            ({"top_fraction": 0}, self.network, None, "--top_fraction 0 contradicts .* 0.1"),
            ({}, other, None, '--network_def {"attention": "none"} contradicts .* {"attention": "se"}'),
            ({}, self.network, "0" * 64, "the weights in use are not those of the model"),
        ):
            with self.subTest(message=message):
                with self.assertRaisesRegex(ValueError, message):
                    check_model(model, settings, network, digest)
                self.assertEqual(len(check_model(model, settings, network, digest, override=True)), 1)

    def test_what_is_refused(self):
        whole = (self.folder / "model.json").read_text()
        for change, message in (
            ({"format": "other"}, "format must be"),
            ({"format_version": 3}, "is of format 3, this version .* reads up to 2"),
            ({"format_version": True}, "format_version must be a number from 1"),
            ({"family": "other"}, "family must be one of adfa, sna, msa, detector"),
            ({"settings": None}, "settings must be there, and be a mapping"),
            ({"weights": {"file": "../model.pt", "sha256": "0"}}, "weights must have the name of a file"),
            ({"calibration": {"file": "calibration.json", "sha256": "0"}}, "'calibration.json', which is missing"),
            ({"settings": {"top_fraction": float("nan")}}, "settings::top_fraction must be finite, got nan"),
        ):
            with self.subTest(message=message):
                (self.folder / "model.json").write_text(whole)
                self.change(**change)
                if "calibration" in change or "weights" in change:  # as another program would write it
                    content = json.loads((self.folder / "model.json").read_text())
                    (self.folder / "model.json").write_text(json.dumps(sealed(content)))
                with self.assertRaisesRegex(ValueError, message):
                    read_model(self.folder)
        for text in ("", "[]", "{", "[" * 10_000 + "]" * 10_000, " " * 5_000_000):
            (self.folder / "model.json").write_text(text)
            with self.assertRaisesRegex(ValueError, "is no file of a model: "):
                read_model(self.folder)

    def test_another_family_and_a_network_that_is_not_ours(self):
        with self.assertRaisesRegex(ValueError, "is a model of family sna, adfa is asked for"):
            read_model(self.folder, "adfa")
        self.write(network=nn.Linear(1, 1))
        with self.assertRaisesRegex(
            ValueError, "got 'torch.nn.modules.linear.Linear'; a network of one's own is given"
        ):
            read_model(self.folder).network()

    def test_folders_that_hold_no_model_say_what_to_do(self):
        with self.assertRaisesRegex(ValueError, "'.*nowhere' does not exist"):
            read_model(self.folder / "nowhere")
        (self.folder / "model.json").unlink()
        with self.assertRaisesRegex(ValueError, "has weights but no model.json.*training command.*--resume True"):
            read_model(self.folder)
        (self.folder / "model.pt").unlink()
        with self.assertRaisesRegex(ValueError, "has no model.json"):
            read_model(self.folder)

    def test_one_name_of_the_distribution_and_the_older_format_is_understood(self):
        (name,) = re.findall('^name = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        self.assertEqual([FORMAT.removesuffix(" model"), WRITTEN_BY, MANUFACTURER], [name] * 3)
        path = self.folder / "model.json"
        content = json.loads(path.read_text())
        self.assertEqual(content["format"], FORMAT)
        path.write_text(json.dumps(sealed(content | {"format": "attention-imaging model"})))
        self.assertEqual(read_model(self.folder).family, content["family"])

    def test_an_edit_is_noticed(self):
        for change in (
            {"settings": {**SETTINGS, "classes": ["b", "a"]}},
            {"training_set": {}},
            {"calibration": {"file": "calibration.json", "sha256": "0"}},
            {"another": 1},
        ):
            self.write()
            self.change(**change)
            with self.assertRaisesRegex(ValueError, "was changed after it was written"):
                read_model(self.folder)

    def test_a_stray_calibration_is_none(self):
        (self.folder / "calibration.json").write_text("{}")
        self.assertEqual(read_model(self.folder).calibration, "")

    def test_settings_must_be_plain(self):
        for settings, message in (
            ({"a": float("inf")}, "settings::a must be finite"),
            ({"a": object()}, "plain value"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                self.write(settings=settings)

    def test_a_copied_folder_is_the_same_model(self):
        copy = shutil.copytree(self.folder, self.folder.with_name("copy"))
        model = read_model(copy / "model.json", "sna")
        self.assertEqual(model.weights_sha256, file_sha256(copy / "model.pt"))
        self.assertEqual(model["resize"], [32, 32])
        with self.assertRaisesRegex(ValueError, "has no setting 'smoothing'"):
            model["smoothing"]


if __name__ == "__main__":
    unittest.main()
