# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bundle.lists.near_copies import THRESHOLD, _aligned_correlation, _candidates, near_copies, thumbnails
from bundle.synthetic.radiograph_phantoms import make_radiograph
from tests.folders import FolderTestCase
from tests.synthetic_dicom import save_dicom


class TestNearCopies(FolderTestCase):
    def film(self, seed: int) -> Image.Image:
        """
        Make a film of another patient for each seed: alike in the large, as real ones are, with structure of its own.

        The phantom alone will not do, its ribs are the same in all films.
        """
        random = np.random.default_rng(seed)
        film = make_radiograph(np.random.default_rng(0))[0]
        own = Image.fromarray(random.standard_normal((32, 28)).astype(np.float32)).resize(film.shape[::-1], 3)
        return Image.fromarray((200 * np.clip(film + 0.15 * np.asarray(own), 0, 1)).astype(np.uint8))

    def save(self, picture: Image.Image, name: str, **options) -> Path:
        picture.save(self.folder / name, **options)
        return self.folder / name

    def test_copies_of_a_film_and_no_other_film(self):
        films = [self.film(seed) for seed in range(30)]
        files = [self.save(film, f"{i:02}.png") for i, film in enumerate(films)]
        w, h = films[0].size
        padded = Image.new("L", (int(1.3 * w), int(1.2 * h)))
        padded.paste(films[5], (w // 10, h // 8))
        files += [
            self.save(films[0].resize((w // 2, h // 2)), "half.png"),
            self.save(films[1].resize((w, h // 2)), "other aspect.png"),
            self.save(films[2], "encoded.jpg", quality=20),
            self.save(films[3].crop((w // 50, h // 40, w, h - h // 50)), "cropped.png"),
            self.save(films[4].point(lambda v: int(20 + 200 * (v / 255) ** 1.4)), "other gray values.png"),
            self.save(padded, "padded.png"),
            self.save(films[6].convert("RGB"), "color.bmp"),
            self.save(Image.fromarray(np.asarray(films[7], np.uint16) * 200), "deep.png"),
            save_dicom(self.folder / "film.dcm", np.asarray(films[8])),
        ]
        found = near_copies(files)
        self.assertEqual([(i, j) for i, j, _ in found], [(i, 30 + i) for i in range(9)])
        self.assertTrue(all(THRESHOLD <= c <= 1 for _, _, c in found))

    def test_what_cannot_be_compared_is_nobodys_copy(self):
        (self.folder / "text.png").write_text("no image")
        (self.folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 9)
        even = [self.save(Image.new("L", (9, 9), value), f"even {value}.png") for value in (0, 7, 7)]
        files = [self.folder / "text.png", self.folder / "broken.dcm", self.folder / "not there", *even]
        self.assertEqual(near_copies(files * 2), [])
        self.assertEqual(thumbnails(files[0]), ())

    def test_identical_files_are_connected(self):
        files = [self.save(self.film(0), f"{i}.png") for i in range(7)]
        self.assertEqual([(i, j) for i, j, _ in near_copies(files)], [(0, i) for i in range(1, 7)])

    def test_an_orientation_is_applied(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # the 0th row is the right side: turn by 270 degrees to see it upright (CIPA DC-008 4.6.4)
        files = [self.save(self.film(0), "upright.png")]
        files.append(self.save(self.film(0).rotate(90, expand=True), "turned.jpg", quality=95, exif=exif))
        self.assertEqual(len(near_copies(files)), 1)

    def test_the_hash_finds_what_all_pairs_find(self):
        random = np.random.default_rng(0)
        common = random.standard_normal(256)  # what all images of a collection share
        units = 0.5 * common + random.standard_normal((6000, 256))
        units[3000:3300] = units[:300] + 0.25 * random.standard_normal((300, 256))
        units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
        pairs = {tuple(pair) for pair in _candidates(units).tolist()}
        self.assertGreaterEqual(sum((i, 3000 + i) in pairs for i in range(300)), 299)
        self.assertLess(len(pairs), 4 * 6000)  # at most four an image, so the cost grows as their number

    def test_alignment_finds_a_scale_and_a_shift(self):
        rows, columns = np.mgrid[:64, :64] / 64

        def waves(x: np.ndarray, y: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.sin(37 * x + 9 * y) + np.cos(43 * y - 15 * x) + np.sin(31 * x * y)).float()[None]

        image, moved = waves(columns, rows), waves(1.04 * columns - 0.01, 0.97 * rows + 0.03)
        plain = np.corrcoef(image.flatten(), moved.flatten())[0, 1]
        self.assertLess(plain, 0.85)
        self.assertGreater(float(_aligned_correlation(image, moved)), 0.99)
        noise = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
        self.assertLess(float(_aligned_correlation(image, noise)), 0.3)


if __name__ == "__main__":
    unittest.main()
