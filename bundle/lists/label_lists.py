# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The data lists of a table of classes, one a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.lists.table import load_label_table

__all__ = ["LabelDataList"]


class LabelDataList:
    """
    The splits of a table, each read when it is asked for: see :py:func:`bundle.lists.load_label_table`.

    Args:
        csv_path: the table.
        image_dir: folder that the images are named from.
        classes: class columns, in the order of the network's outputs.
        exclusive: ``True`` where exactly one class holds for an image.
        allow_outside: take images from outside of ``image_dir`` too.
    """

    def __init__(
        self,
        csv_path: str | Path,
        image_dir: str | Path,
        classes: Sequence[str],
        exclusive: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.csv_path, self.image_dir, self.classes = csv_path, image_dir, classes
        self.exclusive, self.allow_outside = exclusive, allow_outside

    def of(self, split: str) -> list[dict[str, Any]]:
        """Return the items of a split, ``training``, ``validation`` or ``test``; labels are float32 ``(K,)``."""
        items = load_label_table(self.csv_path, self.image_dir, self.classes, split, self.exclusive, self.allow_outside)
        return [{**item, "label": np.asarray(item["label"], np.float32)} for item in items]

    @property
    def training(self) -> list[dict[str, Any]]:
        """Items to train with."""
        return self.of("training")

    @property
    def validation(self) -> list[dict[str, Any]]:
        """Items to choose and to calibrate with."""
        return self.of("validation")

    @property
    def test(self) -> list[dict[str, Any]]:
        """Items to evaluate on."""
        return self.of("test")
