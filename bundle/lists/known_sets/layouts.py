# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders of known data sets, as people download them: which image is whose, what it shows, and the official split."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.lists.file_kinds import why_no_image
from bundle.lists.find import find_images
from bundle.lists.known_sets.chestxray14 import CHESTXRAY14_CLASSES, chestxray14_folder
from bundle.lists.known_sets.covidx import covidx_folder
from bundle.lists.known_sets.vindr import vindr_folder, vindr_lists
from bundle.reading.errors import SkippedFileError
from bundle.reading.formats import file_format

__all__ = ["LAYOUTS", "Collection", "Item", "check_all_normal", "find_layout", "folder_items", "not_normal_folders"]

Item = dict[str, Any]
logger = logging.getLogger(__name__)

# names of folders whose images nobody would call normal, or that say how a set is split
_NOT_NORMAL = re.compile(
    r"(ab|not?[ _-]?)normal|yes|positive|pos|malignan(t|cy)|benign|(brain[ _-]?)?tumou?rs?|cancer|carcinoma|lesions?"
    r"|mass(es)?|nodules?|pneumonia|bacteria|virus|viral|tb|tuberculosis|covid([ _-]?19)?|effusion|pneumothorax"
    r"|cardiomegaly|infected|diseased?|sick|patholog(y|ical)|abnormal(ity|ities)?|anomal(y|ies|ous)|defect(ive)?s?|bad|fractures?"
    r"|tests?|testing|val(id(ation)?)?|im_dyskeratotic|im_koilocytotic",
    re.IGNORECASE,
)
# words for normal: a folder with one beside a folder without one holds only the normal part of a set
_NORMAL = frozenset(
    "normal normals healthy good negative neg no none nofinding notumor notumour control controls gesund".split()
)


class Collection(NamedTuple):
    """
    What a folder of a known data set holds.

    Args:
        items: dictionaries with ``image``, ``classes`` (names of what it shows), ``patient`` (empty where unknown) and
            ``split``: ``training``, ``validation`` or ``test`` where the data set has one of its own, else empty.
        classes: names of all classes.
        normal: classes of the normal images; none where an image without any class is normal; ``None`` where the data
            set does not say which images are normal.
        counts: normals to train with and to test with, of Table 2 of the ADFA paper; ``None`` without.
        abnormal: classes that ADFA tests with, ``None`` for all but ``normal``.
    """

    items: list[Item]
    classes: tuple[str, ...]
    normal: tuple[str, ...] | None
    counts: tuple[int, int] | None = None
    abnormal: tuple[str, ...] | None = None


def find_layout(root: Path) -> tuple[str, Path]:
    """
    Return the name of the layout that a folder has, and the folder that holds it.

    An archive is often some folders deep; on the way each holds one folder and no image beside it.

    Args:
        root: what was downloaded.

    Returns:
        name in ``LAYOUTS``, ``flat`` where nothing is recognised; and the folder.
    """
    folder = root
    for _ in range(6):  # wget lays VinDr-CXR into physionet.org/files/vindr-cxr/1.0.0
        for name, (fits, _) in LAYOUTS.items():
            if name != "flat" and fits(folder):
                return name, folder
        seen = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
        inside = [path for path in seen if path.is_dir()]
        if len(inside) != 1 or inside[0].is_symlink() or any(_is_image(path) for path in seen if path.is_file()):
            break
        folder = inside[0]
    return "flat", root


def _is_image(path: Path) -> bool:
    """Return whether a file is an image, and no README or table that was downloaded beside the images."""
    try:
        return not why_no_image(path, path.parent) and bool(file_format(path))
    except (SkippedFileError, OSError):
        return False


def subfolder(root: Path, name: str) -> Path:
    """
    Return a folder below another one, its name in any case; where there is none, the path that it would have.

    Args:
        root: the other one.
        name: with a ``/`` for a folder in a folder.
    """
    for part in filter(None, name.split("/")):
        if not (root / part).is_dir() and root.is_dir():
            alike = [path for path in root.iterdir() if path.name.lower() == part.lower() and path.is_dir()]
            root = min(alike, default=root / part)
        else:
            root /= part
    return root


def check_all_normal(root: Path, items: Sequence[Item]) -> None:
    """
    Refuse to take all images of a folder for normal where the names of its folders say otherwise.

    Args:
        root: the folder.
        items: the images found below it.

    Raises:
        ValueError: When a folder below ``root`` has a word such as ``malignant``, ``PNEUMONIA``, ``yes`` or ``test`` in
            its name, or one called normal lies beside others.
    """
    if telling := not_normal_folders(root, items):
        raise ValueError(
            f"not all of '{root.name}' can be taken for normal, it has folders named {', '.join(telling[:5])}: give "
            "the folder of the normal images alone, or train/good and test/good beside test/<anything else>, or a CSV "
            "with image, label and split; --layout flat takes every image for normal."
        )


def not_normal_folders(root: Path, items: Sequence[Item]) -> list[str]:
    """Return the names of folders below ``root`` that hold items and say that not all of them are normal."""
    folders = {
        parent for item in items for parent in Path(item["image"]).relative_to(root).parents if parent != Path(".")
    }
    telling = {folder.name for folder in folders if _is_not_normal(folder.name)}
    for above in {folder.parent for folder in folders}:
        beside = {folder.name for folder in folders if folder.parent == above}
        if others := {name for name in beside if not _words(name) & _NORMAL}:
            telling |= others if others != beside else set()
    return sorted(telling)


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_\d]+", name.lower()))


