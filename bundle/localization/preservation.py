# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of attention mining: classification, and staying near the network as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bundle.localization.erasure import erased_logits

__all__ = ["KnowledgePreservationLoss"]


class KnowledgePreservationLoss(nn.Module):
    """
    Cross entropy of the class branches plus the distance to a frozen copy of the network.

    Eq. 2 to 6 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958). A batch of ``N`` images is split:

    - ``full``: the first ``n`` are mined and carry the classification loss; the other ``N - n`` keep their pooled
      features near those of the frozen copy (Eq. 4, here the mean over images of the Euclidean distance of each).
    - ``vanilla``: the first ``n`` are mined, the others are left whole, and all carry the classification loss.
    - ``none``: the whole batch is mined and carries the classification loss.

    The loss only tells how many are mined; :py:class:`bundle.localization.AttentionMiningHandler` erases their maps and
    calls :py:meth:`remember` before the first step. The frozen copy is part of the state dict, so a resumed run keeps
    the original; it stays in evaluation mode, so its batch statistics never move. Features and images are taken by
    hooks in the network's own forward pass.

    Args:
        network: un-wrapped network that returns class activation maps, ``(B, C, H, W)``.
        layers: names of the modules ``K`` whose outputs are kept, all of shape ``(B, D, H, W)``.
        mode: ``full``, ``vanilla`` or ``none``.
        mined_fraction: ``n / N``, in (0, 1]; at least one image of a batch is mined.
        weight: ``lambda`` of Eq. 6.

    Raises:
        ValueError: When ``mode`` is unknown, ``mined_fraction`` is not in (0, 1] or a layer does not exist.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = ("penultimate", "last", "aggregation", "classifier"),
        mode: str = "full",
        mined_fraction: float = 0.125,
        weight: float = 0.5,
    ) -> None:
        super().__init__()
        if mode not in ("full", "vanilla", "none"):
            raise ValueError(f"mode must be 'full', 'vanilla' or 'none', got '{mode}'.")
        if not 0 < mined_fraction <= 1:
            raise ValueError(f"mined_fraction must be in (0, 1], got {mined_fraction}.")
        known = dict(network.named_modules())
        for name in layers:
            if name not in known:
                raise ValueError(f"layers must name modules of the network, it has no '{name}'.")
        self.mode, self.mined_fraction, self.weight = mode, mined_fraction, weight
        self._network = [network]  # in a list, or it would be saved and trained as a part of the loss
        self.frozen_copy: nn.Module | None = None
        if mode == "full":
            self.frozen_copy = copy.deepcopy(network).requires_grad_(False).eval()
            self._images: torch.Tensor | None = None
            self._features: dict[str, torch.Tensor] = {}
            self._targets: dict[str, torch.Tensor] = {}
            network.register_forward_pre_hook(self._keep_images)
            for name in layers:
                known[name].register_forward_hook(_pooled_into(self._features, name))
                self.frozen_copy.get_submodule(name).register_forward_hook(_pooled_into(self._targets, name))

    def train(self, mode: bool = True) -> KnowledgePreservationLoss:
        """Switch the mode of the loss; the frozen copy stays in evaluation mode."""
        super().train(mode)
        if self.frozen_copy is not None:
            self.frozen_copy.eval()
        return self

    def remember(self) -> None:
        """Take the network as it is now as the original that is to be preserved."""
        if self.frozen_copy is not None:
            self.frozen_copy.load_state_dict(self._network[0].state_dict())

    def num_mined(self, batch_size: int) -> int:
        """Return how many images at the head of a batch of ``batch_size`` are mined, ``n``."""
        return batch_size if self.mode == "none" else max(1, round(self.mined_fraction * batch_size))

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: class activation maps of the network's latest forward pass, erased where mined, ``(B, C, H, W)``.
            target: 0 or 1 for each class, ``(B, C)``.

        Returns:
            the loss, a scalar.

        Raises:
            ValueError: When ``target`` is not ``(B, C)``.
        """
        logits = erased_logits(input)
        if target.shape != logits.shape:
            raise ValueError(f"target must be of shape {tuple(logits.shape)}, got {tuple(target.shape)}.")
        n = self.num_mined(len(input)) if self.mode == "full" else len(input)
        loss = F.binary_cross_entropy_with_logits(logits[:n], target[:n].to(logits.dtype))
        if self.mode == "full" and n < len(input):
            loss = loss + self.weight * self._distance(n)
        return loss

    def _distance(self, n: int) -> torch.Tensor:
        """Eq. 4 and 5 for the images from ``n`` on."""
        if self.frozen_copy is None or self._images is None:
            raise ValueError("the network must run forward before its loss is computed.")
        with torch.no_grad():
            self.frozen_copy.to(self._images.device)(self._images[n:])
        distances = [(self._features[k][n:] - self._targets[k]).norm(dim=1).mean() for k in self._features]
        return torch.stack(distances).mean()

    def _keep_images(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            self._images = args[0].detach()


def _pooled_into(store: dict[str, torch.Tensor], name: str) -> Any:
    """Return a forward hook that puts the spatial mean of a module's output into ``store``."""

    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        store[name] = output.mean(dim=(-2, -1))

    return hook
