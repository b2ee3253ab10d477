# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One listener and one worker for a state folder: a second would take the first one's jobs and unfinished files."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked_role", "runs"]

_PATIENCE = 2.0  # seconds: one that was killed may still be ending


@contextmanager
def locked_role(state_dir: Path, role: str) -> Iterator[None]:
    """
    Hold a role in a state folder; the system ends the lock with the process, however that ends.

    Args:
        state_dir: the folder.
        role: such as ``listen``.

    Raises:
        OSError: When another process holds it.
    """
    until = time.monotonic() + _PATIENCE
    with (state_dir / f"{role}.lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OSError(f"state_dir must have one '{role}' only, '{state_dir}' has one already.") from None
                time.sleep(0.1)
        yield


def runs(state_dir: Path, role: str) -> bool:
    """
    Return whether a process holds a role in a state folder.

    Args:
        state_dir: the folder.
        role: such as ``listen``.
    """
    path = state_dir / f"{role}.lock"
    if not path.exists():
        return False
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
