# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

# tensors here are tiny: on a busy machine several threads wait for each other up to ten times longer than they work
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips-in", type=Path, help="fail when a test skips for a reason that this file does not list")


class ExpectedSkips:
    """
    End a run with an error when a test skips whose reason is in no list.

    Args:
        path: a reason a line, its first words are enough; ``#`` begins a comment.
    """

    def __init__(self, path: Path) -> None:
        lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
        self.expected, self.other = tuple(line for line in lines if line), set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not reason.startswith(self.expected):
                self.other.add(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.other:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for line in sorted(self.other):
            terminalreporter.write_line(f"a skip that --skips-in does not list: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--skips-in")
    if path is not None and not hasattr(config, "workerinput"):  # the workers' reports reach the first process
        config.pluginmanager.register(ExpectedSkips(path))
