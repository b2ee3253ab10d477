# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import torch
from monai.data import MetaTensor

from bundle.anomaly import SyntheticAnomalyd
from bundle.anomaly.synthetic_anomalies import SYNTHETIC_ANOMALY_KINDS, random_region, synthetic_anomaly


def _image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.3 + 0.4 * torch.rand(3, 64, 48, generator=generator)


class TestRandomRegion(unittest.TestCase):
    def test_lies_on_the_body(self):
        image = torch.zeros(1, 64, 64)
        image[:, 20:40, 36:60] = 0.8
        for seed in range(8):
            region = random_region(image, 0.1, torch.Generator().manual_seed(seed))
            self.assertEqual(region.shape, (64, 64))
            self.assertTrue(0 <= region.min() and region.max() <= 1)
            row, column = divmod(int(region.argmax()), 64)
            self.assertTrue(16 <= row < 44 and 32 <= column < 64, (row, column))

    def test_a_black_image_has_a_region_too(self):
        self.assertGreater(
            random_region(torch.zeros(1, 32, 32), 0.3, torch.Generator().manual_seed(0)).max().item(), 0.9
        )


class TestSyntheticAnomaly(unittest.TestCase):
    def test_every_kind_changes_its_region_and_little_else(self):
        for kind in SYNTHETIC_ANOMALY_KINDS:
            for seed in range(3):
                image = _image()
                out, region = synthetic_anomaly(image, kind, torch.Generator().manual_seed(seed))
                again, _ = synthetic_anomaly(image, kind, torch.Generator().manual_seed(seed))
                torch.testing.assert_close(out, again, atol=0, rtol=0)
                torch.testing.assert_close(image, _image())  # the input stays
                self.assertTrue(0 <= out.min() and out.max() <= 1)
                change = (out - image).abs().mean(0)
                self.assertTrue(region.any() and not region.all(), kind)
                self.assertGreater(change[region].mean().item(), 2 * change[~region].mean().item(), kind)

    def test_pastes_from_donors(self):
        donor = torch.ones(3, 64, 48)
        out, region = synthetic_anomaly(torch.zeros(3, 64, 48), "paste", torch.Generator().manual_seed(0), [donor])
        self.assertGreater(out[:, region].min().item(), 0.49)

    def test_rejects_bad_input(self):
        with self.assertRaisesRegex(ValueError, "kind must be one of .* got 'hole'"):
            synthetic_anomaly(_image(), "hole", torch.Generator())
        with self.assertRaisesRegex(ValueError, r"image must have shape \(C, H, W\), got \(64, 48\)"):
            synthetic_anomaly(_image()[0], "blob", torch.Generator())


class TestSyntheticAnomalyd(unittest.TestCase):
    def test_the_seed_decides(self):
        transform, image = SyntheticAnomalyd("image"), MetaTensor(_image(), meta={"filename_or_obj": "a.png"})
        untouched = transform({"image": image, "synthetic_anomaly_seed": -1})["image"]
        torch.testing.assert_close(untouched, image)
        changed = transform({"image": image, "synthetic_anomaly_seed": 7})["image"]
        self.assertEqual(changed.meta["filename_or_obj"], "a.png")
        kind, generator = SYNTHETIC_ANOMALY_KINDS[7 % len(SYNTHETIC_ANOMALY_KINDS)], torch.Generator().manual_seed(7)
        torch.testing.assert_close(changed.as_tensor(), synthetic_anomaly(_image(), kind, generator)[0])
        torch.testing.assert_close(image.as_tensor(), _image())


if __name__ == "__main__":
    unittest.main()
