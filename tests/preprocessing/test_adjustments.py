# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Crops and filters by name: nothing by default, and a way back through all of them."""

from __future__ import annotations

import unittest

import numpy as np
import torch
from monai.data import MetaTensor

from bundle.preprocessing.adjustments import ADJUSTMENTS, make_adjustments
from bundle.preprocessing.box_frames import boxes_in_source, seen_in_source
from bundle.preprocessing.source_grid import ToSourceGridd
from tests.workflows import workflow_of


def film() -> MetaTensor:
    """Return a gray field in columns 30..170 and rows 20..100 of a black film, with a bright block in it."""
    pixels = torch.zeros(3, 120, 200)
    noise = torch.rand(80, 140, generator=torch.Generator().manual_seed(0))
    pixels[:, 20:100, 30:170] = 0.3 + 0.1 * noise
    pixels[:, 40:60, 70:110] = 1.0
    region = np.array([10, 15, 110, 185])
    meta = {"region": region, "original_affine": torch.eye(4, dtype=torch.float64), "spatial_shape": [120, 200]}
    return MetaTensor(pixels, affine=torch.eye(4, dtype=torch.float64), meta=meta)


class TestAdjustments(unittest.TestCase):
    def test_an_unknown_name_is_refused(self):
        with self.assertRaisesRegex(ValueError, "adjustments must be among crop_region, .*, got blur"):
            make_adjustments("image", ["blur"], fitted=True)

    def test_every_family_has_them_with_a_way_back(self):
        for task in ("adfa_train", "sna_train", "msa_train_head"):
            for names in ([], *([name] for name in ADJUSTMENTS), [*ADJUSTMENTS]):
                with self.subTest(task=task, names=names):
                    small = {"image_size": [96, 160], "resize": [96, 160], "keep_aspect": True}
                    parser = workflow_of(task, dataset_dir=".", adjustments=names, **small).parser
                    fit = parser.get_parsed_content("fit")
                    item = fit({"image": film()})
                    self.assertEqual(tuple(item["image"].shape), (3, 96, 160))
                    # by hand: what the network sees is the field, the region, or all of the film
                    seen = [0, 0, 200, 120]
                    seen = [15, 10, 185, 110] if "crop_region" in names else seen
                    seen = [30, 20, 170, 100] if "crop_border" in names else seen
                    np.testing.assert_allclose(seen_in_source(item["image"]), seen, atol=0.01)
                    bright = torch.as_tensor(item["image"][:1] > 0.8).float()
                    marked = torch.zeros_like(bright)
                    rows, columns = np.nonzero(bright[0].numpy())
                    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    if not {"equalize", "stretch"} & set(names):  # which brighten the field too
                        back = boxes_in_source(torch.tensor([box], dtype=torch.float32), item["image"])[0]
                        np.testing.assert_allclose(back, [70, 40, 110, 60], atol=1.5)
                    heat = ToSourceGridd("heat", fit)({**item, "heat": marked + 1})["heat"]
                    self.assertEqual(tuple(heat.shape), (1, 120, 200))
                    left, top, right, bottom = seen
                    self.assertAlmostEqual(float(heat[0, top:bottom, left:right].min()), 1, places=4)
                    self.assertAlmostEqual(float(heat.sum()), (right - left) * (bottom - top), delta=1)

    def test_a_filter_changes_the_image(self):
        plain = make_adjustments("image", [], fitted=True)({"image": film()})["image"]
        torch.testing.assert_close(plain.as_tensor(), film().as_tensor(), rtol=0, atol=0)
        for name in ("reduce_speckle", "stretch", "equalize"):
            image = make_adjustments("image", [name], fitted=name != "reduce_speckle")({"image": film()})["image"]
            self.assertGreater(float((image - plain).abs().max()), 0.01, name)


if __name__ == "__main__":
    unittest.main()
