# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a complete study to its results: one process, the models loaded once, sending in a thread beside them."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bundle.service.job_queue import JobQueue
from bundle.service.passing import check_room, passing_cause
from bundle.service.sender import send_job
from bundle.service.settings import Settings
from bundle.service.shift_watch import ShiftWatch
from bundle.service.workflow import WarmWorkflow, WorkflowError

__all__ = ["Worker"]

logger = logging.getLogger(__name__)
_PAUSE = 0.2  # seconds between two looks at the queue
_LOCKED = 300.0  # seconds that another program may lock the queue for
_RESULTS = 4  # bytes of results for each byte of an image, roughly


class Worker:
    """
    Answer the jobs of a queue.

    Args:
        settings: of the service.
        queue: where the jobs are; no other worker may use it.
        workflows: one for each model.
    """

    def __init__(self, settings: Settings, queue: JobQueue, workflows: Sequence[WarmWorkflow]) -> None:
        self._settings, self._queue, self._workflows = settings, queue, workflows
        self._shifts = ShiftWatch(queue)

    def run(self, stop: threading.Event) -> None:
        """
        Work until told to stop; a job that is begun is ended first.

        An error of the queue in computing or sending ends both, so that the process ends and is started again.

        Args:
            stop: set by someone else, or here after an error.
        """
        self._queue.recover(self._settings.max_attempts)
        with ThreadPoolExecutor(1, "sender") as threads:
            sender = threads.submit(self._send_all, stop)
            sender.add_done_callback(lambda _: stop.set())
            try:
                self._compute_all(stop)
            finally:
                stop.set()
        sender.result()

    def step(self) -> bool:
        """Compute the next complete job; return whether there was one."""
        job = self._queue.claim(self._settings.quiet_seconds)
        if job is None:
            return False
        try:
            self._compute(job)
        except Exception as error:  # the next study may go well
            passes = passing_cause(error)
            if passes is not None:
                logger.warning("job %d is computed later: %s", job, passes)
                self._insist(lambda: self._queue.defer(job, self._settings.retry_seconds, passes))
            else:
                logger.error("job %d is parked: %s", job, type(error).__name__)
                reason = f"unexpected {type(error).__name__}, see the log for what came before."
                self._insist(lambda: self._queue.park(job, reason))
        return True

    def _insist(self, change: Callable[[], None]) -> None:
        """Change the queue, though it may be locked for a while; otherwise the start would count against the study."""
        until = time.monotonic() + _LOCKED
        while True:
            try:
                return change()
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)

    def _check_room(self, files: Sequence[Path]) -> None:
        """Refuse to compute where the results may not fit on the disk."""
        size = sum(file.stat().st_size for file in files if file.is_file())
        check_room(self._settings.state_dir, self._settings.min_free_bytes, _RESULTS * size)

    def _alarm(self) -> None:
        """Say how many jobs wait for a person."""
        (row,) = self._queue.rows("SELECT COUNT(*) AS n FROM jobs WHERE state = 'parked' AND removed = 0")
        if row["n"]:
            logger.error("%d jobs are parked and get no answer; `jobs --state parked` says why", row["n"])

    def _compute_all(self, stop: threading.Event) -> None:
        cleaned = 0.0
        while not stop.is_set():
            if not self.step() and not stop.wait(_PAUSE) and time.monotonic() > cleaned + 3600:
                self._remove_old()
                self._alarm()
                cleaned = time.monotonic()

    def _compute(self, job: int) -> None:
        images = self._queue.rows("SELECT file, modality FROM instances WHERE job = ?", job)
        self._check_room([self._settings.state_dir / "images" / row["file"] for row in images])
        study = self._queue.rows("SELECT study FROM jobs WHERE id = ?", job)[0]["study"]
        results, notes, asked, answered = [], [], 0, 0
        for workflow in self._workflows:
            root = self._settings.state_dir / "images"
            files = [root / row["file"] for row in images if workflow.takes(row["modality"])]
            if not files:
                continue
            asked += 1
            folder = self._settings.state_dir / "jobs" / str(job) / workflow.name
            try:
                produced = workflow.run(files, folder)
            except WorkflowError as error:
                self._check_room(files)
                notes.append(f"{workflow.name}: {error}")
                continue
            if produced.failures:  # a full disk is a reason that passes, whatever the lines say
                self._check_room(files)
            self._shifts.add(workflow.name, produced.weights, study, produced.images, workflow.remarks)
            notes += [f"{workflow.name}: {reason}" for reason in produced.failures]
            answered += bool(produced.results)
            for uid, kind, file in produced.results:
                results.append((uid, workflow.name, kind, str(file.relative_to(self._settings.state_dir))))
        if not asked:
            modalities = ", ".join(sorted({row["modality"] or "none" for row in images}))
            notes.append(f"no model is for images of modality {modalities}.")
        if answered:
            logger.info("job %d: %d images, %d results", job, len(images), len(results))
            self._queue.computed(job, results, " ".join(notes))
        else:
            logger.error("job %d is parked: %s", job, " ".join(notes))
            self._queue.park(job, " ".join(notes) or "no model gave a result.")

    def _send_all(self, stop: threading.Event) -> None:
        while not stop.is_set():
            job = self._queue.next_to_send()
            if job is None:
                stop.wait(_PAUSE)
                continue
            try:
                send_job(job, self._settings, self._queue)
            except Exception as error:  # what one job meets must not stop the others
                logger.error("job %d: sending ended in %s", job, type(error).__name__)
                self._queue.postpone(job, self._settings.retry_seconds)

    def _remove_old(self) -> None:
        """Remove images and results of jobs that were done or parked long ago; that they came stays known."""
        if not self._settings.keep_days:
            return
        before = time.time() - self._settings.keep_days * 86400
        for row in self._queue.rows(
            "SELECT id FROM jobs WHERE state IN ('done', 'parked') AND removed = 0 "
            "AND COALESCE(finished_at, last_at) < ?",
            before,
        ):
            for image in self._queue.rows("SELECT file FROM instances WHERE job = ?", row["id"]):
                (self._settings.state_dir / "images" / image["file"]).unlink(missing_ok=True)
            shutil.rmtree(self._settings.state_dir / "jobs" / str(row["id"]), ignore_errors=True)
            self._queue.removed(row["id"])
