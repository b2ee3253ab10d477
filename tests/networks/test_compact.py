# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch

from bundle.networks.compact import compact_content, save_compact
from bundle.networks.pretrained import efficientnet_lite0_weights, read_state_dict


class TestCompact(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "model.pt"
        self.trunk = torch.load(efficientnet_lite0_weights(), weights_only=True)
        generator = torch.Generator().manual_seed(0)
        self.state = {
            "own.stem": self.trunk["_conv_stem.weight"].clone(),  # under another name than the package has
            "own.changed": self.trunk["_conv_stem.weight"] + 1,
            "matrix": torch.rand(4, 4, generator=generator),
            "variance": torch.rand(4, generator=generator),
            "large": torch.full((2, 2), 1e5),  # over the largest number of half precision, 65504
            "steps": torch.tensor(3),
        }

    def test_what_the_package_has_is_borrowed_by_content_and_comes_back(self):
        content = save_compact(self.state, self.path)
        self.assertEqual(content["from_trunk"], {"own.stem": "_conv_stem.weight"})
        found = read_state_dict(self.path)
        torch.testing.assert_close({k: found[k] for k in self.state}, self.state, rtol=0, atol=0)
        self.assertEqual(len(found), len(self.state))

    def test_half_precision_is_for_matrices_that_fit_and_reads_as_float32(self):
        kept = save_compact(self.state, self.path, half=True)["state_dict"]
        halves = {name for name, tensor in kept.items() if tensor.dtype == torch.float16}
        self.assertEqual(halves, {"own.changed", "matrix"})
        found = read_state_dict(self.path)
        self.assertEqual(found["matrix"].dtype, torch.float32)
        torch.testing.assert_close(found["matrix"], self.state["matrix"], rtol=2**-11, atol=0)  # IEEE 754 binary16

    def test_the_same_content_gives_the_same_bytes(self):
        save_compact(self.state, self.path)
        first = self.path.read_bytes()
        save_compact(self.state, self.path)
        self.assertEqual(self.path.read_bytes(), first)

    def test_what_is_refused_names_file_rule_and_value(self):
        whole = compact_content(self.state)
        for change, message in (
            ({"trunk": {**whole["trunk"], "package": "other"}}, "'model.pt': trunk must be of .*, got 'other'"),
            ({"trunk": None}, "'model.pt': trunk must be of .*, got 'None'"),
            ({"trunk": {**whole["trunk"], "sha256": "0" * 64}}, "version 0.1.0 .* 0{12}, the installed one has"),
            ({"from_trunk": {"a": "nowhere"}}, "'model.pt': from_trunk must name tensors of .*, it has no 'nowhere'"),
            ({"from_trunk": []}, "'model.pt': from_trunk must hold names"),
            ({"state_dict": {"a": 1}}, "'model.pt': state_dict must hold tensors"),
        ):
            with self.subTest(message=message):
                torch.save({**whole, **change}, self.path)
                with self.assertRaisesRegex(ValueError, message):
                    read_state_dict(self.path)


if __name__ == "__main__":
    unittest.main()
