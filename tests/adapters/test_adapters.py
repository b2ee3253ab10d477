# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The adapters with stand-ins for the classes of the two SDKs, which cannot be installed beside the pinned versions."""

from __future__ import annotations

import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import nibabel
import numpy as np
import torch

from tests.service.helpers import ROOT, built_bundle, image_file, small_adfa, small_msa


class StandIn:
    """Takes any arguments and keeps the named ones that MONAI Label's task keeps."""

    SEGMENTATION, NONE = "segmentation", "none"

    def __init__(self, *args, **kwargs) -> None:
        self.labels = args[1] if len(args) > 1 else None


def load(file: str, **modules: tuple[str, ...]) -> dict:
    """Run an adapter's file with stand-ins for the classes that it imports."""
    made = {}
    for name, classes in modules.items():
        module = ModuleType(name.replace("__", "."))
        for word in classes:
            setattr(module, word, type(word, (StandIn,), {}))
        made[module.__name__] = module
        for parent in range(1, module.__name__.count(".") + 1):
            parent_name = ".".join(module.__name__.split(".")[:parent])
            if parent_name not in sys.modules:
                made.setdefault(parent_name, ModuleType(parent_name))
    with mock.patch.dict(sys.modules, made):
        return runpy.run_path(str(ROOT / "adapters" / file))


class TestAdapters(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, sys, "excepthook", sys.excepthook)
        self.addCleanup(torch.use_deterministic_algorithms, False)
        self.folder = Path(folder.name)

    def test_monai_deploy(self):
        words = (
            "AppContext",
            "Application",
            "ConditionType",
            "ExecutionContext",
            "Fragment",
            "InputContext",
            "Operator",
        )
        core = (*words, "OperatorSpec", "OutputContext")
        app = load("monai_deploy/app.py", monai__deploy__core=core, monai__deploy__conditions=("CountCondition",))
        bundle = built_bundle(small_adfa(self.folder / "adfa"), self.folder / "built")
        image_file(self.folder / "in", 0)
        operator = app["StudyOperator"](
            None, bundle=bundle, input_folder=self.folder / "in", output_folder=self.folder / "out"
        )
        ports, sent = [], []
        operator.setup(
            SimpleNamespace(output=lambda name: SimpleNamespace(condition=lambda c: ports.append((name, c))))
        )
        operator.start()
        with self.assertLogs(app["logger"], "INFO") as log:
            operator.compute(None, SimpleNamespace(emit=lambda *what: sent.append(what)), None)
        operator.stop()
        self.assertIn("1 images, 3 DICOM results", log.output[0])
        self.assertEqual((ports, sent), ([("output_folder", "none")], [(str(self.folder / "out"), "output_folder")]))
        self.assertEqual(len(list((self.folder / "out" / "dicom").glob("*.dcm"))), 3)

    def label(self) -> dict:
        interfaces = {"monailabel__interfaces__app": ("MONAILabelApp",)}
        return load(
            "monai_label/main.py", **interfaces, monailabel__interfaces__tasks__infer_v2=("InferTask", "InferType")
        )

    def test_monai_label(self):
        bundle = built_bundle(small_msa(self.folder / "msa"), self.folder / "built")
        app = self.label()["BundleApp"]("", "", {"bundle": str(bundle)})
        (task,) = app.init_infers().values()
        file, said = task({"image": str(image_file(self.folder / "in", 0))})
        mask = np.asarray(nibabel.load(file).dataobj)
        Path(file).unlink()
        self.assertEqual((task.is_valid(), mask.shape), (True, (48, 40)))
        self.assertGreater(mask.max(), 0)
        self.assertEqual(set(said["probabilities"]), {"Effusion", "Mass"})

    def test_masks(self):
        mask_of = self.label()["mask_of"]
        heat = np.array([[0.1, 0.9], [0.5, 0.2]])
        self.assertEqual(mask_of(heat, {}, 0.5, {}).tolist(), [[0, 1], [1, 0]])
        box = {"label": "b", "x": 1.0, "y": 0.0, "width": 1.0, "height": 2.0}
        self.assertEqual(mask_of(heat, {"boxes": [box]}, None, {"b": 7}).tolist(), [[0, 7], [0, 7]])


if __name__ == "__main__":
    unittest.main()
