# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
from PIL import Image

from bundle.data.kinds import kinds_of
from tests.synthetic_dicom import save_dicom


class TestKinds(unittest.TestCase):
    def test_modalities_and_photometric_families(self):
        gray, color = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), np.zeros((64, 64, 3), np.uint8)
        color[:32, :32, 0] = 200
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for modality in ("CR", "DX", "DR", "RG", "XR", "US", "MR"):
                save_dicom(root / f"{modality}.dcm", gray, Modality=modality)
            save_dicom(root / "negative.dcm", gray, Modality="DX", PhotometricInterpretation="MONOCHROME1")
            marked = np.stack([gray] * 3, axis=-1)
            marked[:8, :8] = (255, 255, 0)  # a colored mark on a gray picture
            for name, pixels in (("gray.png", gray), ("gray as color.png", marked), ("color.png", color)):
                Image.fromarray(pixels).save(root / name)
            Image.fromarray(color).convert("P").save(root / "palette.png")
            (root / "broken.png").write_bytes(b"\x89PNG")
            items = [{"image": str(path)} for path in sorted(root.iterdir())]
            kinds = kinds_of([*items, {"image": f"{root / 'US.dcm'}#frame=3"}])
        self.assertEqual(kinds["modality"], {"radiograph": 6, "US": 1, "MR": 1, "": 4})
        self.assertEqual(kinds["photometric"], {"monochrome": 10, "color": 2})


if __name__ == "__main__":
    unittest.main()
