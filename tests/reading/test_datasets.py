# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest

import numpy as np
import torch
from monai.data import Dataset, decollate_batch

from bundle.preprocessing.picture import Picture
from bundle.reading import ReadableDataLoader, ReadableDataset


def _read(item: dict) -> dict:
    """Stand in for a reader: names with a b are broken."""
    if "b" in item["image"]:
        try:
            raise ValueError(f"'{item['image']}' is\ncut off.")
        except ValueError as error:
            raise RuntimeError("applying transform") from error
    return {**item, "image": torch.full((1, 2, 2), float(item["image"]))}


def _with_picture(item: dict) -> dict:
    return {**_read(item), "picture": Picture.of(np.zeros((int(item["image"]), 1), np.uint8))}


ITEMS = [{"image": name} for name in ("0", "b1", "2", "b3", "b4", "5", "6")]


class TestReadableDataset(unittest.TestCase):
    def test_leaves_out_and_lists_what_cannot_be_read(self):
        with self.assertLogs("bundle.reading.datasets", "WARNING") as logs:
            dataset = ReadableDataset(ITEMS, _read)
        self.assertEqual([int(d["image"].mean()) for d in dataset], [0, 2, 5, 6])
        self.assertEqual(dataset.failures, [(n, f"'{n}' is cut off.") for n in ("b1", "b3", "b4")])
        self.assertEqual(len(logs.output), 3)

    def test_reads_once_and_augments_anew(self):
        reads, draws = [], []
        dataset = ReadableDataset(ITEMS[:1], lambda d: reads.append(1) or _read(d), lambda d: draws.append(1) or d)
        for _ in range(3):
            dataset[0]
        self.assertEqual((len(reads), len(draws)), (1, 3))

    def test_nothing_readable(self):
        with (
            self.assertLogs("bundle.reading.datasets", "WARNING"),
            self.assertRaisesRegex(ValueError, "none of 1 images can be read, first: 'b1' is cut off."),
        ):
            ReadableDataset(ITEMS[1:2], _read)
        with self.assertRaisesRegex(ValueError, "none of 0 images can be read$"):
            ReadableDataset([], _read)


class TestReadableDataLoader(unittest.TestCase):
    def test_batches_of_what_can_be_read(self):
        loader = ReadableDataLoader(Dataset(ITEMS, _read), batch_size=2)
        for _ in range(2):  # a second pass lists the failures once
            batches = [b["image"][:, 0, 0, 0].tolist() for b in loader]
            self.assertEqual(batches, [[0], [2], [5], [6]])
            self.assertEqual([file for file, _ in loader.failures], ["b1", "b3", "b4"])

    def test_pictures_of_any_size_are_part_of_their_items(self):
        for workers in (0, 1):
            loader = ReadableDataLoader(Dataset(ITEMS, _with_picture), batch_size=3, num_workers=workers)
            found = [item for batch in loader for item in decollate_batch(batch)]
            shapes = [(int(item["image"].mean()), item["picture"].array().shape) for item in found]
            self.assertEqual(shapes, [(0, (0, 1)), (2, (2, 1)), (5, (5, 1)), (6, (6, 1))])

    def test_a_batch_without_any_is_skipped(self):
        loader = ReadableDataLoader(Dataset(ITEMS[3:], _read), batch_size=2)
        self.assertEqual([b["image"].shape[0] for b in loader], [2])
        with self.assertRaisesRegex(TypeError, "not known before"):
            len(loader)


if __name__ == "__main__":
    unittest.main()
