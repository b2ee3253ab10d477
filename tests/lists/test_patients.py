# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import unittest

import numpy as np
import torch
from PIL import Image

from bundle.lists.patients import group_copies, items_digest, patients_of
from bundle.synthetic.radiograph_phantoms import make_radiograph
from tests.folders import FolderTestCase


class TestPatients(FolderTestCase):
    def picture(self, name: str, seed: int, side: int = 60) -> str:
        small = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(self.folder / name)
        return str(self.folder / name)

    def test_patients_with_copies_become_one(self):
        items = [
            {"image": self.picture("a.png", 0), "patient": "p"},
            {"image": self.picture("b.png", 0, 80), "patient": ""},
            {"image": self.picture("c.png", 0, 90), "patient": "q"},
            {"image": self.picture("d.png", 1), "patient": "q"},
            {"image": self.picture("e.png", 2)},
            {"image": self.picture("f.png", 3), "patient": "r"},
            {"image": self.picture("g.png", 4)},
            {"image": self.picture("h.png", 4, 70)},
        ]
        self.assertEqual(len(group_copies(items)), 3)  # a and c are of two known patients, b is what joins them
        names = patients_of(items)
        self.assertEqual(names[:4], ["p"] * 4)
        self.assertEqual((names[4], names[5]), ("item 4", "r"))
        self.assertEqual(len({names[6], names[7]}), 1)
        self.assertEqual(len(set(names)), 4)

    def test_patients_known_to_differ_need_more(self):
        # two films of the synthetic anatomy correlate by 0.97, as no two real ones of different patients do
        paths = []
        for seed in (0, 1, 2, 3, 4, 5):
            film = make_radiograph(np.random.default_rng(seed))[0]
            paths.append(self.folder / f"{seed}.png")
            Image.fromarray((255 * film).astype(np.uint8)).save(paths[-1])
        known = [{"image": str(path), "patient": f"p{i}"} for i, path in enumerate(paths)]
        self.assertEqual(group_copies(known), [])
        self.assertEqual([item["patient"] for item in known], [f"p{i}" for i in range(6)])
        known.append({"image": str(self.folder / "copy.png"), "patient": "p6"})
        (self.folder / "copy.png").write_bytes(paths[0].read_bytes())
        self.assertEqual([pair[:2] for pair in group_copies(known)], [(0, 6)])
        self.assertEqual(known[6]["patient"], "p0")

    def test_frames_of_copied_files(self):
        items = [{"image": f"{self.picture(f'{n}.png', 0, 60 + n)}#frame={f}"} for n in range(2) for f in range(3)]
        # split_frame takes the frame for a number, and a picture's only frame is 0
        group_copies(items)
        self.assertEqual(len({item["patient"] for item in items}), 1)

    def test_digest_by_hand(self):
        for name in "ab":
            (self.folder / name).write_text(name)
        one = [{"image": str(self.folder / "a"), "label": 0}, {"image": str(self.folder / "b"), "label": [1, 0]}]
        lines = sorted([f"{hashlib.sha256(b'a').hexdigest()} 0 0\n", f"{hashlib.sha256(b'b').hexdigest()} 0 1 0\n"])
        expected = hashlib.sha256("".join(lines).encode()).hexdigest()
        self.assertEqual(items_digest(one), expected)
        self.assertEqual(items_digest(one[::-1]), expected)
        (self.folder / "a").rename(self.folder / "c")
        moved = [{**one[1], "label": torch.tensor([1.0, 0.0])}, {"image": str(self.folder / "c"), "label": False}]
        self.assertEqual(items_digest(moved), expected)
        for other in ([*one, one[0]], one[:1], [one[0], {**one[1], "label": [0, 1]}]):
            self.assertNotEqual(items_digest(other), expected)
        (self.folder / "c").write_text("changed")
        self.assertNotEqual(items_digest(moved), expected)


if __name__ == "__main__":
    unittest.main()
