# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from bundle.preprocessing import ResizeAndPadd, ToSourceGridd
from bundle.preprocessing.dictionary import NoteInMetad
from bundle.preprocessing.display_facts import display_facts


class TestToSourceGrid(unittest.TestCase):
    def setUp(self):
        preprocessing = Compose([NoteInMetad("image", display_facts), ResizeAndPadd("image", (8, 8), keep_aspect=True)])
        self.item = preprocessing({"image": MetaTensor(torch.rand(1, 16, 8))})  # padded by two columns on each side
        self.back = ToSourceGridd("heat", preprocessing)

    def test_a_map_of_any_kind_gets_the_pixels_of_the_file(self):
        heat = torch.zeros(1, 8, 8)
        heat[0, :, 2:6] = 1  # all of the image, nothing of the padding
        record = {"meta": dict(self.item["image"].meta), "applied_operations": self.item["image"].applied_operations}
        for kind in (heat, MetaTensor(heat), MetaTensor(heat, **record), heat.numpy()):
            with self.subTest(kind=type(kind).__name__):
                found = self.back({**self.item, "heat": kind})["heat"]
                torch.testing.assert_close(torch.as_tensor(found).as_subclass(torch.Tensor), torch.ones(1, 16, 8))

    def test_a_map_that_cannot_be_brought_back_is_an_error(self):
        bare = MetaTensor(self.item["image"].as_tensor(), meta=dict(self.item["image"].meta))
        with self.assertRaisesRegex(RuntimeError, "applying transform"):  # MONAI's, whose record is empty
            self.back({"image": bare, "heat": torch.zeros(1, 8, 8)})


if __name__ == "__main__":
    unittest.main()
