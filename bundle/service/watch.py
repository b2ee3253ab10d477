# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder whose DICOM files are taken in as if they were sent."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from stat import S_ISREG

from bundle.service.intake import Intake, RefusedError

__all__ = ["scan", "watch_folder"]

logger = logging.getLogger(__name__)


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
    seen: dict[tuple[str, float, int], bool] = {}
    while not stop.wait(1):
        scan(folder, intake, quiet_seconds, seen)


def scan(folder: Path, intake: Intake, quiet_seconds: float, seen: dict[tuple[str, float, int], bool]) -> None:
    """
    Look through a folder once.

    Args:
        folder: to look through.
        intake: takes the images.
        quiet_seconds: younger files are left for the next time.
        seen: by name, time and size of a file, whether it needs no other look; added to.
    """
    for path in sorted(folder.rglob("*")):
        try:
            state = path.stat()
        except OSError:
            continue  # it was moved or removed under our eyes
        mark = (str(path), state.st_mtime, state.st_size)
        if not S_ISREG(state.st_mode) or seen.get(mark) or time.time() - state.st_mtime < quiet_seconds:
            continue
        try:
            intake.take(path, "folder")
            seen[mark] = True
        except RefusedError as error:
            logger.warning("refused a file of the watched folder: %s", error)
            seen[mark] = True
        except OSError as error:  # such as a full disk; logged once
            if mark not in seen:
                logger.error("a file of the watched folder is tried again later: %s", error.strerror or error)
            seen[mark] = False
