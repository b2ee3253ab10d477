# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch

from bundle.preprocessing import KeepPictured


class TestKeepPictured(unittest.TestCase):
    def test_hand_computed_bytes(self):
        image = torch.tensor([[[0.0, 0.5, 1.0], [-1.0, 2.0, float("nan")]]])
        found = KeepPictured("image")({"image": image, "key": "a"})
        self.assertIs(found["image"], image)
        np.testing.assert_array_equal(found["picture"].array(), np.array([[0, 128, 255], [0, 255, 0]], np.uint8))

    def test_equal_channels_are_one(self):
        for planes, shape in (
            (torch.zeros(1, 4, 5), (4, 5)),
            (torch.zeros(3, 4, 5), (4, 5)),
            (torch.eye(3)[:, :, None], (3, 1, 3)),
            (torch.tensor([0.0, 0.0, 1.0])[:, None, None], (1, 1, 3)),  # the first two alike
        ):
            self.assertEqual(KeepPictured("image")({"image": planes})["picture"].array().shape, shape)


if __name__ == "__main__":
    unittest.main()
