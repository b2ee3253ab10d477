# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The worklist as a local web page: each job's state, overlays and report, and where allowed the reader's word."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, redirect, render_template, request, send_file, url_for
from jinja2 import StrictUndefined
from waitress import create_server
from werkzeug.wrappers import Response as AnyResponse

from bundle.reading.reader import RadiologyReader
from bundle.results.overlays import image_layer
from bundle.results.records import NOTICE, sentences
from bundle.results.report.page import TEMPLATES
from bundle.results.tables import read_predictions
from bundle.service.audit import AuditLog
from bundle.service.feedback import Feedback, finding_names, predicted_boxes, predicted_findings, says_something
from bundle.service.job_queue import STATES, JobQueue
from bundle.service.settings import Page, Settings
from bundle.service.settings_check import LOOPBACK

__all__ = ["make_page", "page_address", "serve_page"]

logger = logging.getLogger(__name__)

_COOKIE = "bundle_page"
_SESSIONS = 1000  # the oldest are forgotten
_SHOWN = 100  # jobs on one page
_SIDE = 1024  # pixels of an image that is shown
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# the report has its script and style inside, so it gets an origin of its own and can ask for nothing
_REPORT_POLICY = (
    "sandbox allow-scripts allow-forms; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def page_address(settings: Settings, reader: str = "") -> str:
    """
    Return the address that opens the page; it holds a key, so that other users of the machine stay out.

    Args:
        settings: of the service; a page is among them.
        reader: whose address it is, one of the settings' readers; empty where they name none.
    """
    page = settings.page or Page()
    host = f"[{page.host}]" if ":" in page.host else page.host
    return f"http://{host}:{page.port}/?key={_key(_secret(settings.state_dir), reader)}"


def serve_page(settings: Settings, queue: JobQueue, stop: threading.Event) -> None:
    """
    Show the page until told to stop.

    Args:
        settings: of the service; a page is among them.
        queue: what to show.
        stop: set by someone else.
    """
    page = settings.page or Page()
    # connections that are left half open are ended, and many of them keep nobody else out
    limits: dict[str, Any] = {"threads": 4, "connection_limit": 1000, "channel_timeout": 30}
    server = create_server(make_page(settings, queue), host=page.host, port=page.port, ident=None, **limits)
    threading.Thread(target=server.run, daemon=True).start()
    logger.info("the page is shown on port %d of %s", page.port, page.host)
    stop.wait()
    server.close()


def make_page(settings: Settings, queue: JobQueue) -> Flask:
    """
    Return the page as a WSGI application.

    Nobody gets in without the key of :py:func:`page_address`, which begins a session that a cookie names; only
    addresses of the loopback are answered, so no other site's name can be pointed here; what is posted needs a token
    that other sites cannot read.

    Args:
        settings: of the service.
        queue: what to show.
    """
    secret = _secret(settings.state_dir)
    token, page = _derived(secret, "form"), settings.page or Page()
    keys = {_key(secret, reader): reader for reader in page.readers or ("",)}
    sessions: dict[str, str] = {}  # reader by the cookie's word
    cookie = f"{_COOKIE}_{page.port}"  # browsers send cookies to every port of a host
    audit = AuditLog(settings.state_dir, "page", settings.audit)
    allowed = settings.page is not None and settings.page.feedback
    feedback = Feedback(settings.state_dir / "feedback", _derived(secret, "patient")) if allowed else None
    results = _Results(settings, queue)
    app = Flask("bundle.service", static_folder="page_files", static_url_path="/page_files")
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.filters["seconds"] = _seconds
    app.jinja_env.globals.update(notice=NOTICE, states=STATES)
    app.config.update(TRUSTED_HOSTS=[*LOOPBACK, "[::1]"], MAX_CONTENT_LENGTH=2**17)

    @app.before_request
    def check_key() -> AnyResponse | None:
        if request.endpoint in ("static", "theme"):
            return None
        given = request.args.get("key", "").encode()
        found = [reader for key, reader in keys.items() if hmac.compare_digest(given, key.encode())]
        if found:
            session = secrets.token_hex(32)
            while len(sessions) >= _SESSIONS:
                del sessions[next(iter(sessions))]
            sessions[session] = found[0]
            audit.write("page opened", reader=found[0], address=request.remote_addr)
            answer = redirect(url_for("worklist"))
            answer.set_cookie(cookie, session, httponly=True, samesite="Strict")
            return answer
        if request.cookies.get(cookie, "") not in sessions:
            if given:
                audit.write("page refused", address=request.remote_addr)
            abort(403, "Open the address that `python -m bundle.service page --address` prints.")
        return None

    @app.after_request
    def add_headers(answer: Response) -> Response:
        answer.headers.setdefault("Content-Security-Policy", _POLICY)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        answer.headers["Cache-Control"] = "no-store"  # images of patients
        return answer

    @app.get("/theme.css")
    def theme() -> Response:
        return send_file(TEMPLATES / "theme.css")

    @app.get("/")
    def worklist() -> str:
        state, given = request.args.get("state", ""), request.args.get("before")
        if state not in ("", *STATES):
            abort(400, f"state must be one of {', '.join(STATES)}.")
        if given is not None and not (given.isascii() and given.isdigit() and len(given) < 19):
            abort(400, "before must be the number of a study.")
        before = None if given is None else int(given)
        counts = {row["state"]: row["n"] for row in queue.rows("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state")}
        query = (
            "SELECT *, (SELECT COUNT(*) FROM instances WHERE job = jobs.id) AS images, "
            "(SELECT COUNT(*) FROM results WHERE job = jobs.id) AS results FROM jobs "
            "WHERE (? = '' OR state = ?) AND (? IS NULL OR id < ?) ORDER BY id DESC LIMIT ?"
        )
        jobs = queue.rows(query, state, state, before, before, _SHOWN + 1)
        words = {"counts": counts, "state": state, "before": before, "more": len(jobs) > _SHOWN, "now": time.time()}
        shifts = queue.rows("SELECT model, sentence FROM shifts ORDER BY model")
        return render_template("worklist.html", jobs=jobs[:_SHOWN], shifts=shifts, **words)

    @app.get("/jobs/<int:job>")
    def show_job(job: int) -> str:
        return render_template(
            "job.html",
            job=results.job(job),
            models=results.models(job),
            predicted=predicted_findings,
            says_something=says_something,
            remarks=sentences,
            names=finding_names,
            boxes=predicted_boxes,
            feedback={} if feedback is None else feedback.of_job(job),
            token=token if feedback is not None else "",
            now=time.time(),
        )

    @app.get("/jobs/<int:job>/<model>/report")
    def report(job: int, model: str) -> Response:
        answer = send_file(results.file(job, model, "report.html"), mimetype="text/html")
        answer.headers["Content-Security-Policy"] = _REPORT_POLICY
        return answer

    @app.get("/jobs/<int:job>/<model>/<key>/overlay.png")
    def overlay(job: int, model: str, key: str) -> Response:
        name = results.record(job, model, key)["files"].get("overlay") or abort(404)
        return send_file(results.file(job, model, name), mimetype="image/png")

    @app.get("/jobs/<int:job>/<model>/<key>/image.png")
    def image(job: int, model: str, key: str) -> Response:
        record = results.record(job, model, key)
        path = results.source(job, record["source"])
        try:
            values, _ = RadiologyReader(secret="").get_data([f"{path}#frame={record['frame']}"])
        except (ValueError, OSError):
            abort(404)
        stream = BytesIO()
        image_layer(values.transpose(1, 2, 0), _SIDE).save(stream, "PNG")
        stream.seek(0)
        return send_file(stream, mimetype="image/png")

    @app.post("/jobs/<int:job>/<model>/<key>/feedback")
    def file_feedback(job: int, model: str, key: str) -> AnyResponse:
        if feedback is None:
            abort(403, "This page only shows.")
        if not hmac.compare_digest(request.form.get("token", "").encode(), token.encode()):
            abort(403, "The form was not this page's.")
        record = results.record(job, model, key)
        try:
            boxes = json.loads(request.form.get("boxes") or "[]")
            if not isinstance(boxes, list):
                raise ValueError("boxes must be a list.")
            weights = results.predictions(job, model)["algorithm"].get("weights_sha256") or ""
            source = results.source(job, record["source"])
            words = {"findings": request.form.getlist("finding"), "boxes": boxes}
            reader, verdict = sessions[request.cookies[cookie]], request.form.get("verdict", "")
            feedback.add(job, model, weights, record, source, verdict, **words, reader=reader)
            audit.write("feedback", reader=reader, job=job, model=model, image=key, verdict=verdict)
        except (ValueError, RecursionError) as error:
            abort(400, str(error))
        return redirect(url_for("show_job", job=job) + f"#{model}-{key}", 303)

    return app


class _Results:
    """Find the files of jobs by names that come from a browser: each name is looked up, none is joined to a path."""

    def __init__(self, settings: Settings, queue: JobQueue) -> None:
        self._state_dir, self._queue = settings.state_dir, queue

    def job(self, job: int) -> Any:
        found = self._queue.rows("SELECT * FROM jobs WHERE id = ?", job) if job < 2**63 else []
        return found[0] if found else abort(404)

    def models(self, job: int) -> dict[str, dict]:
        """Return what ``predictions.json`` says, by the name of the model."""
        folder = self._state_dir / "jobs" / str(job)
        names = sorted(path.parent.name for path in folder.glob("*/predictions.json"))
        found = {}
        for name in names:
            try:
                found[name] = read_predictions(folder / name / "predictions.json")
            except (ValueError, OSError, KeyError, TypeError) as error:  # the other models' are worth showing
                logger.error("job %d: the results of %s cannot be read: %s", job, name, type(error).__name__)
        return found

    def predictions(self, job: int, model: str) -> dict:
        return self.models(job).get(model) or abort(404)

    def record(self, job: int, model: str, key: str) -> dict:
        found = [record for record in self.predictions(job, model)["images"] if record["key"] == key]
        return found[0] if found else abort(404)

    def file(self, job: int, model: str, name: str) -> Path:
        self.predictions(job, model)  # then the model is a folder of this job
        path = self._state_dir.resolve() / "jobs" / str(job) / model / name
        return path if path.is_file() else abort(404)

    def source(self, job: int, name: str) -> Path:
        for row in self._queue.rows("SELECT file FROM instances WHERE job = ?", job):
            path = self._state_dir / "images" / row["file"]
            if path.name == name and path.is_file():
                return path
        return abort(404)


def _secret(state_dir: Path) -> str:
    """Return the secret of a state folder, made when it is asked for first."""
    path = state_dir / "secret"
    if not path.exists():
        partial = path.with_name(f"secret-{secrets.token_hex(4)}")
        partial.touch(mode=0o600)
        partial.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):  # another process was quicker
            path.hardlink_to(partial)
        partial.unlink()
    return path.read_text()


def _key(secret: str, reader: str) -> str:
    return _derived(secret, f"page {reader}" if reader else "page")


def _derived(secret: str, purpose: str) -> str:
    return hmac.new(secret.encode(), purpose.encode(), "sha256").hexdigest()


def _seconds(value: float | None) -> str:
    """Return a time span in words."""
    if value is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"
