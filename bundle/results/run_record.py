# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of a run, ``run.json``: when it began and with what, so that its DICOM objects keep one identity."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bundle import __version__
from bundle.files import atomic_path

__all__ = ["WRITTEN_BY", "RunIdentity", "begin_run", "settings_digest"]

WRITTEN_BY = "attention-imaging-bundle"
_NAME = "run.json"


@dataclass(frozen=True)
class RunIdentity:
    """
    What tells the objects of one run from those of every other.

    Args:
        started: when the run began, with its time zone; the objects carry it as their time.
        run: name of the run, a random one unless the time was fixed.
        settings_sha256: digest of all that can change what the objects hold.
        continued: whether this goes on with a run that has begun before; what that has stored is kept.
    """

    started: datetime
    run: str
    settings_sha256: str
    continued: bool = False

    @property
    def identity(self) -> str:
        """Time, name and digest as one text, to derive UIDs from."""
        return "\\".join((self.run, self.started.isoformat(), self.settings_sha256))


def settings_digest(settings: Mapping[str, Any]) -> str:
    """
    Return the SHA-256 of settings as canonical JSON: keys sorted, and numbers as Python writes them.

    Args:
        settings: by name, with whatever JSON can say below; anything else by its words.

    Example:
        >>> settings_digest({"a": 0.10, "b": [1]}) == settings_digest({"b": (1,), "a": 0.1})
        True
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def begin_run(
    folder: Path,
    settings: Mapping[str, Any],
    resume: bool = False,
    fixed_time: str | None = None,
    model: Mapping[str, str | None] | None = None,
) -> RunIdentity:
    """
    Write the record of a run into its output folder, and return the run's identity.

    A run that is continued with the settings of the record keeps its time and name, and so the UIDs of what it has
    written; any other run has new ones.

    Args:
        folder: of the results.
        settings: all that can change what the results hold.
        resume: continue the run of the record.
        fixed_time: time of the run in ISO 8601, which also names it: two runs with the same one, the same settings and
            sources write the same bytes. For tests; ``None`` takes the present moment and a random name.
        model: ``name`` and ``weights_sha256`` of the model that is used; they stand in the record for its reader.

    Raises:
        ValueError: When ``fixed_time`` is no time in ISO 8601.
        CannotWriteError: When the record cannot be written.
    """
    digest = settings_digest(settings)
    moment = datetime.now(timezone.utc) if fixed_time is None else _time(fixed_time)
    name = secrets.token_hex(16) if fixed_time is None else moment.isoformat()
    fresh = RunIdentity(moment, name, digest)
    if resume and fixed_time is None:
        fresh = _recorded(folder / _NAME, digest) or fresh
    content = {
        "written_by": WRITTEN_BY,
        "version": __version__,
        "started": fresh.started.isoformat(),
        "run": fresh.run,
        "settings_sha256": digest,
        "model": dict(model or {}) or None,
    }
    with atomic_path(folder / _NAME) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return fresh


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(str(text)).astimezone(timezone.utc)
    except ValueError:
        raise ValueError(f"fixed_time must be a time in ISO 8601, got '{text}'.") from None


def _recorded(path: Path, digest: str) -> RunIdentity | None:
    """Return the identity that a record holds, ``None`` where it is of other settings or no record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["written_by"] != WRITTEN_BY or content["settings_sha256"] != digest:
            return None
        return RunIdentity(datetime.fromisoformat(content["started"]), str(content["run"]), digest, continued=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
