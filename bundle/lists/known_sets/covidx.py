# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Image labels and the official split of COVIDx (Wang, Lin and Wong, 2020, https://doi.org/10.1038/s41598-020-76550-z)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bundle.lists.file_kinds import files_by_name
from bundle.lists.table import SPLITS

__all__ = ["covidx_folder"]

logger = logging.getLogger(__name__)


def covidx_folder(root: Path) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """
    Return classes and items of the data set as downloaded.

    Args:
        root: folder with ``train.txt``, ``test.txt`` and perhaps ``val.txt``, a line an image: patient, file, class and
            source, separated by spaces; the images of each are in the folder of its name.

    Returns:
        the classes, in the order of the alphabet; and items of the images that are there, see
        :py:class:`bundle.lists.known_sets.layouts.Collection`.

    Raises:
        ValueError: When a line has fewer than four words, or no image is there.
    """
    items, missing = [], 0
    for name, split in zip(("train", "val", "test"), SPLITS, strict=True):
        path = root / f"{name}.txt"
        if not path.is_file():
            continue
        files = files_by_name(root / name) if (root / name).is_dir() else {}
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) < 4:
                raise ValueError(f"{path.name} row {number}: must be patient, file, class and source, got '{line}'.")
            file = " ".join(words[1:-2])  # some names have spaces
            if file in files:
                item = {"image": str(files[file]), "patient": words[0], "classes": (words[-2],), "split": split}
                items.append(item)
            missing += file not in files
    if not items:
        raise ValueError(
            f"'{root.name}' must hold the images of its lists in 'train' and 'test', none of {missing} is there."
        )
    if missing:
        logger.warning("%d of the %d images of COVIDx are not there, they are left out", missing, missing + len(items))
    return tuple(sorted({name for item in items for name in item["classes"]})), items
