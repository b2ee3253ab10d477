# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""``/healthz`` for whoever watches over the service, and ``/metrics`` for Prometheus; neither names a patient."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector
from waitress import create_server

from bundle.service.job_queue import STATES, JobQueue
from bundle.service.readiness import expected_roles, service_problems
from bundle.service.settings import Health, Settings
from bundle.service.state_lock import runs

__all__ = ["ServiceCollector", "make_health", "serve_health"]

logger = logging.getLogger(__name__)
_RECENT = 50  # jobs whose time is averaged


class ServiceCollector(Collector):
    """
    Metrics of the service, read from its queue whenever they are asked for.

    Args:
        settings: of the service.
        queue: of the service.
    """

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._settings, self._queue = settings, queue

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each metric."""
        counts = {row["state"]: row["n"] for row in self._rows("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state")}
        jobs = GaugeMetricFamily("bundle_jobs", "Jobs by state.", labels=["state"])
        for state in STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        (row,) = self._rows("SELECT MIN(last_at) AS at FROM jobs WHERE state IN ('waiting', 'running', 'sending')")
        age = 0.0 if row["at"] is None else max(0.0, time.time() - row["at"])
        words = "Time since the last image of the oldest job that is not answered."
        yield GaugeMetricFamily("bundle_oldest_open_job_seconds", words, value=age)
        (row,) = self._rows("SELECT MAX(finished_at) AS at FROM jobs WHERE state = 'done'")
        words = "Unix time at which the last job was done, 0 if none was."
        yield GaugeMetricFamily("bundle_last_success_timestamp_seconds", words, value=row["at"] or 0)
        (row,) = self._rows(
            "SELECT AVG(seconds) AS mean FROM (SELECT computed_at - started_at AS seconds FROM jobs "
            f"WHERE computed_at >= started_at ORDER BY computed_at DESC LIMIT {_RECENT})"
        )
        words = f"Time to compute a job, mean of the last {_RECENT}."
        yield GaugeMetricFamily("bundle_job_seconds", words, value=row["mean"] or 0)
        free = shutil.disk_usage(self._settings.state_dir).free
        yield GaugeMetricFamily("bundle_disk_free_bytes", "Free space on the disk of state_dir.", value=free)
        up = GaugeMetricFamily("bundle_up", "1 for a process that runs.", labels=["process"])
        for role in expected_roles(self._settings):
            up.add_metric([role], int(runs(self._settings.state_dir, role)))
        yield up

    def _rows(self, query: str) -> list[Any]:
        return self._queue.rows(query)


def make_health(settings: Settings, queue: JobQueue) -> Callable[..., Iterable[bytes]]:
    """
    Return a WSGI application with ``/healthz`` (200, or 503 with the reasons) and ``/metrics``.

    Args:
        settings: of the service.
        queue: of the service.
    """
    registry = CollectorRegistry()
    registry.register(ServiceCollector(settings, queue))
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        status, lines = "404 Not Found", ["Ask for /healthz or /metrics."]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, lines = "405 Method Not Allowed", ["Only GET is known."]
        elif environ["PATH_INFO"] == "/healthz":
            problems = service_problems(settings)
            status = "503 Service Unavailable" if problems else "200 OK"
            lines = problems or ["well"]
            if parked := queue.rows("SELECT COUNT(*) AS n FROM jobs WHERE state = 'parked' AND removed = 0")[0]["n"]:
                lines = [*lines, f"{parked} jobs are parked."]
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
        return ["".join(f"{line}\n" for line in lines).encode()]

    return answer


def serve_health(settings: Settings, queue: JobQueue, stop: threading.Event) -> None:
    """
    Answer until told to stop.

    Args:
        settings: of the service.
        queue: of the service.
        stop: set by someone else.
    """
    health = settings.health or Health()
    server = create_server(make_health(settings, queue), host=health.host, port=health.port, threads=2, ident=None)
    threading.Thread(target=server.run, daemon=True).start()
    logger.info("/healthz and /metrics are on port %d of %s", health.port, health.host)
    stop.wait()
    server.close()
