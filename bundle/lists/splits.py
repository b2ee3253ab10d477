# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Splits and folds that keep a patient together and the classes in proportion."""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from bundle.lists.patients import patients_of

__all__ = [
    "cross_validation_splits",
    "patient_folds",
    "patient_splits",
    "split_held_back",
    "split_normals",
    "with_folds",
]

logger = logging.getLogger(__name__)

Item = dict[str, Any]


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
    parts: Sequence[str] = ("training", "training", "training", "validation", "test"),
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
    parts = ("test", "validation", *("training",) * (num_folds - 2))
    return [[parts[(fold - i) % num_folds] for fold in folds] for i in range(num_folds)]


def with_folds(items: Sequence[Item], folds: int = 5, seed: int = 0) -> list[Item]:
    """
    Return items with the number of their ``fold``, never one patient in two.

    Args:
        items: those with the same ``patient`` stay together, those without one stand alone.
        folds: how many; fewer where there are fewer patients.
        seed: of the shuffle.
    """
    patients = patients_of(items)
    number = patient_folds([[0]] * len(items), patients, min(folds, len(set(patients))), seed)
    return [{**item, "fold": fold} for item, fold in zip(items, number, strict=True)]


def split_held_back(items: Sequence[Item], fraction: float, minimum: int, seed: int) -> tuple[list[Item], list[Item]]:
    """
    Hold back a part of the normals, never one patient on both sides.

    Args:
        items: normal items; those with the same ``patient`` stay together, those without one stand alone.
        fraction: wanted share of held-back items, in (0, 1).
        minimum: at least as many are held back, as long as that is at most half of the items.
        seed: of the shuffle.

    Returns:
        items to train with and items held back, in their order in the list.

    Raises:
        ValueError: When there is only one patient.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, patient in enumerate(patients_of(items)):
        groups[patient].append(i)
    if len(groups) < 2:
        raise ValueError(
            f"training needs normal images of at least 2 patients, found {len(groups)}; where no patient is known, "
            "frames of one file and files with the same content count as one."
        )
    wanted = max(math.ceil(fraction * len(items)), min(minimum, len(items) // 2))
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    most = max(wanted, len(items) // 2)
    for name in names:
        if len(held) < wanted and len(held) + len(groups[name]) <= most:
            held.update(groups[name])
    if not held:  # one that is too large is better than none
        held.update(groups[min(groups, key=lambda name: len(groups[name]))])
    return [x for i, x in enumerate(items) if i not in held], [x for i, x in enumerate(items) if i in held]


def split_normals(
    normals: Sequence[Item], abnormal: Sequence[Item], counts: tuple[int, int], seed: int
) -> tuple[list[Item], list[Item]]:
    """
    Split normals into those to train with and those to test with, never one patient on both sides.

    Args:
        normals: normal items; those with the same ``patient`` stay together, those without one stand alone.
        abnormal: items to test with, which are left out where their patient is to train with.
        counts: how many normals to train and to test with, as Table 2 of the ADFA paper has them; a smaller set, and
            one whose first count is 0, is split two to one.
        seed: of the shuffle.

    Returns:
        items to train with, and items to test with.
    """
    train, test = counts
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, patient in zip(normals, patients_of(normals), strict=True):
        groups[patient].append(item)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    if not train or len(normals) < train + test:
        train, test = round(len(normals) * 2 / 3), len(normals)
    training: list[Item] = []
    rest: list[list[Item]] = []
    for group in shuffled:
        if len(training) + len(group) <= train:
            training += group
        else:
            rest.append(group)
    while len(training) < train and len(rest) > bool(training):  # patients with so many images that none fits
        training += rest.pop(0)
    trained = {item["patient"] for item in training if item.get("patient")}
    tested = [item for group in rest for item in group][:test]
    tested += [item for item in abnormal if item.get("patient", "") not in trained]
    left_out = len(abnormal) - sum(item["label"] for item in tested)
    if left_out:
        logger.warning("%d abnormal images are of patients, or copies of images, to train with: left out", left_out)
    return training, tested
