# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of the detector: which anchors are of which box, what they are, and how far off their boxes are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher
from monai.apps.detection.utils.hard_negative_sampler import HardNegativeSampler
from monai.losses.focal_loss import sigmoid_focal_loss
from monai.losses.giou_loss import BoxGIoULoss
from torch import nn

from bundle.detection.pyramid_detector import PyramidDetector
from bundle.networks.plain import plain_tensor
from bundle.rules import number_in, whole_number

__all__ = ["DetectionLoss"]


class DetectionLoss(nn.Module):
    """
    Classification of every anchor, and generalized overlap of the anchors that belong to a box.

    Which anchors belong to a box: ATSS (Zhang et al., CVPR 2020, https://arxiv.org/abs/1912.02424), by MONAI; a box
    that it gives none has the anchor of the largest overlap. Focal loss (Lin et al., ICCV 2017,
    https://arxiv.org/abs/1708.02002, Eq. 5), divided by the number of these anchors; or cross entropy of them and of
    the hardest others, as MONAI's detection of nodules has it. Boxes by 1 - GIoU (Rezatofighi et al., CVPR 2019,
    https://arxiv.org/abs/1902.09630).

    A finding whose place is not known, see :py:class:`bundle.detection.BoxTargetsd`, has no part in the loss of its
    image's other anchors.

    Args:
        network: un-wrapped network, whose anchors these are.
        image_size: rows and columns of the images.
        classification: ``focal`` or ``hard_negatives``.
        box_weight: factor of the loss of the boxes.
        candidates: positions of each level that ATSS looks at.
        focal_alpha: weight of a positive, and one minus it that of a negative, 0..1.
        focal_gamma: exponent of the focal loss.

    Raises:
        ValueError: When a setting is out of range.
    """

    def __init__(
        self,
        network: PyramidDetector,
        image_size: Sequence[int],
        classification: str = "focal",
        box_weight: float = 1.0,
        candidates: int = 4,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
    ) -> None:
        super().__init__()
        if classification not in ("focal", "hard_negatives"):
            raise ValueError(f"classification must be 'focal' or 'hard_negatives', got '{classification}'.")
        self.classification, self.box_weight = classification, number_in("box_weight", box_weight, 0)
        self.focal_alpha = number_in("focal_alpha", focal_alpha, 0, 1)
        self.focal_gamma = number_in("focal_gamma", focal_gamma, 0)
        self.matcher = ATSSMatcher(whole_number("candidates", candidates))
        self.sampler = HardNegativeSampler(64, 0.25, min_neg=16, pool_size=20)
        self.giou = BoxGIoULoss(reduction="sum")
        height, width = (int(side) for side in image_size)
        self.per_level, self.per_position = network.positions(height, width), network.num_anchors
        self.register_buffer("anchors", network.anchors(height, width).detach().clone(), persistent=False)
        self.anchors: torch.Tensor

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: output of the network, shape ``(B, N, C + 4)``.
            target: rows of class number and edges in pixels, shape ``(B, M, 5)``, see
                :py:class:`bundle.detection.BoxTargetsd`.

        Returns:
            the loss, a scalar.

        Raises:
            ValueError: When the network has other anchors, or ``target`` is of another shape.
        """
        found, wanted = plain_tensor(input), plain_tensor(target).to(input.device).float()
        if found.shape[1] != len(self.anchors):
            raise ValueError(f"input must have {len(self.anchors)} anchors for the image size, got {found.shape[1]}.")
        if wanted.ndim != 3 or len(wanted) != len(found) or wanted.shape[-1] != 5:
            raise ValueError(f"target must be of shape ({len(found)}, M, 5), got {tuple(wanted.shape)}.")
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        logits, boxes = found[..., :-4], found[..., -4:]
        truth, counted = torch.zeros_like(logits), torch.ones_like(logits)
        pairs = []
        for i, rows in enumerate(wanted):
            rows = rows[rows[:, 0] >= 0]
            placed = (rows[:, 3:] > rows[:, 1:3]).all(dim=1)
            counted[i, :, rows[~placed, 0].long()] = 0
            rows = rows[placed]
            matches = self.matches(rows[:, 1:])
            mine = matches >= 0
            classes = rows[matches[mine], 0].long()
            truth[i, mine.nonzero()[:, 0], classes] = 1
            counted[i, mine.nonzero()[:, 0], classes] = 1
            pairs.append((boxes[i][mine], rows[matches[mine], 1:]))
        mine_all, theirs = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        number = max(len(mine_all), 1)
        overlap = self.giou(mine_all, theirs.to(mine_all)) if len(mine_all) else boxes.sum() * 0
        return self._classification(logits, truth, counted, number) + self.box_weight * overlap / number

    def matches(self, boxes: torch.Tensor) -> torch.Tensor:
        """
        Return the number of the box that each anchor belongs to.

        Args:
            boxes: edges in pixels, shape ``(M, 4)``.

        Returns:
            shape ``(N,)``, -1 for none.
        """
        anchors = self.anchors.to(boxes)
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.long, device=boxes.device)
        overlaps, matches = self.matcher(boxes, anchors, self.per_level, self.per_position)
        for number in range(len(boxes)):
            if not (matches == number).any():
                matches[overlaps[number].argmax()] = number
        return matches

    def _classification(
        self, logits: torch.Tensor, truth: torch.Tensor, counted: torch.Tensor, number: int
    ) -> torch.Tensor:
        if self.classification == "focal":
            values = sigmoid_focal_loss(logits, truth, self.focal_gamma, self.focal_alpha)
            return (values * counted).sum() / number
        labels = [row.amax(dim=1).long() for row in truth]
        with torch.no_grad():
            hardness = (logits.sigmoid() * counted).amax(dim=-1).flatten()
        positives, negatives = self.sampler(labels, hardness)
        chosen = torch.stack([(a + b) > 0 for a, b in zip(positives, negatives, strict=True)])
        values = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * counted
        return values[chosen].mean()
