# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from bundle.anomaly import CenterBank
from bundle.files import file_sha256
from bundle.networks import exported
from bundle.networks.exported import ExportedNetwork, export_network, network_to_run, weights_sha256
from tests.folders import FolderTestCase

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


class _Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bank = CenterBank(5, 4, epsilon=0)
        self.bank.set_centers(torch.randn(5, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bank(x.flatten(2).transpose(1, 2))


class TestExported(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.checkpoint = self.root / "model.pt"
        torch.manual_seed(0)

    def saved(self, network: nn.Module) -> nn.Module:
        torch.save(network.state_dict(), self.checkpoint)
        return network

    @unittest.skipUnless(ONNX, "onnx, onnxscript or onnxruntime is not installed (extra 'onnx')")
    def test_onnx(self):
        path = self.root / "model.onnx"
        network = self.saved(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval())
        export_network(network, path, (3, 8, 8), self.checkpoint)
        self.check(network, path, torch.randn(3, 3, 8, 8))
        self.assertEqual([p.name for p in self.root.glob("*.onnx*")], ["model.onnx"])  # no second file for the weights

    def check(self, network: nn.Module, path: Path, images: torch.Tensor) -> None:
        runs = ExportedNetwork(path).eval()
        self.assertEqual(list(runs.parameters()), [])
        for size in (1, 3):
            with torch.no_grad():
                torch.testing.assert_close(runs(images[:size]), network(images[:size]), atol=1e-4, rtol=0)
        self.assertEqual(weights_sha256(path), file_sha256(self.checkpoint))

    def test_script_and_graph(self):
        # a whole ADFA in every format: tests/configs/test_exported_inference.py
        network, images = self.saved(_Distances()), torch.randn(3, 4, 2, 2)
        for suffix in (".ts", ".pt2"):
            with self.subTest(format=suffix):
                export_network(network, self.root / f"model{suffix}", images.shape[1:], self.checkpoint)
                self.check(network, self.root / f"model{suffix}", images)

    def test_the_network_itself_where_nothing_is_exported(self):
        network = nn.Linear(1, 1)
        self.assertIs(network_to_run(network, "", "cpu"), network)
        self.assertFalse(network.training)

    def test_a_script_without_the_name_of_its_checkpoint(self):
        path = self.root / "plain.ts"
        torch.jit.save(torch.jit.script(nn.ReLU()), path)
        with self.assertLogs("bundle.networks.exported", "WARNING"):
            self.assertIsNone(weights_sha256(path))
        self.assertEqual(ExportedNetwork(path)(torch.tensor([-1.0, 2.0])).tolist(), [0, 2])

    def test_files_that_cannot_be(self):
        with self.assertRaisesRegex(FileNotFoundError, "exported must be an existing file, got '.*absent.onnx'"):
            ExportedNetwork(self.root / "absent.onnx")
        with self.assertRaisesRegex(ValueError, "must end in .ts, .pt2, .onnx, got 'model.plan'"):
            ExportedNetwork(self.root / "model.plan")
        (self.root / "model.onnx").touch()
        with (
            mock.patch.object(exported, "optional_import", return_value=(None, False)),
            self.assertRaisesRegex(ValueError, r"'model.onnx' needs onnxruntime: pip install '.*\[onnx\]'"),
        ):
            ExportedNetwork(self.root / "model.onnx")


if __name__ == "__main__":
    unittest.main()
