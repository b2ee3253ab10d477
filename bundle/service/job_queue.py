# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
The queue on disk: which images came, which results they got, and which of those have arrived.

A job is the batch of new images of one study. ``waiting`` (still receiving, or complete and not yet begun) becomes
``running``, ``sending`` and ``done``; what cannot be answered is ``parked`` with its reason. Each change is one SQLite
transaction, so a process may die at any moment.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["STATES", "JobQueue", "back_to_waiting"]

STATES = ("waiting", "running", "sending", "done", "parked")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, peer TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
    retry_at REAL NOT NULL DEFAULT 0, first_at REAL NOT NULL, last_at REAL NOT NULL, started_at REAL, computed_at REAL,
    finished_at REAL, removed INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS one_waiting_job_a_study ON jobs (study) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, last_at);
CREATE TABLE IF NOT EXISTS instances (
    uid TEXT PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs, file TEXT NOT NULL, modality TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS instances_by_job ON instances (job);
CREATE TABLE IF NOT EXISTS results (
    uid TEXT PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs, model TEXT NOT NULL, kind TEXT NOT NULL,
    file TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS results_by_job ON results (job);
CREATE TABLE IF NOT EXISTS deliveries (
    uid TEXT NOT NULL REFERENCES results, destination TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (uid, destination));
CREATE TABLE IF NOT EXISTS scores (
    model TEXT NOT NULL, weights TEXT NOT NULL, study TEXT NOT NULL, score REAL NOT NULL, PRIMARY KEY (model, study));
CREATE TABLE IF NOT EXISTS shifts (
    model TEXT PRIMARY KEY, weights TEXT NOT NULL, sentence TEXT NOT NULL, at REAL NOT NULL);
"""
# Intervals are measured by the system's monotonic clock, which all processes share and which starts anew with the
# machine: a tick in the future is of an earlier start, so its interval is over. Queues of older versions lack these.
_ADDED = (
    ("jobs", ("last_tick", "retry_tick", "retry_wait"), "REAL NOT NULL DEFAULT 0"),
    ("instances", ("patient", "syntax", "header", "pixels"), "TEXT NOT NULL DEFAULT ''"),
)
_OVER = "({0} > :now OR {0} <= :now - {1})"


class JobQueue:
    """
    Jobs, images, results, deliveries and scores in one SQLite file; threads and processes may share it.

    Args:
        path: file, made if missing.
    """

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")  # an image that was acknowledged survives a power cut
        with self.transaction():
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            for table, columns, kind in _ADDED:
                known = {row["name"] for row in self._connection.execute(f"PRAGMA table_info({table})")}
                for column in columns:
                    if column not in known:
                        self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for changes that are all made, or none; other threads and processes wait."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """
        Return the rows of a query.

        Args:
            query: SQL that changes nothing.
            *values: for its question marks; one mapping for names.
        """
        named = len(values) == 1 and isinstance(values[0], dict)
        with self._lock:
            return self._connection.execute(query, values[0] if named else values).fetchall()  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def knows(self, uid: str) -> bool:
        """Return whether an image with this SOP Instance UID was taken in before."""
        return bool(self.rows("SELECT 1 FROM instances WHERE uid = ?", uid))

    def content(self, uid: str) -> tuple[str, ...] | None:
        """Return the digests that an image was taken in with; ``None`` for one that is not known."""
        found = self.rows("SELECT patient, syntax, header, pixels FROM instances WHERE uid = ?", uid)
        return tuple(found[0]) if found else None

    def add(
        self, uid: str, study: str, modality: str, file: str, peer: str, content: Sequence[str] = ("", "", "", "")
    ) -> bool:
        """
        Take an image in; its file lies on disk already.

        Args:
            uid: SOP Instance UID.
            study: Study Instance UID.
            modality: Modality (0008,0060).
            file: name below the folder of images.
            peer: where it came from, for the page.
            content: digest of the patient, transfer syntax, digests of header and pixels.

        Returns:
            whether it is new.
        """
        now = time.time()
        with self.transaction() as db:
            if db.execute("SELECT 1 FROM instances WHERE uid = ?", (uid,)).fetchone():
                return False
            open_job = db.execute("SELECT id FROM jobs WHERE study = ? AND state = 'waiting'", (study,)).fetchone()
            if open_job:
                job = open_job["id"]
                db.execute("UPDATE jobs SET last_at = ?, last_tick = ? WHERE id = ?", (now, time.monotonic(), job))
            else:
                columns = "(study, peer, state, first_at, last_at, last_tick) VALUES (?, ?, 'waiting', ?, ?, ?)"
                values = (study, peer, now, now, time.monotonic())
                job = db.execute(f"INSERT INTO jobs {columns}", values).lastrowid
            columns = "(uid, job, file, modality, patient, syntax, header, pixels)"
            db.execute(
                f"INSERT INTO instances {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (uid, job, file, modality, *content)
            )
        return True

    def claim(self, quiet_seconds: float) -> int | None:
        """
        Return the job that is complete for longest, now ``running``; ``None`` where none is.

        Args:
            quiet_seconds: a job is complete when its last image came that long ago.
        """
        with self.transaction() as db:
            row = db.execute(
                f"SELECT id FROM jobs WHERE state = 'waiting' AND {_OVER.format('last_tick', ':quiet')} "
                f"AND {_OVER.format('retry_tick', 'retry_wait')} ORDER BY last_at LIMIT 1",
                {"now": time.monotonic(), "quiet": quiet_seconds},
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started_at = ?, reason = '' WHERE id = ?",
                (time.time(), row["id"]),
            )
            return row["id"]

    def computed(self, job: int, results: Iterable[tuple[str, str, str, str]], note: str = "") -> None:
        """
        Note the results of a job, which now is ``sending``.

        Args:
            job: number of the job.
            results: SOP Instance UID, model, kind and file of each.
            note: what a reader should know, such as an image that could not be read.
        """
        with self.transaction() as db:
            db.execute("DELETE FROM results WHERE job = ?", (job,))
            # every run has its own UIDs, but one with a fixed time, which makes the results of an earlier job again
            db.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", [(uid, job, *rest) for uid, *rest in results]
            )
            db.execute(
                "UPDATE jobs SET state = 'sending', reason = ?, tries = 0, retry_wait = 0, computed_at = ? "
                "WHERE id = ?",
                (note, time.time(), job),
            )

    def next_to_send(self) -> int | None:
        """Return the job that has waited longest for its results to be sent, or ``None``."""
        over = _OVER.format("retry_tick", "retry_wait")
        query = f"SELECT id FROM jobs WHERE state = 'sending' AND {over} ORDER BY retry_tick, computed_at LIMIT 1"
        found = self.rows(query, {"now": time.monotonic()})
        return found[0]["id"] if found else None

    def unsent(self, job: int, destination: str) -> list[sqlite3.Row]:
        """Return the results (``uid``, ``kind``, ``file``) of a job that a destination has not taken yet."""
        return self.rows(
            "SELECT uid, kind, file FROM results WHERE job = ? AND uid NOT IN "
            "(SELECT uid FROM deliveries WHERE destination = ?) ORDER BY file",
            job,
            destination,
        )

    def delivered(self, uid: str, destination: str) -> None:
        """Note that a destination has taken a result."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?)", (uid, destination, time.time()))

    def finish(self, job: int) -> None:
        """Note that all results of a job have arrived."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET state = 'done', finished_at = ? WHERE id = ?", (time.time(), job))

    def postpone(self, job: int, seconds: float) -> None:
        """Send the results of a job again after so long; the time doubles with every try, up to ten minutes."""
        with self.transaction() as db:
            _wait(db, job, seconds)

    def defer(self, job: int, seconds: float, reason: str) -> None:
        """
        Compute a job again after so long, which doubles as when sending, and do not count this start.

        Args:
            job: number of the job, which is ``running``.
            seconds: of the first wait.
            reason: what kept it from being computed.
        """
        with self.transaction() as db:
            back_to_waiting(db, job)
            db.execute("UPDATE jobs SET attempts = attempts - 1, reason = ? WHERE id = ?", (reason[:500], job))
            _wait(db, job, seconds)

    def park(self, job: int, reason: str) -> None:
        """Put a job aside until someone asks for it again; the reason holds nothing that identifies the patient."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET state = 'parked', reason = ? WHERE id = ?", (reason[:500], job))

    def retry(self, job: int | None = None) -> int:
        """
        Give parked jobs another start: sending where there are results, else from the beginning.

        Args:
            job: number of one job, ``None`` for all.

        Returns:
            how many there were.
        """
        with self.transaction() as db:
            which = "state = 'parked' AND removed = 0" + ("" if job is None else " AND id = ?")
            parked = db.execute(f"SELECT id, study FROM jobs WHERE {which}", () if job is None else (job,)).fetchall()
            for row in parked:
                number = row["id"]
                has_results = db.execute("SELECT 1 FROM results WHERE job = ?", (number,)).fetchone()
                change = "attempts = 0, tries = 0, retry_wait = 0"
                other = "SELECT id FROM jobs WHERE study = ? AND state = 'waiting'"
                if has_results:
                    db.execute(f"UPDATE jobs SET state = 'sending', {change} WHERE id = ?", (number,))
                elif waiting := db.execute(other, (row["study"],)).fetchone():
                    db.execute("UPDATE instances SET job = ? WHERE job = ?", (waiting["id"], number))
                    db.execute("DELETE FROM jobs WHERE id = ?", (number,))
                else:
                    db.execute(f"UPDATE jobs SET state = 'waiting', {change} WHERE id = ?", (number,))
        return len(parked)

    def recover(self, max_attempts: int) -> None:
        """
        Put jobs back that a worker was at when it ended; call it when no worker runs.

        Args:
            max_attempts: a job that was begun so often is parked, for it may be what ends the worker.
        """
        for row in self.rows("SELECT id, attempts FROM jobs WHERE state = 'running'"):
            if row["attempts"] >= max_attempts:
                self.park(row["id"], f"the worker ended {row['attempts']} times during this study.")
                continue
            with self.transaction() as db:
                back_to_waiting(db, row["id"])

    def removed(self, job: int) -> None:
        """Note that the files of a job are gone."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET removed = 1 WHERE id = ?", (job,))


def _wait(db: sqlite3.Connection, job: int, seconds: float) -> None:
    tries = db.execute("SELECT tries FROM jobs WHERE id = ?", (job,)).fetchone()["tries"]
    wait = min(600.0, seconds * 2 ** min(tries, 20))
    change = "tries = tries + 1, retry_tick = ?, retry_wait = ?"
    db.execute(f"UPDATE jobs SET {change} WHERE id = ?", (time.monotonic(), wait, job))


def back_to_waiting(db: sqlite3.Connection, job: int) -> None:
    """
    Let a job wait again, with the images of its study that came meanwhile.

    Args:
        db: within a transaction.
        job: number of the job.
    """
    other = "SELECT id FROM jobs WHERE state = 'waiting' AND study = (SELECT study FROM jobs WHERE id = ?)"
    if waiting := db.execute(other, (job,)).fetchone():
        db.execute("UPDATE instances SET job = ? WHERE job = ?", (job, waiting["id"]))
        db.execute("DELETE FROM jobs WHERE id = ?", (waiting["id"],))
    db.execute("UPDATE jobs SET state = 'waiting' WHERE id = ?", (job,))
