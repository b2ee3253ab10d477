# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Boxes between the pixels of a file and those of the network's input, by the affine of the image."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.data import MetaTensor

__all__ = ["boxes_in_source", "boxes_on_input", "found_in_source", "outside_file", "seen_in_source"]

BEYOND = 0.02  # of a side: how far an annotated box may lie outside of its image, by rounding


def boxes_in_source(boxes: torch.Tensor, image: MetaTensor) -> torch.Tensor:
    """
    Return boxes on the network's input as boxes in pixels of the file the image was read from.

    The way back is that of the image's own transforms, which keep its affine.

    Args:
        boxes: left, upper, right, lower edge in pixels of ``image``, shape ``(K, 4)``.
        image: the network's input, shape ``(C, H, W)``, with ``original_affine`` and ``spatial_shape`` of the file, and
            ``field`` where it was cropped, see :py:func:`bundle.preprocessing.adjustments.field_left`.

    Returns:
        edges in pixels of the file, clipped to its borders or to its field, shape ``(K, 4)``.
    """
    rows, columns = (int(n) for n in image.meta["spatial_shape"][:2])
    left, upper, right, lower = (float(edge) for edge in image.meta.get("field", (0, 0, columns, rows)))
    moved = _moved(boxes, torch.linalg.inv(_file_affine(image)) @ _affine(image))
    cut = torch.maximum(moved, moved.new_tensor([left, upper] * 2))
    return torch.minimum(cut, moved.new_tensor([right, lower] * 2)).to(boxes.dtype)


def boxes_on_input(boxes: torch.Tensor, image: MetaTensor) -> torch.Tensor:
    """
    Return boxes in pixels of the file as boxes on the network's input, the inverse of :py:func:`boxes_in_source`.

    Args:
        boxes: left, upper, right, lower edge in pixels of the file, shape ``(K, 4)``.
        image: see :py:func:`boxes_in_source`.

    Returns:
        edges in pixels of ``image``, shape ``(K, 4)``; not clipped, a box may lie outside a crop.

    Raises:
        ValueError: When :py:func:`outside_file` has a reason.
    """
    if unfit := outside_file(boxes, image):
        raise ValueError(unfit)
    return _moved(boxes, torch.linalg.inv(_affine(image)) @ _file_affine(image)).to(boxes.dtype)


def outside_file(boxes: torch.Tensor, image: MetaTensor) -> str:
    """
    Return why annotated boxes are not of an image, or nothing: outside of it, they are of a copy of another size.

    Args:
        boxes: left, upper, right, lower edge in pixels of the file, shape ``(K, 4)``.
        image: with ``spatial_shape`` of the file.

    Returns:
        a sentence with the file, the first box that is beyond the border by more than 2 % of a side, and the size.
    """
    rows, columns = (int(n) for n in image.meta["spatial_shape"][:2])
    edges, sides = boxes.detach().cpu().double().view(-1, 4), torch.tensor([columns, rows] * 2)
    outside = ((edges < -BEYOND * sides) | (edges > (1 + BEYOND) * sides)).any(dim=1)
    if not outside.any():
        return ""
    name = Path(str(image.meta.get("filename_or_obj", "image"))).name
    box = ", ".join(f"{edge:g}" for edge in edges[outside][0].tolist())
    return (
        f"'{name}': annotated boxes must lie in its {columns} x {rows} pixels, got edges {box}. Were they drawn on an "
        "image of another size?"
    )


def seen_in_source(image: MetaTensor) -> torch.Tensor:
    """
    Return the part of the file that the network looked at, which a crop makes smaller than the file.

    Args:
        image: see :py:func:`boxes_in_source`.

    Returns:
        left, upper, right, lower edge in pixels of the file, shape ``(4,)``.
    """
    whole = torch.tensor([[0.0, 0.0, float(image.shape[-1]), float(image.shape[-2])]])
    return boxes_in_source(whole, image)[0]


def found_in_source(boxes: torch.Tensor, heights: torch.Tensor, image: MetaTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the boxes of one map that exist, in pixels of the file.

    Args:
        boxes: left, upper, right, lower edge in pixels of ``image``, shape ``(K, 4)``.
        heights: mean height of the map inside each, 0 for no box, shape ``(K,)``.
        image: see :py:func:`boxes_in_source`.

    Returns:
        edges in pixels of the file, shape ``(M, 4)``, and heights, shape ``(M,)``; a box that lies in the padding
        around the picture is left out.
    """
    exists = heights > 0
    edges = boxes_in_source(boxes[exists], image)
    inside = (edges[:, 2:] > edges[:, :2]).all(dim=1)
    return edges[inside], heights[exists][inside]


def _affine(image: MetaTensor) -> torch.Tensor:
    return torch.as_tensor(image.affine, dtype=torch.float64, device="cpu")


def _file_affine(image: MetaTensor) -> torch.Tensor:
    return torch.as_tensor(image.meta["original_affine"], dtype=torch.float64, device="cpu")


def _moved(boxes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Move the corners of boxes by a matrix of indices, rows first, which counts from the centers of pixels."""
    corners = boxes.to(torch.float64).cpu().view(-1, 2, 2).flip(-1) - 0.5  # (K, corner, row and column)
    moved = corners @ matrix[:2, :2].T + matrix[:2, -1] + 0.5
    return torch.cat([moved.amin(dim=1).flip(-1), moved.amax(dim=1).flip(-1)], dim=-1)
