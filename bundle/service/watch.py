# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A folder whose DICOM files are taken in as if they were sent."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from bundle.service.intake import Intake, NoRoomError, RefusedError

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
    seen: set[tuple[str, float, int]] = set()
    while not stop.wait(1):
        scan(folder, intake, quiet_seconds, seen)


def scan(folder: Path, intake: Intake, quiet_seconds: float, seen: set[tuple[str, float, int]]) -> None:
    """
    Look through a folder once.

    Args:
        folder: to look through.
        intake: takes the images.
        quiet_seconds: younger files are left for the next time.
        seen: name, time and size of files that were looked at before; added to.
    """
    for path in sorted(folder.rglob("*")):
        try:
            if not path.is_file():
                continue
            state = path.stat()
            mark = (str(path), state.st_mtime, state.st_size)
            if mark in seen or time.time() - state.st_mtime < quiet_seconds:
                continue
            seen.add(mark)
            intake.take(path, "folder")
        except RefusedError as error:
            logger.warning("refused a file of the watched folder: %s", error)
        except NoRoomError as error:
            logger.error("%s", error)
            seen.discard(mark)
        except OSError:
            continue  # it was moved or removed under our eyes
