# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Heatmaps of a class while an evaluator runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys, convert_to_tensor

from bundle.rules import class_names

__all__ = ["ClassHeatmaps"]


class ClassHeatmaps:
    """
    Add a heatmap of one class, and the class's name as ``heatmap_class``, to every item before its post-processing.

    Args:
        explain: takes images ``(B, C, H, W)`` and class numbers ``(B,)``, returns heat ``(B, 1, H, W)``, such as
            :py:class:`bundle.classification.ClassExplainer`.
        classes: names in the order of the logits.
        explained_class: name of the class to explain; ``None`` for the most probable finding of every image.
        normal_class: class that is no finding; empty or ``None`` where there is none.

    Raises:
        ValueError: When a class is unknown, or ``classes`` are no names.
    """

    def __init__(
        self,
        explain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        classes: Sequence[str],
        explained_class: str | None = None,
        normal_class: str | None = None,
    ) -> None:
        self.classes = class_names(classes)
        if explained_class is not None and explained_class not in classes:
            raise ValueError(f"explained_class must be one of {list(classes)}, got '{explained_class}'.")
        self.explain = explain
        if normal_class and normal_class not in classes:
            raise ValueError(f"normal_class must be one of {list(classes)}, got '{normal_class}'.")
        self.index = None if explained_class is None else self.classes.index(explained_class)
        self.is_finding = torch.tensor([name != normal_class for name in self.classes])

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator whose network returns logits.
        """
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Explain the batch that has just gone through the network."""
        output: dict = engine.state.output  # type: ignore[assignment]
        logits = convert_to_tensor(output[CommonKeys.PRED])
        if self.index is None:
            index = logits.masked_fill(~self.is_finding.to(logits.device), -torch.inf).argmax(dim=1)
        else:
            index = torch.full((len(logits),), self.index, device=logits.device)
        output["heatmap"] = self.explain(output[CommonKeys.IMAGE], index)
        output["heatmap_class"] = [self.classes[i] for i in index.tolist()]
