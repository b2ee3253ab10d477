# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Heatmaps of a class while an evaluator runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

__all__ = ["ClassHeatmaps"]


class ClassHeatmaps:
    """
    Add a heatmap of one class to every item of an evaluator, before its post-processing.

    Args:
        explain: takes images ``(B, C, H, W)`` and class numbers ``(B,)``, returns heat ``(B, 1, H, W)``, such as
            :py:class:`bundle.inferers.ClassExplainer`.
        classes: names in the order of the logits.
        explained_class: name of the class to explain; ``None`` for the most probable one of every image.

    Raises:
        ValueError: When the class is unknown.
    """

    def __init__(
        self,
        explain: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        classes: Sequence[str],
        explained_class: str | None = None,
    ) -> None:
        if explained_class is not None and explained_class not in classes:
            raise ValueError(f"explained_class must be one of {list(classes)}, got '{explained_class}'.")
        self.explain = explain
        self.index = None if explained_class is None else list(classes).index(explained_class)

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator whose network returns logits.
        """
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Explain the batch that has just gone through the network."""
        output: dict = engine.state.output  # type: ignore[assignment]
        logits = output[CommonKeys.PRED]
        index = logits.argmax(dim=1) if self.index is None else torch.full((len(logits),), self.index)
        output["heatmap"] = self.explain(output[CommonKeys.IMAGE], index.to(logits.device))
