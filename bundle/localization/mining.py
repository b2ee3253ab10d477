# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Iterative attention mining while training: what was found is erased, and the next step looks elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, convert_to_tensor
from torch import nn

from bundle.localization.components import component_of_maximum
from bundle.localization.erasure import update_masks
from bundle.localization.heatmaps import final_heatmap
from bundle.networks.maps import normalized_maps
from bundle.rules import number_in, whole_number

__all__ = ["AttentionMiningHandler", "MaskBank"]


class MaskBank:
    """
    The erasure masks and stretched maps of every mined sample, found by the sample's key.

    A key that is not in the bank has never been mined: nothing of its maps is erased.
    """

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.heats: list[torch.Tensor] = []  # one (N, C, H, W) a step
        self.masks: list[torch.Tensor] = []  # as left by each step, True where not erased

    def masks_of(self, keys: Sequence[str], like: torch.Tensor) -> torch.Tensor:
        """
        Return the masks of some samples, ones before the first step and for unknown keys.

        Args:
            keys: ``B`` keys.
            like: maps whose shape ``(B, C, H, W)`` and device the masks take.

        Raises:
            ValueError: When the maps have another size than those that were mined.
        """
        out = torch.ones(like.shape, dtype=torch.bool)
        if self.masks:
            last = self.masks[-1]
            if last.shape[1:] != like.shape[1:]:
                mined, given = tuple(last.shape[1:]), tuple(like.shape[1:])
                raise ValueError(f"maps must have the shape {mined} that was mined, got {given}.")
            for row, key in enumerate(keys):
                if key in self.index:
                    out[row] = last[self.index[key]]
        return out.to(like.device)

    def add_step(self, found: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Append a step; ``found`` gives the map and the new mask of each key."""
        keys = sorted(found)
        if self.index and keys != list(self.index):
            raise ValueError(f"every step must mine the same samples, got {len(keys)} after {len(self.index)}.")
        self.index = {key: i for i, key in enumerate(keys)}
        self.heats.append(torch.stack([found[key][0] for key in keys]))
        self.masks.append(torch.stack([found[key][1] for key in keys]))

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, words and numbers only, so that a checkpoint loads with ``weights_only=True``."""
        return {"keys": list(self.index), "heats": list(self.heats), "masks": list(self.masks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :py:meth:`state_dict` gave."""
        self.index = {key: i for i, key in enumerate(state["keys"])}
        self.heats = [heat.cpu() for heat in state["heats"]]
        self.masks = [mask.cpu() for mask in state["masks"]]


class _MiningLoss(Protocol):
    """What the handler needs of the loss, see :py:class:`bundle.localization.KnowledgePreservationLoss`."""

    def remember(self) -> None: ...

    def num_mined(self, batch_size: int) -> int: ...


class AttentionMiningHandler:
    """
    Erase what earlier steps found from the maps that a stock ``SupervisedTrainer`` trains on.

    Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958), Sec. 2.1 and 3.2. Step ``t`` trains ``epochs_per_step``
    epochs on maps erased by ``M_(t-1)``, which is all ones at first; then one pass over ``data_loader`` with the
    network in evaluation mode gives ``H_t`` of every sample (Eq. 7) and erases, per class, the component of its
    maximum. Masks belong to samples, so shuffling does not matter; with several processes each mines its part of the
    loader and all share the result. A map that is constant or erased everywhere loses nothing more.

    Attach it before the ``CheckpointSaver``, and put it, with the loss, among what is saved and loaded: a run killed
    within a step resumes in that step with the same masks.

    Args:
        network: un-wrapped network that returns class activation maps, ``(B, C, H, W)``.
        data_loader: samples to mine, each once, without random transforms: the masks are in the image's coordinates, so
            the training images of these samples must not be flipped or cropped either.
        loss: tells how many samples at the head of each training batch are mined.
        steps: ``T``.
        epochs_per_step: training epochs of each step; the trainer needs ``steps * epochs_per_step`` epochs.
        threshold: height at which a stretched map is binarized, in (0, 1].
        key: batch item with the unique key of each sample.
        name: logger name; ``None`` means the engine's own logger.

    Raises:
        ValueError: When ``steps`` or ``epochs_per_step`` is below 1, or ``threshold`` is not in (0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        data_loader: Iterable,
        loss: _MiningLoss,
        steps: int = 3,
        epochs_per_step: int = 2,
        threshold: float = 0.5,
        key: str = "key",
        name: str | None = None,
    ) -> None:
        self.network, self.data_loader, self.loss, self.key = network, data_loader, loss, key
        self.steps, self.epochs_per_step = (
            whole_number("steps", steps),
            whole_number("epochs_per_step", epochs_per_step),
        )
        self.threshold = number_in("threshold", threshold, 0, 1, without_low=True)
        self.bank = MaskBank()
        self.remembered = False
        self._name = name
        self.logger = logging.getLogger(name)

    def attach(self, engine: Engine) -> None:
        """Register the three moments at which the handler acts."""
        if self._name is None:
            self.logger = engine.logger
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)  # a checkpoint is loaded before, at STARTED
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.erase)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish_epoch)

    def start_epoch(self, engine: Engine) -> None:
        """
        Let the loss remember the network before the first epoch, which a loaded checkpoint has behind it.

        Raises:
            ValueError: When the trainer's epochs are not those of all steps.
        """
        if engine.state.max_epochs != self.steps * self.epochs_per_step:
            raise ValueError(
                f"max_epochs must be steps * epochs_per_step = {self.steps * self.epochs_per_step}, "
                f"got {engine.state.max_epochs}."
            )
        if not self.remembered:
            self.loss.remember()
            self.remembered = True

    def erase(self, engine: Engine) -> None:
        """Erase the maps of the mined samples in the trainer's output; their spatial mean is Eq. 2 then."""
        output: Any = engine.state.output
        maps = output[CommonKeys.PRED]
        n = self.loss.num_mined(len(maps))
        masks = torch.ones_like(maps, dtype=torch.bool)
        batch: Any = engine.state.batch
        masks[:n] = self.bank.masks_of(self._keys(batch)[:n], maps[:n])
        output[CommonKeys.PRED] = maps * masks

    def finish_epoch(self, engine: Engine) -> None:
        """Mine at the end of each step."""
        if engine.state.epoch % self.epochs_per_step == 0:
            self.mine(next(self.network.parameters()).device)
            erased = 100 * (1 - self.bank.masks[-1].float().mean().item())
            self.logger.info("mined step %d of %d: %.1f %% erased", len(self.bank.masks), self.steps, erased)

    @torch.no_grad()
    def mine(self, device: torch.device | str) -> None:
        """
        Compute the maps of this step and update the masks, once over the loader.

        Raises:
            ValueError: When two samples have the same key, or a map is not finite.
        """
        training = self.network.training
        self.network.eval()
        found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for batch in self.data_loader:
            maps = self.network(convert_to_tensor(batch[CommonKeys.IMAGE], device=device))
            keys = self._keys(batch)
            if not maps.isfinite().all():  # it would be stretched to NaN, and nothing of it erased
                unfit = keys[int((~maps.isfinite()).flatten(1).any(dim=1).int().argmax())]
                raise ValueError(f"maps must be finite to be mined, that of the sample '{unfit}' is not.")
            masks = self.bank.masks_of(keys, maps)
            heats = normalized_maps(maps, masks)
            masks = update_masks(masks, component_of_maximum(heats, self.threshold))
            for key, heat, mask in zip(keys, heats.cpu(), masks.cpu(), strict=True):
                if key in found:
                    raise ValueError(f"each sample needs its own '{self.key}', got '{key}' twice.")
                found[key] = (heat, mask)
        self.network.train(training)
        if idist.get_world_size() > 1:
            # a distributed sampler repeats samples to fill up; their results are equal, so one of them is kept
            parts: Any = idist.all_gather(found)
            found = {key: value for part in parts for key, value in part.items()}
        self.bank.add_step(found)

    def final_heatmaps(self) -> dict[str, torch.Tensor]:
        """
        Return the map of Eq. 8 of every mined sample, shape ``(C, H, W)``, 0..1, from the steps done so far.

        Raises:
            ValueError: When no step is done.
        """
        return dict(zip(self.bank.index, final_heatmap(self.bank.heats, self.bank.masks), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the bank and whether the original network has been remembered."""
        return {"bank": self.bank.state_dict(), "remembered": self.remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :py:meth:`state_dict` gave."""
        self.bank.load_state_dict(state["bank"])
        self.remembered = state["remembered"]

    def _keys(self, batch: dict[str, Any]) -> list[str]:
        if self.key not in batch:
            raise ValueError(f"attention mining needs the item '{self.key}' in each sample, got {sorted(batch)}.")
        return [str(key) for key in batch[self.key]]
