# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep what pydicom and highdicom say while they read or write, which may quote the file, out of logs and warnings."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydicom.config import disable_value_validation

__all__ = ["quiet_dicom"]


class _Settings:
    """Settings of the process, not of a thread: the first thread to enter saves them, the last to leave restores."""

    def __init__(self) -> None:
        self._lock, self._entered, self._saved = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        with self._lock:
            if not self._entered:
                self._change()
            self._entered += 1

    def leave(self) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                self._saved.close()

    def _change(self) -> None:
        for name in ("pydicom", "highdicom"):
            logger = logging.getLogger(name)
            self._saved.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)  # also for their children, which log UIDs
        self._saved.enter_context(warnings.catch_warnings())
        self._saved.enter_context(disable_value_validation())
        warnings.simplefilter("ignore")


_settings = _Settings()


@contextmanager
def quiet_dicom() -> Iterator[None]:
    """Keep odd values of a file from raising, and its text out of warnings and logs; in any threads at once."""
    _settings.enter()
    try:
        yield
    finally:
        _settings.leave()
