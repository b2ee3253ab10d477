# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts/studies/anomaly")
with mock.patch.object(sys, "path", [SCRIPTS, *sys.path]):
    import adfa_study
    import adfa_study_maps
    import adfa_study_tables


class TestTables(unittest.TestCase):
    def rows(self):
        row = {"set": "covid19", "method": "default", "seed": 0, "normals": None, "labels": [0, 0, 1, 1]}
        scores = {key: [0.1, 0.3, 0.2, 0.4] for key in adfa_study_tables.SCORES}
        curve = [{"step": 40, "kinds": [0.5] * 5, **dict.fromkeys(adfa_study_tables.SCORES, 0.9)}]
        states = dict.fromkeys(["start", "start, refit", "chosen", "chosen, refit", "final", "held_back"], scores)
        return [{**row, **states, "curve": curve, "chosen_step": 40}]

    def test_hand_computed_cell(self):
        # of four pairs of normal and abnormal, three are in order
        self.assertTrue(adfa_study_tables.cell(self.rows(), "max").startswith("0.750 ("))
        self.assertEqual(adfa_study_tables.cell([], "max"), "not run")

    def test_every_table_can_be_written(self):
        for make in ("main_table", "settings_table", "normals_table", "alarm_table"):
            self.assertIn("covid19", getattr(adfa_study_tables, make)(self.rows(), "top 2 %"))
        self.assertIn("default, covid19 | 0.50 → 0.50", adfa_study_tables.unseen_table(self.rows()))
        self.assertIn("0.900 / 0.750", adfa_study_tables.score_table(self.rows()))


class TestMaps(unittest.TestCase):
    def test_a_perfect_map(self):
        with tempfile.TemporaryDirectory() as folder:
            mask = np.zeros((256, 256), dtype=np.uint8)
            mask[80:160, 80:160] = 255
            Image.fromarray(mask).save(Path(folder) / "a_1.png")
            heat = torch.from_numpy(adfa_study_maps.gray(Path(folder) / "a_1.png"))[None, None]
            found = adfa_study_maps.localization(heat, ["a.png"], Path(folder))
        self.assertGreater(found["pixel_auroc"], 0.99)
        self.assertGreater(found["pro"], 0.9)


class TestJobs(unittest.TestCase):
    def test_quick_is_a_part_of_all(self):
        every = adfa_study.jobs(quick=False)
        self.assertEqual(len(every), len(set(every)))
        self.assertTrue(set(adfa_study.jobs(quick=True)) <= set(every))
        self.assertIn(("busi_part", "default", 2, None), every)


if __name__ == "__main__":
    unittest.main()
