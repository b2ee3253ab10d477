# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A line every so often for a run that nobody watches in a terminal: how far, how fast, how long still."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Pulse", "progress_line"]

logger = logging.getLogger(__name__)


def progress_line(done: int, total: int | None, seconds: float, before: int = 0) -> str:
    """
    Return how far a run is, in words.

    Args:
        done: images that are done, with those of an earlier start.
        total: images of the whole run, ``None`` where unknown.
        seconds: since this start.
        before: images that an earlier start had done.

    Example:
        >>> progress_line(40, 100, 20.0)
        '40 of 100 images done, 2 a second, 30 s left'
        >>> progress_line(0, 100, 5.0)
        '0 of 100 images done'
    """
    words = f"{done} images done" if total is None else f"{done} of {total} images done"
    fresh = done - before
    if fresh <= 0 or seconds <= 0:
        return words
    rate = fresh / seconds
    words += f", {rate:.3g} a second" if rate >= 0.1 else f", {1 / rate:.0f} s an image"
    return words if total is None else f"{words}, {_duration((total - done) / rate)} left"


class Pulse:
    """
    Log :py:func:`progress_line` from a thread of its own, so that a slow batch is no silence.

    Args:
        done: gives the number of images that are done.
        total: images of the whole run, ``None`` where unknown.
        first: seconds until the first line.
        every: seconds between the following ones; 0 for no line at all.
    """

    def __init__(self, done: Callable[[], int], total: int | None, first: float = 5.0, every: float = 30.0) -> None:
        self._done, self._total, self._first, self._every = done, total, first, every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to count the time."""
        if self._every > 0:
            self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the lines; nothing is logged afterwards."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        begun, before = time.monotonic(), self._done()
        wait = min(self._first, self._every)
        while not self._stop.wait(wait):
            logger.info("%s", progress_line(self._done(), self._total, time.monotonic() - begun, before))
            wait = self._every


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
