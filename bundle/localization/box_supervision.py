# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Use boxes where some training images have them: their loss, and the handler that adds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import decollate_batch
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn

from bundle.localization.boxes import box_coverage
from bundle.preprocessing.box_frames import boxes_on_input

__all__ = ["BoxAttentionLoss", "BoxSupervision"]


class BoxAttentionLoss(nn.Module):
    """
    How far the softmax over the positions of a map is from an even spread over the annotated boxes.

    ``KL(b || softmax(H))`` with ``b`` the part of each cell that a box covers, divided by its sum. No constant added to
    a map changes it, so it asks where a class is and leaves to the image label whether it is there; the mean of a map,
    its logit, stays free. It is 0 for a map that is level in the boxes and far lower outside.
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: class activation maps with annotated boxes, any real values, shape ``(K, H, W)``.
            target: part of each cell that a box covers, 0..1, not 0 everywhere, same shape.

        Returns:
            the mean over the ``K`` maps, a scalar not below 0; 0 without a map.

        Raises:
            ValueError: When the shapes differ.
        """
        if input.shape != target.shape:
            raise ValueError(f"target must be of shape {tuple(input.shape)}, got {tuple(target.shape)}.")
        if len(input) == 0:
            return input.sum()
        spread = target.flatten(1) / target.flatten(1).sum(dim=1, keepdim=True)
        return (torch.xlogy(spread, spread) - spread * input.flatten(1).log_softmax(dim=1)).sum(dim=1).mean()


class BoxSupervision:
    """
    Add the box loss of the annotated images of each batch to the trainer's loss; the others are left alone.

    Semi-supervised, beyond Cai et al. (MICCAI 2018). The boxes are those of the files; they follow the image through
    its transforms, random ones too, by its affine. Attach it before attention mining, so that it sees maps that are not
    erased.

    Args:
        boxes: for each file name, for each class, boxes as left, upper, right, lower edge in pixels of the file, shape
            ``(M, 4)``: what the readers of :py:mod:`bundle.lists.boxes` return.
        classes: names of the ``C`` classes, in the order of the maps.
        loss: of annotated maps ``(K, h, w)`` and what their boxes cover of each cell, 0..1; such as
            :py:class:`bundle.localization.BoxAttentionLoss`.
        weight: factor of the box loss.

    Raises:
        ValueError: When no box belongs to one of the classes, or the weight is negative.
    """

    def __init__(
        self,
        boxes: Mapping[str, Mapping[str, torch.Tensor]],
        classes: Sequence[str],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        weight: float = 0.1,
    ) -> None:
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}.")
        known = {label for labels in boxes.values() for label in labels}
        if not known & set(classes):
            raise ValueError(f"some box must belong to one of the classes {list(classes)}, got {sorted(known)}.")
        self.boxes, self.classes, self.loss, self.weight = boxes, tuple(classes), loss, weight
        self._term: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Take the maps as they leave the network, and add to the loss when it is known."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.measure)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.add)

    def measure(self, engine: Engine) -> None:
        """Compute the box loss of the annotated images of the batch."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        maps = output[CommonKeys.PRED]
        chosen, coverage = [], []
        for row, image in enumerate(decollate_batch(batch[CommonKeys.IMAGE])):
            path = str(image.meta["filename_or_obj"])
            found = self.boxes.get(path) or self.boxes.get(Path(path).name, {})
            for c, label in enumerate(self.classes):
                if label in found:
                    part = box_coverage(boxes_on_input(found[label], image), image.shape[-2:], maps.shape[-2:])
                    if part.any():  # a crop may have left the box behind
                        chosen.append(maps[row, c])
                        coverage.append(part)
        self._term = None
        if chosen:
            self._term = self.weight * self.loss(torch.stack(chosen), torch.stack(coverage).to(maps))

    def add(self, engine: Engine) -> None:
        """Add the box loss to the loss whose gradient is taken next."""
        output: Any = engine.state.output
        if self._term is not None:
            output[CommonKeys.LOSS] = output[CommonKeys.LOSS] + self._term
