# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whose image is whose: items of one patient, file or picture have one ``patient``, so that splits keep them whole."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bundle.files import atomic_path, file_sha256
from bundle.lists.near_copies import NearCopy, near_copies
from bundle.reading.formats import split_frame

__all__ = ["file_digest", "group_copies", "items_digest", "name_patients", "patients_of", "tell_copies", "write_copies"]

Item = dict[str, Any]
logger = logging.getLogger(__name__)
_SURE = 0.99  # correlation from which images of two patients known by name count as one picture
_LOGGED = 20  # lines about copies in the log; the list has all of them


def name_patients(items: Sequence[Item]) -> None:
    """
    Let the frames of one file, and files with the same content, count as one patient where none is known.

    Args:
        items: with ``image`` and perhaps ``patient``, which is added.
    """
    files: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        if not item.get("patient"):
            files[split_frame(str(item["image"]))[0]].append(item)
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    common = {size for size, count in Counter(sizes.values()).items() if count > 1}
    alike: dict[str, list[Item]] = defaultdict(list)
    for number, (file, frames) in enumerate(files.items()):
        name = f"content {file_digest(file)[:16]}" if sizes.get(file) in common else f"file {number}"
        alike[name] += frames
    for name, found in alike.items():
        for item in found if len(found) > 1 else ():
            item["patient"] = name


def patients_of(items: Sequence[Item]) -> list[str]:
    """
    Return the patient of each item; those without one stand alone.

    Args:
        items: perhaps with ``patient``.
    """
    return [str(item.get("patient") or f"item {i}") for i, item in enumerate(items)]


def group_copies(items: Sequence[Item], pictures: bool = True) -> list[NearCopy]:
    """
    Let all images of one picture count as one patient: frames, identical files, and near copies.

    Images whose patients are known to differ need a correlation of 0.99 to count as near copies; then these patients
    become one, under the first of their names.

    Args:
        items: with ``image`` and perhaps ``patient``, which is changed in place.
        pictures: look for near copies too, see :py:func:`bundle.lists.near_copies.near_copies`; without it no file is
            read but those of one size.

    Returns:
        the near copies as places in ``items``; identical files are among them if they can be read.
    """
    named = {str(item["patient"]) for item in items if item.get("patient")}
    name_patients(items)
    if not pictures:
        return []
    known = {str(item["patient"]) for item in items if item.get("patient")}
    first: dict[Path, int] = {}  # the frames of a file are together already
    for i, item in enumerate(items):
        first.setdefault(split_frame(str(item["image"]))[0], i)
    places = list(first.values())
    found = [NearCopy(places[i], places[j], c) for i, j, c in near_copies([items[i]["image"] for i in places])]
    names = patients_of(items)
    found = [
        copy
        for copy in found
        if copy.correlation >= _SURE
        or names[copy.first] == names[copy.second]
        or not (names[copy.first] in named and names[copy.second] in named)
    ]
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for i, j, _ in found:
        parent[root(names[j])] = root(names[i])
    members: dict[str, list[str]] = defaultdict(list)
    for name in parent:
        members[root(name)].append(name)
    for item, name in zip(items, names, strict=True):
        group = members[root(name)]
        if len(group) > 1:
            item["patient"] = next((n for n in group if n in known), group[0].replace("item", "picture"))
    return found


def tell_copies(items: Sequence[Item], copies: Sequence[NearCopy], root: str | os.PathLike) -> None:
    """
    Log how many near copies there are, and by name those with two labels.

    Args:
        items: with ``image`` and ``label``.
        copies: of them.
        root: folder that the names start from.
    """
    if not copies:
        return
    logger.info("%d pairs of images show the same picture: a split made here keeps each on one side", len(copies))
    torn = [copy for copy in copies if items[copy.first].get("label") != items[copy.second].get("label")]
    for i, j, correlation in torn[:_LOGGED]:
        logger.warning(
            "one picture under two labels: '%s' (%s) and '%s' (%s), correlation %.2f",
            *(_name(items[i], root), _label(items[i]), _name(items[j], root), _label(items[j]), correlation),
        )
    if len(torn) > _LOGGED:
        logger.warning("%d more pictures under two labels are in the list of near copies", len(torn) - _LOGGED)


def write_copies(
    path: str | os.PathLike, items: Sequence[Item], copies: Sequence[NearCopy], root: str | os.PathLike
) -> None:
    """
    Write the list of near copies: a CSV with both files, their correlation, labels and splits.

    Args:
        path: file to write.
        items: with ``image``, ``label`` and ``split``.
        copies: of them.
        root: folder that the names start from.
    """
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["first", "second", "correlation", "first_label", "second_label", "first_split", "second_split"]
        )
        for i, j, correlation in copies:
            pair = (items[i], items[j])
            labels, splits = [_label(item) for item in pair], [item.get("split", "") for item in pair]
            writer.writerow([*(_name(item, root) for item in pair), f"{correlation:.3f}", *labels, *splits])


def items_digest(items: Sequence[Item]) -> str:
    """
    Return a digest of what is trained on: SHA-256 over the sorted digests of the files with their frames and labels.

    The order of the items and the places of the files do not change it. A file that cannot be read counts as empty.

    Args:
        items: with ``image`` and perhaps ``label``, a number or a list of numbers.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> items_digest([]) == hashlib.sha256().hexdigest()
        True
    """
    lines = []
    for item in items:
        path, frame = split_frame(str(item["image"]))
        lines.append(f"{file_digest(path)} {frame} {_label(item)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """
    Return the SHA-256 of a file, computed once as long as the file stays as it is; empty where it cannot be read.

    Args:
        path: of the file.
    """
    try:
        state = path.stat()
        return _known_sha256(str(path), state.st_size, state.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=2**17)
def _known_sha256(path: str, size: int, changed: int) -> str:
    return file_sha256(path)


def _label(item: Item) -> str:
    """Return a label as text: its name, a number, or the numbers of the classes."""
    if isinstance(item.get("label"), str):
        return item["label"]
    label = np.ravel(np.asarray(item.get("label", 0), dtype=float))
    return " ".join(f"{value:g}" for value in label)


def _name(item: Item, root: str | os.PathLike) -> str:
    path, frame = split_frame(str(item["image"]))
    name = Path(os.path.relpath(path, root)).as_posix()
    return f"{name}#frame={frame}" if frame else name