def _is_not_normal(name: str) -> bool:
    return any(_NOT_NORMAL.fullmatch(word) for word in (name, *_words(name)) if word)


def folder_items(root: Path, folder: str, classes: Sequence[str] = (), split: str = "") -> list[Item]:
    """
    Return the images below a folder, by the rule of :py:func:`bundle.lists.find.find_images`.

    Args:
        root: of the data set.
        folder: below it, in any case; one that does not exist has no images.
        classes: names of what its images show.
        split: of its images.
    """
    path = subfolder(root, folder)
    if not path.is_dir() or not any(path.iterdir()):
        return []
    # the secret only groups the images of one patient within this list, it is never written
    items, refusals = find_images(path, secret="grouping")
    reasons = Counter(refusal.reason.removeprefix(f"{refusal.source.name}: ") for refusal in refusals)
    for reason, count in reasons.items():
        logger.info("%d files of '%s' are left out: %s", count, folder or root.name, reason)
    return [
        {"image": item["image"], "patient": item["patient"], "classes": tuple(classes), "split": split}
        for item in items
    ]


def _classes_as_folders(root: Path, folders: dict[str, str], normal: tuple[str, ...], **facts: Any) -> Collection:
    items = [item for name, folder in folders.items() for item in folder_items(root, folder, [name])]
    return Collection(items, tuple(folders), normal, **facts)


def _brainmri(root: Path) -> Collection:
    return _classes_as_folders(root, {"normal": "no", "tumor": "yes"}, ("normal",), counts=(58, 40))


def _busi(root: Path) -> Collection:
    folders = {name: name for name in ("normal", "benign", "malignant")}
    return _classes_as_folders(root, folders, ("normal",), counts=(96, 32))


def _sipakmed(root: Path) -> Collection:
    """Return the slides; the cells cut out of them, in CROPPED, are no images of their own."""
    names = ("Superficial-Intermediate", "Parabasal", "Metaplastic", "Dyskeratotic", "Koilocytotic")
    folders = {name: f"im_{name}" for name in names if subfolder(root, f"im_{name}").is_dir()}
    # Table 2 takes two classes for normal and two for abnormal, and leaves the benign metaplastic cells out
    abnormal = ("Dyskeratotic", "Koilocytotic")
    return _classes_as_folders(root, folders, names[:2], counts=(180, 54), abnormal=abnormal)


def _pneumonia(root: Path) -> Collection:
    """Return Kermany's radiographs, and the COVID-19 set in the same folders; the names say who is whose."""
    items = []
    for split in ("train", "val", "test"):
        for name, folder in (("normal", "NORMAL"), ("pneumonia", "PNEUMONIA")):
            # Kermany's 16 validation images are too few to choose anything by: they are for training
            items += folder_items(root, f"{split}/{folder}", [name], "test" if split == "test" else "training")
    for item in items:
        found = re.match(r"(person\d+)_(?:bacteria|virus)_|((?:NORMAL2-)?IM-\d+)-\d+", Path(item["image"]).name)
        if found and not item["patient"]:
            item["patient"] = found.group(1) or found.group(2)
    return Collection(items, ("normal", "pneumonia"), ("normal",))


def _good_tree(root: Path) -> Collection:
    items = folder_items(root, "train/good", ["good"], "training")
    names = sorted(
        path.name for path in subfolder(root, "test").glob("*") if path.is_dir() and not path.name.startswith(".")
    )
    for name in names:
        items += folder_items(root, f"test/{name}", ["good" if name.lower() == "good" else name], "test")
    return Collection(items, ("good", *(name for name in names if name.lower() != "good")), ("good",))


def _flat(root: Path) -> Collection:
    return Collection(folder_items(root, "", ["normal"], "training"), ("normal",), ("normal",))


def _has(*folders: str) -> Callable[[Path], bool]:
    return lambda root: all(subfolder(root, folder).is_dir() for folder in folders)


_PNEUMONIA = _has("train/NORMAL", "test/NORMAL", "test/PNEUMONIA")


def _chestxray14(root: Path) -> Collection:
    return Collection(chestxray14_folder(root), CHESTXRAY14_CLASSES, ())


def _vindr(root: Path) -> Collection:
    classes, items = vindr_folder(root)
    return Collection(items, classes, ("No finding",))


def _covidx(root: Path) -> Collection:
    classes, items = covidx_folder(root)
    return Collection(items, classes, ("normal",) if "normal" in classes else None)


# name: (whether a folder has it, reader); the first that fits is taken
LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Collection]]] = {
    "good_tree": (_has("train/good"), _good_tree),
    "kermany": (lambda root: _PNEUMONIA(root) and any(subfolder(root, "train/PNEUMONIA").glob("person*")), _pneumonia),
    "covid19": (_PNEUMONIA, _pneumonia),
    "brainmri": (_has("no", "yes"), _brainmri),
    "busi": (_has("normal", "benign", "malignant"), _busi),
    "sipakmed": (_has("im_Parabasal", "im_Koilocytotic"), _sipakmed),
    "chestxray14": (lambda root: any(root.glob("Data_Entry_2017*.csv*")), _chestxray14),
    "covidx": (lambda root: (root / "train.txt").is_file() and (root / "test.txt").is_file(), _covidx),
    "vindr": (lambda root: bool(vindr_lists(root)), _vindr),
    "flat": (lambda root: True, _flat),
}
