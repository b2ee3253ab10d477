# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From the output of the detector to a few boxes of each finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data.box_utils import box_iou
from monai.inferers import Inferer

from bundle.networks.plain import plain_tensor
from bundle.rules import number_in, whole_number

__all__ = ["PyramidInferer", "image_logits", "selected_boxes"]

_MOST = 200  # anchors of one finding among which boxes are chosen


def image_logits(output: torch.Tensor) -> torch.Tensor:
    """
    Return the logit of each finding in an image: the largest of all anchors.

    Args:
        output: of the network, shape ``(B, N, C + 4)``.

    Returns:
        shape ``(B, C)``.
    """
    return plain_tensor(output)[..., :-4].amax(dim=1)


def selected_boxes(
    output: torch.Tensor, height: int, width: int, overlap: float = 0.5, count: int = 10
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the boxes of each finding that no better one overlaps, best first.

    Args:
        output: of the network for one image, shape ``(N, C + 4)``.
        height: of the image, in pixels; boxes are clipped to it.
        width: the same.
        overlap: intersection over union above which the lower of two boxes goes, (0, 1].
        count: of boxes of each finding at most, ``K``.

    Returns:
        left, upper, right, lower edge in pixels, shape ``(C, K, 4)``, and their logits, shape ``(C, K)``, minus
        infinity for no further box.
    """
    plain = plain_tensor(output).detach()
    plain = plain.to(torch.promote_types(plain.dtype, torch.float32))
    limit = plain.new_tensor([width, height, width, height])
    edges = torch.minimum(plain[:, -4:].clamp_min(0), limit)
    exists = (edges[:, 2:] > edges[:, :2]).all(dim=1)
    logits = plain[:, :-4]
    boxes = edges.new_zeros(logits.shape[1], count, 4)
    kept = logits.new_full((logits.shape[1], count), float("-inf"))
    for c in range(logits.shape[1]):
        values = logits[:, c].masked_fill(~exists, float("-inf"))
        values, order = values.topk(min(_MOST, len(values)))
        order = order[values.isfinite()]
        if len(order):
            best = order[_not_suppressed(edges[order], overlap, count)]
            boxes[c, : len(best)], kept[c, : len(best)] = edges[best], logits[best, c]
    return boxes, kept


def _not_suppressed(boxes: torch.Tensor, overlap: float, count: int) -> list[int]:
    """
    Return the numbers of the boxes that none kept before overlaps by more; MONAI's gives the same, many times slower.

    Args:
        boxes: best first, shape ``(M, 4)``.
        overlap: see :py:func:`selected_boxes`.
        count: most boxes.
    """
    covers = (torch.as_tensor(box_iou(boxes, boxes)) > overlap).cpu().numpy()
    left = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    while left.any() and len(kept) < count:
        best = int(left.argmax())
        kept.append(best)
        left &= ~covers[best]
        left[best] = False
    return kept


class PyramidInferer(Inferer):
    """
    Run the detector and keep a few boxes of each finding.

    Args:
        overlap: see :py:func:`selected_boxes`.
        count: see there.

    Raises:
        ValueError: When a setting is out of its range.
    """

    def __init__(self, overlap: float = 0.5, count: int = 10) -> None:
        super().__init__()
        self.overlap = number_in("nms_overlap", overlap, 0, 1, without_low=True)
        self.count = whole_number("boxes_per_finding", count)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            inputs: images, shape ``(B, C_in, H, W)``.
            network: gives ``(B, N, C + 4)``, see :py:class:`bundle.detection.PyramidDetector`.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            ``logits`` ``(B, C)``, see :py:func:`image_logits`; ``boxes`` ``(B, C, K, 4)`` in pixels of ``inputs``
            and their ``box_logits`` ``(B, C, K)``, see :py:func:`selected_boxes`.
        """
        output = plain_tensor(network(inputs, *args, **kwargs)).detach()
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        size = int(inputs.shape[-2]), int(inputs.shape[-1])
        chosen = [selected_boxes(image, *size, self.overlap, self.count) for image in output]
        boxes, logits = (torch.stack(parts) for parts in zip(*chosen, strict=True))
        return {"logits": image_logits(output), "boxes": boxes, "box_logits": logits}
