# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import unittest

import numpy as np
from PIL import Image

from bundle.classification.reliability import reliability_png

BINS = (np.array([0.1, np.nan, 0.9]), np.array([0.2, np.nan, 1.0]), np.array([3.0, 0.0, 5.0]))


class TestReliabilityPng(unittest.TestCase):
    def test_a_picture_for_one_and_for_many_classes(self):
        widths = []
        for count in (1, 2, 5):
            picture = Image.open(io.BytesIO(reliability_png({f"class {i}": BINS for i in range(count)})))
            picture.load()
            widths.append(picture.width)
        self.assertLess(widths[0], widths[1])
        self.assertLess(widths[1], widths[2])


if __name__ == "__main__":
    unittest.main()
