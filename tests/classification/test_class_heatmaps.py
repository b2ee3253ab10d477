# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unittest
from types import SimpleNamespace

import torch

from bundle.classification.class_heatmaps import ClassHeatmaps


def _explain(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return index.view(-1, 1, 1, 1) + torch.zeros_like(images)


class TestClassHeatmaps(unittest.TestCase):
    def heat(self, explained_class: str | None, normal_class: str | None = None) -> list[float]:
        output = {"image": torch.zeros(2, 1, 4, 4), "pred": torch.tensor([[0.0, 1.0], [3.0, -1.0]])}
        handler = ClassHeatmaps(_explain, ["a", "b"], explained_class, normal_class)
        handler(SimpleNamespace(state=SimpleNamespace(output=output)))
        self.names = output["heatmap_class"]
        return output["heatmap"].amax(dim=(1, 2, 3)).tolist()

    def test_named_and_most_probable_class(self):
        self.assertEqual(self.heat("b"), [1, 1])
        self.assertEqual(self.names, ["b", "b"])
        self.assertEqual(self.heat(None), [1, 0])
        self.assertEqual(self.names, ["b", "a"])

    def test_the_normal_class_is_shown_only_where_it_was_asked_for(self):
        # its heat would look like that of a lesion
        self.assertEqual(self.heat(None, normal_class="a"), [1, 1])
        self.assertEqual(self.heat("a", normal_class="a"), [0, 0])

    def test_unknown_class(self):
        with self.assertRaisesRegex(ValueError, r"explained_class must be one of \['a'\], got 'c'"):
            ClassHeatmaps(_explain, ["a"], "c")
        with self.assertRaisesRegex(ValueError, r"normal_class must be one of \['a'\], got 'c'"):
            ClassHeatmaps(_explain, ["a"], normal_class="c")


if __name__ == "__main__":
    unittest.main()
