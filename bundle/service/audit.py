# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Who came, when, and what became of it: one JSON object a line, in files of their own beside the program's log."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from bundle.service.settings import Audit

__all__ = ["AuditLog"]


class AuditLog:
    """
    Write ``audit/<role>.jsonl`` below the state folder, with older files beside it (``.1`` and so on).

    Args:
        state_dir: of the service.
        role: of this process; each process has its own file.
        settings: when a file is full, how many are kept, and whether objects are named.
    """

    def __init__(self, state_dir: Path, role: str, settings: Audit) -> None:
        folder = state_dir / "audit"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.identities = settings.identities
        self._handler = RotatingFileHandler(
            folder / f"{role}.jsonl",
            maxBytes=settings.max_bytes,
            backupCount=settings.files - 1,
            encoding="utf-8",
            delay=True,
        )

    def write(self, event: str, **words: object) -> None:
        """
        Write a line; the time is in UTC.

        Args:
            event: what happened.
            **words: what is known of it, in what JSON has; empty words are left out.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        known = {key: word for key, word in words.items() if word not in ("", None, {}, [])}
        line = {"at": now, "event": event, **known}
        record = logging.LogRecord("audit", logging.INFO, "", 0, json.dumps(line), None, None)
        self._handler.handle(record)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
