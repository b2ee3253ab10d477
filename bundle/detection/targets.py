# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a detector learns from: the boxes of an image, and the findings whose place is not known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import TransformBackends

from bundle.lists.boxes import has_boxes
from bundle.preprocessing.box_frames import boxes_on_input
from bundle.reading.formats import split_frame
from bundle.rules import class_names, number_in, true_or_false, whole_number

__all__ = ["BoxTargetsd", "annotated_boxes", "known_items"]

LabelledBoxes = Mapping[str, torch.Tensor]


def annotated_boxes(boxes: Mapping[str, LabelledBoxes], path: str) -> LabelledBoxes:
    """
    Return the boxes of an image by finding, none for an image without any.

    Args:
        boxes: by path or bare name of the image, see :py:func:`bundle.lists.read_boxes`.
        path: of the image, or of a frame of a file.

    Example:
        >>> annotated_boxes({"a.png": {"Mass": torch.zeros(1, 4)}}, "/films/a.png")
        {'Mass': tensor([[0., 0., 0., 0.]])}
    """
    file = str(split_frame(path)[0])
    return boxes.get(file) or boxes.get(Path(file).name, {})


def known_items(
    items: Sequence[dict[str, Any]], boxes: Mapping[str, LabelledBoxes], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """
    Return the items that a detector can learn from: those with boxes, and those whose labels say that nothing is there.

    An image with a finding and without a box says neither where it is nor where it is not.

    Args:
        items: with an ``image`` path and a ``label`` of zeros and ones, ``(C,)``.
        boxes: see :py:func:`annotated_boxes`.
        classes: names of the ``C`` findings.

    Raises:
        ValueError: When no item has a box of one of the classes.
    """
    annotated = has_boxes(items, boxes)
    found = {label for item, there in zip(items, annotated, strict=True) if there for label in _of(boxes, item)}
    if not found & set(classes):
        raise ValueError(
            f"boxes_path must have boxes of training images in one of the classes {list(classes)}, it has "
            f"{sorted(found) or 'none of these images'}."
        )
    return [item for item, there in zip(items, annotated, strict=True) if there or not any(item["label"])]


def _of(boxes: Mapping[str, LabelledBoxes], item: Mapping[str, Any]) -> LabelledBoxes:
    return annotated_boxes(boxes, str(item["image"]))


class BoxTargetsd(MapTransform):
    """
    Add the boxes of an image on the network's input; they follow it through its transforms, random ones too.

    Args:
        keys: the network's input, with its metadata.
        boxes: see :py:func:`annotated_boxes`.
        classes: names of the ``C`` findings.
        most: rows of the target; images of one batch have the same number.
        replace_label: whether the target takes the place of ``label``, as a loss needs it; else it is ``targets``.
        smallest_part: of a box that a crop leaves behind, the part below which its place is not known, 0..1.

    Raises:
        ValueError: When a setting is out of range, or an image has more boxes than rows.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        boxes: Mapping[str, LabelledBoxes],
        classes: Sequence[str],
        keys: KeysCollection = "image",
        most: int = 100,
        replace_label: bool = False,
        smallest_part: float = 0.25,
    ) -> None:
        super().__init__(keys)
        self.boxes, self.classes, self.most = boxes, class_names(classes), whole_number("most", most)
        self.replace_label = true_or_false("replace_label", replace_label)
        self.smallest_part = number_in("smallest_part", smallest_part, 0, 1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: ``image`` and, where known, its ``label`` of zeros and ones, ``(C,)``.

        Returns:
            the item with rows of class number, left, upper, right, lower edge in pixels of the image, float32, shape
            ``(most, 5)``; a finding whose place is not known has edges of 0, and rows of class -1 are empty.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            rows = self._rows(d[key], d.get("label"))
            if len(rows) > self.most:
                name = Path(str(d[key].meta["filename_or_obj"])).name
                raise ValueError(f"an image must have at most {self.most} boxes, '{name}' has {len(rows)}.")
            target = torch.full((self.most, 5), -1.0)
            target[: len(rows)] = torch.tensor(rows).view(-1, 5)
            d["label" if self.replace_label else "targets"] = target
        return d

    def _rows(self, image: MetaTensor, label: Any) -> list[list[float]]:
        annotated = annotated_boxes(self.boxes, str(image.meta["filename_or_obj"]))
        limit = torch.tensor([image.shape[-1], image.shape[-2]] * 2, dtype=torch.float32)
        rows: list[list[float]] = []
        for number, name in enumerate(self.classes):
            for edges in boxes_on_input(annotated[name].float(), image) if name in annotated else ():
                seen = torch.minimum(edges.clamp_min(0), limit)
                if _area(seen) < self.smallest_part * _area(edges) or _area(seen) <= 0:
                    seen = torch.zeros(4)
                rows.append([float(number), *seen.tolist()])
            if name not in annotated and label is not None and bool(label[number]):
                rows.append([float(number), 0.0, 0.0, 0.0, 0.0])
        return rows


def _area(edges: torch.Tensor) -> float:
    return float((edges[2:] - edges[:2]).clamp_min(0).prod())
