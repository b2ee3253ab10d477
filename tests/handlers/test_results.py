# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from pathlib import Path

import torch
from monai.data import MetaTensor

from bundle.handlers.results import image_result


class TestImageResult(unittest.TestCase):
    def test_a_frame_names_its_file(self):
        meta = {"filename_or_obj": "scans/loop.dcm#frame=7", "frame": 7, "subject": ""}
        result = image_result({"image": MetaTensor(torch.zeros(3, 4, 5), meta=meta), "key": "000001_f0007"})
        self.assertEqual((result.source, result.frame, result.subject), (Path("scans/loop.dcm"), 7, None))


if __name__ == "__main__":
    unittest.main()
