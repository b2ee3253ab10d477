# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset

from bundle.anomaly import AnomalyScored, read_calibration
from bundle.anomaly.adfa import ADFA
from bundle.anomaly.normal_refit import NormalRefit
from bundle.anomaly.normals import Normals
from bundle.files import file_sha256
from bundle.lists import with_folds


class TestNormalRefit(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.net = ADFA((32, 32), weights=None, descriptor_channels=0, epsilon=0, map_stride=8)
        self.images = torch.rand(8, 3, 32, 32)
        self.items = with_folds([{"image": image} for image in self.images], folds=3)

    def refit(self, folder):
        loader = DataLoader(Dataset(self.items), batch_size=3)
        NormalRefit(self.net, loader, AnomalyScored(), folder / "model.pt", folder / "calibration.json", 0.3)()
        return read_calibration(folder / "calibration.json", file_sha256(folder / "model.pt"))["scores"]

    def test_every_score_is_of_a_model_without_that_fold(self):
        with tempfile.TemporaryDirectory() as name:
            scores = self.refit(Path(name))
            again = []
            for fold in range(3):
                kept = [item for item in self.items if item["fold"] != fold]
                self.net.fit(Normals(DataLoader(Dataset(kept), batch_size=8)))
                for item in self.items:
                    if item["fold"] == fold:
                        pred = self.net(item["image"][None])[0]
                        again.append(float(AnomalyScored()({"image": item["image"], "pred": pred})["anomaly_score"]))
            torch.testing.assert_close(torch.tensor(scores), torch.tensor(sorted(again)), rtol=1e-3, atol=1e-3)

    def test_centers_are_the_mean_of_all_normals_and_are_saved(self):
        with tempfile.TemporaryDirectory() as name:
            self.refit(Path(name))
            saved = torch.load(Path(name) / "model.pt", weights_only=True)
        torch.testing.assert_close(saved["center_bank.centers"], self.net.describe(self.images).mean(dim=0))
        torch.testing.assert_close(saved["descriptor.feature_mean"], self.net.descriptor.feature_mean)

    def test_folds_keep_patients_together(self):
        items = with_folds([{"image": i, "patient": f"p{i // 2}"} for i in range(12)], folds=4)
        folds = {}
        for item in items:
            folds.setdefault(item["patient"], set()).add(item["fold"])
        self.assertEqual({len(found) for found in folds.values()}, {1})
        self.assertEqual({item["fold"] for item in items}, {0, 1, 2, 3})
        self.assertEqual({item["fold"] for item in with_folds([{"image": i} for i in range(3)], folds=5)}, {0, 1, 2})


if __name__ == "__main__":
    unittest.main()
