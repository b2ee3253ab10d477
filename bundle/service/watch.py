# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder whose DICOM files are taken in as if they were sent."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from stat import S_ISREG

from bundle.service.intake import Intake, RefusedError

__all__ = ["scan", "watch_folder"]

logger = logging.getLogger(__name__)

Seen = dict[tuple[str, float, int], float | bool]


def watch_folder(folder: Path, intake: Intake, quiet_seconds: float, stop: threading.Event) -> None:
    """
    Take in each file below a folder that has not changed for a while; the files stay where they are.

    Args:
        folder: made if missing.
        intake: knows by their UIDs which images came before.
        quiet_seconds: a file is whole when it has not changed for so long.
        stop: ends the watch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen: Seen = {}
    while not stop.wait(1):
        scan(folder, intake, quiet_seconds, seen)


def scan(folder: Path, intake: Intake, quiet_seconds: float, seen: Seen) -> None:
    """
    Look through a folder once; what is refused is told in one line for each reason.

    Args:
        folder: to look through; links that lead out of it are refused.
        intake: takes the images.
        quiet_seconds: a file that has not been the same for so long is left for the next time.
        seen: by name, time and size of a file, whether it needs no other look, or the monotonic time at which it was
            seen first; added to.
    """
    root, refused = folder.resolve(), Counter[str]()
    for path in sorted(folder.rglob("*")):
        try:
            state, inside = path.stat(), path.resolve().is_relative_to(root)
        except (OSError, RuntimeError):
            continue  # it was moved or removed under our eyes, or is a link to itself
        if not S_ISREG(state.st_mode):
            continue
        mark = (str(path), state.st_mtime, state.st_size)
        since = seen.setdefault(mark, time.monotonic())
        if since is True or (since is not False and time.monotonic() - since < quiet_seconds):
            continue
        if not inside:
            refused["a link must not lead out of the folder, it does."] += 1
            seen[mark] = True
            continue
        try:
            intake.take(path, "folder")
            seen[mark] = True
        except RefusedError as error:
            refused[str(error)] += 1
            seen[mark] = True
        except OSError as error:  # such as a full disk; logged once
            if since is not False:
                logger.error("a file of the watched folder is tried again later: %s", error.strerror or error)
            seen[mark] = False
    for reason, count in refused.items():
        logger.warning("refused %d files of the watched folder: %s", count, reason)
