# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The service as processes: one listens, one computes, one shows the page; one that ends is started again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from bundle.service.job_queue import JobQueue
from bundle.service.settings import Settings
from bundle.service.state_lock import locked_role

__all__ = ["answer_health", "listen", "open_queue", "show_page", "supervise", "until_told", "work"]

logger = logging.getLogger(__name__)
_STEADY = 30.0  # seconds after which a process counts as running well


def open_queue(settings: Settings) -> JobQueue:
    """
    Return the queue in the state folder, which is for its owner alone, since it holds images of patients.

    Args:
        settings: of the service.

    Raises:
        PermissionError: When others may enter the folder and this user cannot change that.
    """
    folder = settings.state_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:  # it was there before
        try:
            folder.chmod(0o700)
        except OSError as error:
            message = f"state_dir must be for its owner alone, '{folder}' is not: {error.strerror}."
            raise PermissionError(message) from None
    return JobQueue(folder / "queue.sqlite")


def listen(settings: Settings, stop: threading.Event) -> None:
    """Accept images, and watch a folder where the settings name one, until told to stop."""
    from bundle.service.intake import Intake
    from bundle.service.listener import Listener

    threading.excepthook = _say_what_ended  # pynetdicom's threads end so when a caller breaks the protocol
    queue = open_queue(settings)
    with locked_role(settings.state_dir, "listen"):
        intake = Intake(settings, queue)
        listener = Listener(settings, intake)
        listener.start()
        try:
            if settings.watch is not None:
                from bundle.service.watch import watch_folder

                watch_folder(settings.watch, intake, settings.quiet_seconds, stop)
            stop.wait()
        finally:
            listener.stop()  # or its callers would keep the process from ending after an error


def work(settings: Settings, stop: threading.Event) -> None:
    """Load the models and answer studies until told to stop."""
    from bundle.service.worker import Worker
    from bundle.service.workflow import WarmWorkflow

    queue = open_queue(settings)
    with locked_role(settings.state_dir, "work"):
        workflows = [WarmWorkflow(model, settings.state_dir / "scratch") for model in settings.models]
        sys.excepthook = sys.__excepthook__  # a workflow of the command line prints its errors in one line
        for library in ("ignite", "monai"):  # they tell of each study what we tell in one line
            logging.getLogger(library).setLevel(logging.CRITICAL)
        logger.info("models are loaded: %s", ", ".join(workflow.name for workflow in workflows))
        Worker(settings, queue, workflows).run(stop)


def show_page(settings: Settings, stop: threading.Event) -> None:
    """Show the worklist until told to stop."""
    from bundle.service.page import serve_page

    queue = open_queue(settings)
    with locked_role(settings.state_dir, "page"):
        serve_page(settings, queue, stop)


def answer_health(settings: Settings, stop: threading.Event) -> None:
    """Answer ``/healthz`` and ``/metrics`` until told to stop."""
    from bundle.service.health import serve_health

    serve_health(settings, open_queue(settings), stop)


def until_told(role: Callable[[Settings, threading.Event], None], settings: Settings) -> None:
    """
    Run a role until SIGTERM, SIGINT, or the end of the process that started this one.

    Args:
        role: such as :py:func:`listen`.
        settings: of the service.
    """
    warnings.simplefilter("ignore")  # pydicom's hold values from inside the images
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()

    def leave_with_parent() -> None:
        while not stop.wait(1):
            if os.getppid() != parent:  # killed, so nobody would end us
                stop.set()

    threading.Thread(target=leave_with_parent, daemon=True).start()
    role(settings, stop)


def supervise(config: Path, roles: list[str]) -> None:
    """
    Run each role as a process and start it again when it ends, later and later if it ends soon.

    Args:
        config: settings file.
        roles: sub-commands of this program.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = [threading.Thread(target=_keep_running, args=(role, config, stop)) for role in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _say_what_ended(what: threading.ExceptHookArgs) -> None:
    logger.warning("a connection ended in %s", what.exc_type.__name__)


def _keep_running(role: str, config: Path, stop: threading.Event) -> None:
    delay = 1.0
    while not stop.is_set():
        started = time.monotonic()
        child = subprocess.Popen([sys.executable, "-m", "bundle.service", role, "--config", str(config)])
        while child.poll() is None and not stop.wait(0.2):
            pass
        if stop.is_set():
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
            return
        delay = 1.0 if time.monotonic() > started + _STEADY else min(60.0, delay * 2)
        logger.error("'%s' ended with %s and is started again in %.0f s", role, child.returncode, delay)
        stop.wait(delay)
