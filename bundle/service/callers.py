# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the audit log says of each connection to the listener: one line when it has ended."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from typing import Any

from bundle.service.audit import AuditLog

__all__ = ["CallerLog"]

_MOST_NAMED = 1000  # objects of one connection


class CallerLog:
    """
    Collect what a connection does, and write it once.

    Args:
        audit: where it is written.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit, self._lock = audit, threading.Lock()
        self._open: dict[int, dict[str, Any]] = {}

    def opened(self, association: Any) -> None:
        """Begin a connection."""
        with self._lock:
            self._open[id(association)] = {"outcome": "no association was asked for", "refused": Counter()}

    def outcome(self, association: Any, outcome: str, reason: str = "") -> None:
        """Note how the association stands, and why."""
        with self._lock:
            record = self._open.get(id(association))
            if record is not None:
                record.update(outcome=outcome, reason=reason)

    def accepted(self, association: Any) -> None:
        """Note an association, the kinds of object that were not negotiated, and the caller's certificate."""
        connection = getattr(association.dul.socket, "socket", None)
        certificate: Any = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        subject = {key: value for part in (certificate or {}).get("subject", ()) for key, value in part}
        not_negotiated = sorted({str(context.abstract_syntax) for context in association.rejected_contexts})
        with self._lock:
            record = self._open.get(id(association), {})
            record.update(outcome="accepted", not_negotiated=not_negotiated, certificate=subject.get("commonName", ""))
            if not association.accepted_contexts:
                record.update(outcome="nothing was negotiated")

    def stored(self, association: Any, new: bool, uid: str) -> None:
        """Note an object that was acknowledged."""
        with self._lock:
            record = self._open.get(id(association), {})
            kind = "taken" if new else "known"
            record[kind] = record.get(kind, 0) + 1
            if self._audit.identities and len(names := record.setdefault("objects", [])) < _MOST_NAMED:
                names.append(uid)

    def refused(self, association: Any, reason: str) -> None:
        """Note an object that was refused."""
        with self._lock:
            if record := self._open.get(id(association)):
                record["refused"][reason] += 1

    def closed(self, association: Any) -> None:
        """Write the line of a connection, if that was not done before."""
        with self._lock:
            record = self._open.pop(id(association), None)
        if record is None:
            return
        caller = association.requestor
        asked = caller.primitive
        titles = (asked.calling_ae_title, asked.called_ae_title) if asked is not None else ("", "")
        names = dict(zip(("ae_title", "called"), (str(title).strip() for title in titles), strict=True))
        self._audit.write("connection", address=caller.address, **names, **record)

    def turned_away(self, address: str, reason: str) -> None:
        """Write the line of a connection that was closed at once."""
        self._audit.write("connection", address=address, outcome="turned away", reason=reason)
