# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from types import SimpleNamespace

import torch

from bundle.handlers.class_heatmaps import ClassHeatmaps


def _explain(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return index.view(-1, 1, 1, 1) + torch.zeros_like(images)


class TestClassHeatmaps(unittest.TestCase):
    def heat(self, explained_class: str | None) -> list[float]:
        output = {"image": torch.zeros(2, 1, 4, 4), "pred": torch.tensor([[0.0, 1.0], [3.0, -1.0]])}
        ClassHeatmaps(_explain, ["a", "b"], explained_class)(SimpleNamespace(state=SimpleNamespace(output=output)))
        return output["heatmap"].amax(dim=(1, 2, 3)).tolist()

    def test_named_and_most_probable_class(self):
        self.assertEqual(self.heat("b"), [1, 1])
        self.assertEqual(self.heat(None), [1, 0])

    def test_unknown_class(self):
        with self.assertRaisesRegex(ValueError, r"explained_class must be one of \['a'\], got 'c'"):
            ClassHeatmaps(_explain, ["a"], "c")


if __name__ == "__main__":
    unittest.main()
