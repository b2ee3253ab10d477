# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from bundle.anomaly import ADFA
from bundle.classification import AttentionLite0, SNADenseNet, SNAResNet
from bundle.localization import MSA
from bundle.networks import load_pretrained
from bundle.networks.pretrained import PRETRAINED_URLS, read_state_dict, weights_source


def _network() -> nn.Module:
    return nn.ModuleDict({"conv": nn.Conv2d(1, 2, 3), "bn": nn.BatchNorm2d(2), "fc": nn.Linear(2, 5)})


class _Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a checkpoint ran')",)


class PretrainedTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "weights.pth"

    def save(self, content):
        torch.save(content, self.path)
        return self.path


class TestRandomStart(unittest.TestCase):
    def test_every_network_takes_the_word_that_a_command_line_can_pass(self):
        for make in (
            lambda w: ADFA((32, 32), weights=w),
            lambda w: AttentionLite0(2, weights=w),
            lambda w: SNAResNet(2, weights=w),
            lambda w: SNADenseNet(2, weights=w),
            lambda w: MSA(2, weights=w),
            lambda w: MSA(2, "resnet18", weights=w),
        ):
            torch.manual_seed(0)
            found = make("random").state_dict()
            torch.manual_seed(0)
            torch.testing.assert_close(found, make(None).state_dict(), rtol=0, atol=0)

    def test_the_official_weights(self):
        self.assertEqual(weights_source("default", "resnet50"), PRETRAINED_URLS["resnet50"])
        self.assertTrue(Path(weights_source("default", "efficientnet_lite0")).is_file())


class TestReadStateDict(PretrainedTestCase):
    def test_unwraps_what_trainers_wrap(self):
        state = {"conv.weight": torch.ones(1)}
        for content in (state, {"state_dict": state}, {"model": state}, {"module.conv.weight": torch.ones(1)}):
            self.assertEqual(read_state_dict(self.save(content)), state)

    def test_old_densenet_names(self):
        names = {
            "features.denseblock1.denselayer12.norm.1.weight": "features.denseblock1.denselayer12.norm1.weight",
            "features.denseblock1.denselayer2.conv.2.weight": "features.denseblock1.denselayer2.conv2.weight",
            "features.norm0.weight": "features.norm0.weight",
        }
        self.assertEqual(list(read_state_dict(self.save(dict.fromkeys(names, torch.ones(1))))), list(names.values()))

    def test_never_runs_code(self):
        with self.assertRaisesRegex(ValueError, "must be a state dict without code, 'weights.pth' is not"):
            read_state_dict(self.save(_Harmful()))

    def test_one_line_for_other_files(self):
        with self.assertRaisesRegex(FileNotFoundError, "weights must be an existing file, got '.*nothing.pth'"):
            read_state_dict(self.path.with_name("nothing.pth"))
        self.path.write_text("no checkpoint")
        with self.assertRaisesRegex(ValueError, "'weights.pth' is not") as caught:
            read_state_dict(self.path)
        self.assertNotIn("\n", str(caught.exception))
        for content in ([1, 2], {"a": 3}, {"state_dict": [torch.ones(1)]}):
            with self.assertRaisesRegex(ValueError, "must be a state dict of tensors, 'weights.pth' is not"):
                read_state_dict(self.save(content))

    def test_urls_carry_their_hash_and_it_is_checked(self):
        for url in PRETRAINED_URLS.values():
            self.assertRegex(url, r"^https://download\.pytorch\.org/models/\w+-[0-9a-f]{8}\.pth$")
        with mock.patch("torch.hub.load_state_dict_from_url", return_value={}) as load:
            read_state_dict(PRETRAINED_URLS["resnet18"])
        self.assertEqual(load.call_args.kwargs, {"map_location": "cpu", "check_hash": True, "weights_only": True})


class TestLoadPretrained(PretrainedTestCase):
    def test_loads_by_name_and_reports(self):
        source, target = _network(), _network()
        state = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
        report = load_pretrained(target, self.save({**state, "head.weight": torch.ones(3)}))
        self.assertEqual(report.missing, ["fc.weight", "fc.bias"])
        self.assertEqual(report.unused, ["head.weight"])
        self.assertEqual(str(report), "7 tensors loaded, 2 missing, 1 unused in the file")
        torch.testing.assert_close(target["conv"].weight, source["conv"].weight)

    def test_a_head_of_another_size_is_left_alone(self):
        state, target = _network().state_dict(), _network()
        before = target["fc"].weight.clone()
        report = load_pretrained(target, self.save({**state, "fc.weight": torch.ones(7, 2)}))
        self.assertEqual(report.missing, ["fc.weight"])
        torch.testing.assert_close(target["fc"].weight, before)

    def test_rename(self):
        source, target = _network(), _network()
        state = {re.sub(r"^|(?<=\.)", "_", k): v for k, v in source.state_dict().items()}
        self.assertIn("_conv._weight", state)
        self.assertEqual(load_pretrained(target, self.save(state), rename=r"(?<![^.])_").missing, [])
        other = {"trunk." + k: v for k, v in source.state_dict().items()}
        self.assertEqual(load_pretrained(target, self.save(other), rename=(r"^trunk\.", "")).missing, [])

    def test_what_does_not_fit_is_one_line_and_loads_nothing(self):
        state, target = _network().state_dict(), _network()
        before = target["bn"].running_mean.clone()
        state["bn.running_mean"] += 5
        state["conv.weight"] = torch.zeros(2, 3, 3, 3)
        expected = (
            r"weights 'weights.pth' do not fit ModuleDict: 1 tensors differ, first 'conv.weight' of shape "
            r"\(2, 1, 3, 3\) has shape \(2, 3, 3, 3\) in the file."
        )
        with self.assertRaisesRegex(ValueError, expected):
            load_pretrained(target, self.save(state))
        torch.testing.assert_close(target["bn"].running_mean, before)
        del state["conv.weight"]
        with self.assertRaisesRegex(ValueError, "first 'conv.weight' of shape .* is absent in the file"):
            load_pretrained(target, self.save(state))


if __name__ == "__main__":
    unittest.main()
