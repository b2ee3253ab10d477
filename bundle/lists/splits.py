# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Splits and folds that keep a patient together and the classes in proportion."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["cross_validation_splits", "patient_folds", "patient_splits"]


def patient_folds(
    labels: Sequence[Sequence[int]], patients: Sequence[Hashable], num_folds: int = 5, seed: int = 0
) -> list[int]:
    """
    Return the fold of every image for a k-fold cross-validation, from scikit-learn's ``StratifiedGroupKFold``.

    An image with several findings counts for its rarest one.

    Args:
        labels: zeros and ones, one row an image.
        patients: patient of every image; all images of a patient get one fold.
        num_folds: number of folds, from 2.
        seed: of the shuffle.

    Returns:
        fold numbers 0..num_folds-1.

    Raises:
        ValueError: When there are fewer patients than folds.
    """
    if len(set(patients)) < num_folds:
        raise ValueError(f"{num_folds} folds need as many patients, got {len(set(patients))}.")
    table = np.asarray(labels)
    rarity = np.where(table > 0, table.sum(axis=0), len(table) + 1)
    stratum = np.where(table.any(axis=1), rarity.argmin(axis=1), table.shape[1])
    groups = np.unique([str(p) for p in patients], return_inverse=True)[1]
    folds = np.zeros(len(table), dtype=int)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    for i, (_, held_out) in enumerate(splitter.split(table, stratum, groups)):
        folds[held_out] = i
    return folds.tolist()


def patient_splits(
    labels: Sequence[Sequence[int]],
    patients: Sequence[Hashable],
    parts: Sequence[str] = ("train", "train", "train", "val", "test"),
    seed: int = 0,
) -> list[str]:
    """
    Return a named split for every image: as many folds as ``parts``, each with its name.

    Args:
        labels: zeros and ones, one row an image.
        patients: patient of every image.
        parts: name of every equal part; by default 60 % training, 20 % validation, 20 % test.
        seed: of the shuffle.

    Returns:
        split names.

    Raises:
        ValueError: When there are fewer patients than parts.
    """
    return [parts[fold] for fold in patient_folds(labels, patients, len(parts), seed)]


def cross_validation_splits(
    labels: Sequence[Sequence[int]], patients: Sequence[Hashable], num_folds: int = 5, seed: int = 0
) -> list[list[str]]:
    """
    Return a named split for every image, once for each round of a cross-validation.

    In round ``i`` fold ``i`` is for testing, the next one for validation, and the others are for training, so every
    image is tested on once.

    Args:
        labels: zeros and ones, one row an image.
        patients: patient of every image.
        num_folds: number of folds and rounds, from 3.
        seed: of the shuffle.

    Returns:
        for every round, split names of the images.

    Raises:
        ValueError: When there are fewer than three folds, or fewer patients than folds.
    """
    if num_folds < 3:
        raise ValueError(f"num_folds must be at least 3, got {num_folds}.")
    folds = patient_folds(labels, patients, num_folds, seed)
    parts = ("test", "val", *("train",) * (num_folds - 2))
    return [[parts[(fold - i) % num_folds] for fold in folds] for i in range(num_folds)]
