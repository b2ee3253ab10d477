# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run over many images has done, kept beside its results, so that a second start continues."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bundle.files import atomic_path, writing
from bundle.results.spool import Spool
from bundle.results.tables import SCHEMA_VERSION

__all__ = ["Progress", "pseudonym_key"]

_SPOOLS = ("records", "pictures", "failures")
_STATE = "state.json"
logger = logging.getLogger(__name__)


def pseudonym_key(folder: str | os.PathLike, resume: bool = False, secret: str | None = None) -> str:
    """
    Return the key of a run's pseudonyms: the one given, that of the run to be continued, or a new one.

    Args:
        folder: of :py:class:`Progress`.
        resume: continue from ``folder`` where it holds a run.
        secret: the key, or ``None``.

    Example:
        >>> pseudonym_key("nowhere", secret="key"), len(pseudonym_key("nowhere"))
        ('key', 32)
    """
    if secret is None and resume is True:
        with suppress(OSError, ValueError, KeyError, TypeError):  # `Progress` says what is wrong with it
            return str(json.loads(Path(folder, _STATE).read_text())["secret"])
    return secrets.token_hex(16) if secret is None else secret


class Progress:
    """
    Records, thumbnails and failures of a run, on disk until the tables are written at the end.

    :py:meth:`commit` marks a moment to continue from. What was written after it is cut off when a killed run is
    resumed, and its images are done again in the same batches, so that the results are those of an undisturbed run.

    Args:
        folder: where the run keeps its state, made if missing and removed at the end; ``None`` for a temporary one,
            which nothing can be resumed from.
        resume: continue from ``folder`` where it holds a run.
        settings: what must be as it was for a run to be continued, in words and numbers by name.
        written: more of them, see :py:func:`bundle.command.written_settings`.
        secret: see :py:func:`pseudonym_key`.

    Attributes:
        done: items that are done.
        secret: key of the pseudonyms of this run.
        settings: what must be as it was, in short words by name.
        resume: whether the run is to be continued where there is one.
        records: one an image, see :py:func:`bundle.results.tables.record_of`.
        pictures: thumbnails of each image.
        failures: file and reason.
        counts: further numbers of the run by name, for whoever adds to them.

    Raises:
        ValueError: When ``resume`` is no boolean, or what ``folder`` holds does not fit.
        CannotWriteError: When the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        secret: str | None = None,
        written: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(resume, bool):  # the command line takes `false` for a word, which would count as true
            raise ValueError(f"resume must be True or False, spelled so, got '{resume}'.")
        self.folder = Path(tempfile.mkdtemp() if folder is None else folder)
        self._kept = folder is not None
        if not self._kept:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._state_file = self.folder / _STATE
        self.resume = resume
        given = {"schema_version": SCHEMA_VERSION, **(written or {}), **(settings or {})}
        self.settings = {name: _words(value) for name, value in given.items()}
        state = self._state(resume, secret)
        with writing(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.done: int = state["done"]
        self.secret: str = state["secret"]
        self._items: str | None = state["items"]
        self.records, self.pictures, self.failures = (
            Spool(self.folder / f"{name}.jsonl", state["sizes"][name]) for name in _SPOOLS
        )
        self.counts: dict[str, int] = state["counts"]
        self._start = self.done

    def remaining(self, items: Sequence[Any]) -> Sequence[Any]:
        """
        Return the items that are still to do.

        Args:
            items: the whole data list, with ``image`` and ``key``.

        Raises:
            ValueError: When it is another list than the run that is resumed was started with.
        """
        words = [(str(item["image"]), str(item.get("key", ""))) for item in items]
        digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
        if self.done and digest != self._items:
            raise ValueError(
                "cannot resume: the images are not those that the run was started with; "
                "bring them back, or start again with --resume False."
            )
        self._items = digest
        if self.done:
            logger.info("resumed: %d of %d images are done", self.done, len(items))
        return items[self.done :]

    def commit(self, count: int) -> None:
        """
        Mark the moment that a resumed run continues from.

        Args:
            count: items of :py:meth:`remaining` that are done.
        """
        if not self._kept:
            return
        self.done = self._start + count
        state = {
            "settings": self.settings,
            "secret": self.secret,
            "items": self._items,
            "done": self.done,
            "counts": self.counts,
            "sizes": {name: getattr(self, name).size() for name in _SPOOLS},
        }
        with atomic_path(self._state_file) as partial:
            partial.write_text(json.dumps(state))

    def finish(self) -> None:
        """Remove the state: there is nothing left to resume."""
        for name in _SPOOLS:
            getattr(self, name).close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state(self, resume: bool, secret: str | None) -> dict[str, Any]:
        """Return the state to continue from, that of a run at its start if there is none."""
        own = pseudonym_key(self.folder, resume, secret)
        fresh: dict[str, Any] = {"done": 0, "items": None, "secret": own, "counts": {}}
        fresh["sizes"] = dict.fromkeys(_SPOOLS, 0)
        if not self._state_file.is_file():
            return fresh
        if not resume:
            logger.warning("an unfinished run is started again; --resume True would have continued it")
            self._state_file.unlink()
            return fresh
        try:
            state = json.loads(self._state_file.read_text())
            before = state["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"cannot resume from '{self._state_file}': it is no state of a run ({error}).") from None
        for name in sorted({*before, *self.settings}):
            old, new = before.get(name), self.settings.get(name)
            if old != new:
                raise ValueError(
                    f"cannot resume: {name} was {old} and is {new}; "
                    "set it as it was, or start again with --resume False."
                )
        if secret not in (None, state["secret"]):
            raise ValueError("cannot resume: secret is another; set it as it was, or start again with --resume False.")
        return state


def _words(value: Any) -> str:
    """Return a value as JSON, or its hash where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 100 else hashlib.sha256(text.encode()).hexdigest()
