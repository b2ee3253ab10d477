# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the service can do its work now, and if not, why."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from bundle.service.passing import NoRoomError, check_room
from bundle.service.settings import Settings
from bundle.service.state_lock import runs

__all__ = ["expected_roles", "intake_problem", "service_problems"]

_PATIENCE = 2.0  # seconds that another program may hold the queue for


def expected_roles(settings: Settings) -> list[str]:
    """
    Return the processes that the service consists of.

    Args:
        settings: of the service.
    """
    return ["listen", "work"] + (["page"] if settings.page is not None else [])


def intake_problem(settings: Settings) -> str | None:
    """
    Return why no image can be taken now, ``None`` where one can.

    Args:
        settings: of the service.
    """
    try:
        check_room(settings.state_dir, settings.min_free_bytes, 0)
        # not made if it is missing: whoever asks must change nothing
        address = f"{(settings.state_dir / 'queue.sqlite').resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, timeout=_PATIENCE, isolation_level=None, uri=True)) as queue:
            queue.execute("BEGIN IMMEDIATE")
            queue.execute("ROLLBACK")
    except NoRoomError as error:
        return str(error)
    except (sqlite3.Error, OSError):
        return "the queue cannot be written to."
    return None


def service_problems(settings: Settings) -> list[str]:
    """
    Return all that keeps the service from its work, one line each.

    Args:
        settings: of the service.
    """
    missing = [f"'{role}' does not run." for role in expected_roles(settings) if not runs(settings.state_dir, role)]
    problem = intake_problem(settings)
    return missing + ([problem] if problem else [])
