# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person does with past studies: have them computed again, or removed."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Sequence

from bundle.service.job_queue import JobQueue, back_to_waiting
from bundle.service.settings import Settings

__all__ = ["chosen_jobs", "purge", "reprocess"]


def chosen_jobs(
    queue: JobQueue,
    jobs: Sequence[int] = (),
    study: str = "",
    state: str | None = None,
    older_than: float | None = None,
    newer_than: float | None = None,
) -> list[int]:
    """
    Return the numbers of the jobs that all conditions are true of.

    Args:
        queue: where the jobs are.
        jobs: their numbers; any if empty.
        study: Study Instance UID; any if empty.
        state: that they are in; any if ``None``.
        older_than: days since the last image came, at least.
        newer_than: days since the last image came, at most.

    Raises:
        ValueError: When there is no condition, which would mean every study.
    """
    if not jobs and not study and state is None and older_than is None and newer_than is None:
        raise ValueError("jobs, a study, a state or an age must be given; every study is too much.")
    words: list[str] = ["1"]
    values: list[object] = []
    for word, value in (("study = ?", study or None), ("state = ?", state)):
        if value is not None:
            words.append(word)
            values.append(value)
    now = time.time()
    for word, days in (("last_at <= ?", older_than), ("last_at >= ?", newer_than)):
        if days is not None:
            words.append(word)
            values.append(now - days * 86400)
    found = [row["id"] for row in queue.rows(f"SELECT id FROM jobs WHERE {' AND '.join(words)} ORDER BY id", *values)]
    return [job for job in found if not jobs or job in jobs]


def reprocess(settings: Settings, queue: JobQueue, jobs: Sequence[int]) -> int:
    """
    Let jobs be computed again, by the models and settings of now; their new results get new UIDs.

    Results that were sent stay where they are. A job whose images were removed, or that waits or runs, is left out.

    Args:
        settings: of the service.
        queue: where the jobs are.
        jobs: their numbers.

    Returns:
        how many jobs start again; jobs of the same study become one.
    """
    count = 0
    for job in jobs:
        with queue.transaction() as db:
            which = "id = ? AND removed = 0 AND state IN ('sending', 'done', 'parked')"
            if not db.execute(f"SELECT 1 FROM jobs WHERE {which}", (job,)).fetchone():
                continue
            _forget_results(db, job)
            back_to_waiting(db, job)
            db.execute(
                "UPDATE jobs SET attempts = 0, tries = 0, retry_wait = 0, reason = '', started_at = NULL, "
                "computed_at = NULL, finished_at = NULL WHERE id = ?",
                (job,),
            )
        shutil.rmtree(settings.state_dir / "jobs" / str(job), ignore_errors=True)
        count += 1
    return count


def purge(settings: Settings, queue: JobQueue, jobs: Sequence[int]) -> int:
    """
    Remove jobs with their images, results and rows, so that their images are new when they come again.

    What readers said (``feedback``) and what was sent stays. A job that runs is left out.

    Args:
        settings: of the service.
        queue: where the jobs are.
        jobs: their numbers.

    Returns:
        how many were removed.
    """
    count = 0
    for job in jobs:
        with queue.transaction() as db:  # from here on nobody begins it; a purge that is killed can be repeated
            change = "UPDATE jobs SET state = 'parked', reason = 'this job is being removed.' "
            if not db.execute(f"{change} WHERE id = ? AND state != 'running'", (job,)).rowcount:
                continue
        for image in queue.rows("SELECT file FROM instances WHERE job = ?", job):
            (settings.state_dir / "images" / image["file"]).unlink(missing_ok=True)
        shutil.rmtree(settings.state_dir / "jobs" / str(job), ignore_errors=True)
        with queue.transaction() as db:
            _forget_results(db, job)
            study = db.execute("SELECT study FROM jobs WHERE id = ?", (job,)).fetchone()["study"]
            db.execute("DELETE FROM instances WHERE job = ?", (job,))
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))
            if not db.execute("SELECT 1 FROM jobs WHERE study = ?", (study,)).fetchone():
                db.execute("DELETE FROM scores WHERE study = ?", (study,))
        count += 1
    return count


def _forget_results(db: sqlite3.Connection, job: int) -> None:
    db.execute("DELETE FROM deliveries WHERE uid IN (SELECT uid FROM results WHERE job = ?)", (job,))
    db.execute("DELETE FROM results WHERE job = ?", (job,))
