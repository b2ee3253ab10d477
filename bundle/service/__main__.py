# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
A DICOM node that answers studies with SR, SEG and secondary capture. Research use only. Not for diagnosis.

docs/service.md describes the settings file.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import sys
from pathlib import Path

from bundle.service.audit import AuditLog
from bundle.service.job_queue import STATES
from bundle.service.processes import answer_health, listen, open_queue, show_page, supervise, until_told, work
from bundle.service.readiness import expected_roles
from bundle.service.settings import Settings, load_settings
from bundle.service.upkeep import chosen_jobs, purge, reprocess

__all__ = ["main"]

_ROLES = {"listen": listen, "work": work, "page": show_page, "health": answer_health}


def main(arguments: list[str] | None = None) -> None:
    """
    Parse the command line and run.

    Args:
        arguments: of the command line, those of this process if ``None``.
    """
    parser = argparse.ArgumentParser(prog="python -m bundle.service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, required=True, help="settings file (YAML)")
    for name, words in {
        "run": "everything, each part in its own process",
        "listen": "only accept images",
        "work": "only compute and send results",
        "health": "only answer /healthz and /metrics",
    }.items():
        commands.add_parser(name, parents=[common], help=words)
    fetch = commands.add_parser("pull", parents=[common], help="get images from a source; the service must run")
    fetch.add_argument("--source", required=True, help="its name in the settings")
    fetch.add_argument("--dates", default="", help="study dates, such as 20261101-20261130")
    fetch.add_argument("--study", default="", help="Study Instance UID")
    fetch.add_argument("--modalities", nargs="+", default=["CR", "DX", "MG", "US"])
    page = commands.add_parser("page", parents=[common], help="only show the worklist in a local web page")
    page.add_argument("--address", action="store_true", help="print the address to open, with its key, and end")
    listing = commands.add_parser("jobs", parents=[common], help="list jobs")
    listing.add_argument("--state", choices=STATES, help="only those in this state")
    again = commands.add_parser("retry", parents=[common], help="give parked jobs another start")
    again.add_argument("job", type=int, nargs="*", help="numbers of jobs; all parked jobs if none is given")
    for name, words in {
        "reprocess": "compute past jobs again, by the models and settings of now; results get new UIDs",
        "purge": "remove jobs with their images, results and rows",
    }.items():
        command = commands.add_parser(name, parents=[common], help=words)
        command.add_argument("job", type=int, nargs="*", help="numbers of jobs; any if none is given")
        command.add_argument("--study", default="", help="Study Instance UID")
        command.add_argument("--state", choices=STATES, help="only those in this state")
        command.add_argument("--older-than", type=float, metavar="DAYS", help="days since the last image came")
        command.add_argument("--newer-than", type=float, metavar="DAYS", help="days since the last image came")
    args = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format=f"%(asctime)s {args.command} %(levelname)s %(message)s"
    )
    try:
        _run(args, load_settings(args.config))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _run(args: argparse.Namespace, settings: Settings) -> None:
    if args.command == "run":
        supervise(args.config, expected_roles(settings) + (["health"] if settings.health is not None else []))
    elif args.command == "page" and args.address:
        from bundle.service.page import page_address

        open_queue(settings).close()  # makes the state folder
        readers = settings.page.readers if settings.page is not None else ()
        for reader in readers or ("",):
            sys.stdout.write(f"{reader + ': ' if reader else ''}{page_address(settings, reader)}\n")
    elif args.command == "pull":
        from bundle.service.pull import Wanted, pull

        pulled = pull(settings, open_queue(settings), args.source, Wanted(args.dates, args.study, args.modalities))
        sys.stdout.write(f"{pulled.new} images are new, {pulled.known} were known, {pulled.refused} were refused\n")
    elif args.command in _ROLES:
        until_told(_ROLES[args.command], settings)
    elif args.command in ("reprocess", "purge"):
        queue = open_queue(settings)
        jobs = chosen_jobs(queue, args.job, args.study, args.state, args.older_than, args.newer_than)
        audit = AuditLog(settings.state_dir, "commands", settings.audit)
        audit.write(args.command, user=getpass.getuser(), jobs=jobs)
        if args.command == "purge":
            sys.stdout.write(f"{purge(settings, queue, jobs)} of {len(jobs)} jobs are removed\n")
        else:
            sys.stdout.write(f"{reprocess(settings, queue, jobs)} of {len(jobs)} jobs start again\n")
    elif args.command == "jobs":
        _list_jobs(settings, args.state)
    else:
        queue = open_queue(settings)
        count = sum(queue.retry(job) for job in args.job) if args.job else queue.retry()
        sys.stdout.write(f"{count} jobs start again\n")


def _list_jobs(settings: Settings, state: str | None) -> None:
    query = (
        "SELECT id, state, peer, attempts, reason, (SELECT COUNT(*) FROM instances WHERE job = jobs.id) AS images, "
        "(SELECT COUNT(*) FROM results WHERE job = jobs.id) AS results FROM jobs"
    )
    where = "" if state is None else " WHERE state = ?"
    sys.stdout.write("job  state    images results from              reason\n")
    for row in open_queue(settings).rows(f"{query}{where} ORDER BY id", *([] if state is None else [state])):
        line = f"{row['id']:<4} {row['state']:<8} {row['images']:>6} {row['results']:>7} {row['peer']:<17} "
        sys.stdout.write(f"{line}{row['reason']}\n")


if __name__ == "__main__":
    main()
