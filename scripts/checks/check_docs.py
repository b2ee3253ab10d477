# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Run every command of README.md and docs/*.md, in the order of the pages, on small synthetic data.

    python scripts/checks/check_docs.py                            # all pages
    python scripts/checks/check_docs.py --pages docs/model.md      # only this one
    python scripts/checks/check_docs.py --dry_run                  # only say what would run

Commands are what stands in blocks fenced as bash, console or python. ``check_docs.yaml`` says what the pages'
placeholders (DIR, OUT, ...) stand for, and which flags make a command small; a command that it does not know is an
error. A block that cannot be run here has ``<!-- not run: reason -->`` on the line before it; there are at most eight.

Everything happens in a copy of the repository in a temporary folder, with a home and virtual environments of its own
on top of the one that runs this script, so that the pages' ``pip install`` lines run as well. They need a package
index; ``--offline`` leaves them out, with what needs their packages. Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
TABLE = Path(__file__).with_name("check_docs.yaml")
MOST_MARKERS = 8
COMMANDS = ("bash", "console", "python")
_FENCE = re.compile(r"^\s*```(\w*)")
_NEXT = re.compile(r"next: (python .*)")  # how a training ends
_MARKER = re.compile(r"^\s*<!-- not run:\s*(.*?)\s*-->\s*$")
_CODE = re.compile(r"""((?:'[^']*'|"[^"]*"|[^'"#]|(?<=\S)#)*)""")  # of a line, up to a comment
_LOOKS_LIKE_ONE = re.compile(
    r"^\s*(\$ )?([A-Z_]+=\S+ )?(python3?|make|pip|torchrun|srun|source|monailabel|docker|git|curl|cd) "
)


class Block(NamedTuple):
    """A fenced block: its page, the line of its first fence, its language, its lines, and why it is not run."""

    page: str
    line: int
    language: str
    lines: list[str]
    reason: str | None


class Command(NamedTuple):
    """A command of a page: a line of a shell with what continues it, or a whole block of Python."""

    page: str
    line: int
    text: str
    python: bool = False


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    blocks, inside, before = [], None, ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence and inside is None:
            marker = _MARKER.match(before)
            inside = Block(page, number, fence[1], [], marker[1] if marker else None)
        elif fence and inside is not None:
            blocks.append(inside)
            inside = None
        elif inside is not None:
            inside.lines.append(line)
        before = line
    return blocks


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a block, without comments, prompts and what a console prints."""
    if block.language == "python":
        return [Command(block.page, block.line + 1, "\n".join(block.lines), python=True)]
    commands: list[Command] = []
    begun, first = "", 0
    for number, line in enumerate(block.lines, start=block.line + 1):
        if block.language == "console" and not begun:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        found = _CODE.match(line)
        code = found[1].strip() if found else ""
        if not begun:
            first = number
        begun += code
        if begun.endswith("\\"):
            begun = f"{begun[:-1].rstrip()} "
        elif begun:
            commands.append(Command(block.page, first, begun))
            begun = ""
    return commands


def stray_commands(text: str, page: str) -> Iterator[str]:
    """Yield a line for what looks like a command and would not be run: indented, or fenced as something else."""
    language, inside = "", False
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence:
            language, inside = fence[1], not inside
        elif inside and language not in (*COMMANDS, "yaml", "json") and _LOOKS_LIKE_ONE.match(line):
            yield f"{page}:{number}: a command in a block that is not fenced as bash: {line.strip()}"
        elif not inside and line.startswith("    ") and _LOOKS_LIKE_ONE.match(line):
            yield f"{page}:{number}: an indented command; fence it as bash: {line.strip()}"


def read_table(path: Path = TABLE) -> dict[str, Any]:
    """Return the table of commands, places and data."""
    return yaml.safe_load(path.read_text())


def all_pages() -> list[str]:
    """Return README.md and the pages of docs/, as paths relative to the repository."""
    return ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def entry_of(command: Command, table: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the table says of a command: the first entry of its page, else of all pages, that stands in it."""
    own = table["pages"].get(command.page, {}).get("commands", [])
    return next((entry for entry in [*own, *table["commands"]] if entry["with"] in command.text), None)


def problems(pages: dict[str, str], table: dict[str, Any]) -> list[str]:
    """
    Return a line for each rule that pages break, without running anything.

    Args:
        pages: text of each page by its name.
        table: see :py:func:`read_table`.
    """
    found, markers = [], []
    for page, text in pages.items():
        found += list(stray_commands(text, page))
        for block in blocks_of(text, page):
            where = f"{page}:{block.line}"
            if block.reason is not None:
                markers.append(where)
                if not block.reason:
                    found.append(f"{where}: a block that is not run must say why")
                continue
            for command in commands_of(block) if block.language in COMMANDS else []:
                if entry_of(command, table) is None:
                    found.append(f"{page}:{command.line}: not in {TABLE.name}: {command.text.splitlines()[0]}")
    if len(markers) > MOST_MARKERS:
        found.append(f"at most {MOST_MARKERS} blocks may not be run, got {len(markers)}: {', '.join(markers)}")
    return found


def with_places(text: str, places: dict[str, str]) -> str:
    """
    Replace the words of a page that stand for a path or a number.

    Example:
        >>> with_places("run --input DIR/labels.csv --output_dir MY_DIR", {"DIR": "/tmp/films"})
        'run --input /tmp/films/labels.csv --output_dir MY_DIR'
    """
    if not places:
        return text
    words = "|".join(re.escape(word) for word in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.-])({words})(?![\w-])", lambda found: places[found[1]], text)


class Checker:
    """
    A copy of the repository, the data that were made for it, and how commands run there.

    Args:
        folder: empty, of this checker alone.
        table: see :py:func:`read_table`.
        offline: leave out what needs a package index.
        dry_run: say what would run, and make nothing.
    """

    def __init__(self, folder: Path, table: dict[str, Any], offline: bool = False, dry_run: bool = False) -> None:
        self.folder, self.table, self.offline, self.dry_run = folder, table, offline, dry_run
        self.repository, self.data = folder / "repository", folder / "data"
        self.lock, self.failures, self.done = threading.RLock(), 0, 0
        if not dry_run:
            self.data.mkdir(parents=True)
            (folder / "home").mkdir()
            copy_repository(self.repository)
            for name in (".venv-demo", ".venv"):
                layered_environment(self.repository / name)

    def environment(self) -> dict[str, str]:
        """Return the variables of every command: this process's, with a home, a path and a bundle of the copy."""
        paths = [str(self.repository / ".venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "VIRTUAL_ENV", "PYTHON"))}
        settings = Path.home() / ".config" / "pip" / "pip.conf"
        if settings.is_file():
            kept.setdefault("PIP_CONFIG_FILE", str(settings))
        own = {"HOME": str(self.folder / "home"), "PATH": os.pathsep.join(paths), "PYTHONPATH": str(self.repository)}
        return {**kept, **own, "OMP_WAIT_POLICY": "passive"}

    def place(self, page: str, value: Any) -> str:
        """Return what a placeholder stands for: data, made when it is first needed, a page's own file, or a word."""
        text = str(value)
        kind, _, rest = text.partition("/")
        if kind == "data" and rest:
            self.make(rest.split("/")[0])
            return str(self.folder / text)
        if kind == "out":
            return str(self.folder / page.replace("/", "_") / text)
        return str(self.folder / text) if kind == "repository" else text

    def make(self, name: str) -> None:
        """Make data or a model of the table once."""
        with self.lock:
            if self.dry_run or (self.data / name).exists():
                return
            entry = self.table["data"][name]
            if entry is None:
                from check_docs_data import MAKERS  # here, since it imports torch

                begun = time.monotonic()
                MAKERS[name](self.data / name)
                self.report(f"data/{name}", "made here", 0, time.monotonic() - begun, "")
            else:
                places = {word: self.place("data", value) for word, value in entry.get("places", {}).items()}
                text = with_places(entry["run"], {**places, "HERE": str(self.data / name)})
                self.report(f"data/{name}", text, *self.ran(["bash", "-c", text], {}, 300))

    def ran(self, words: list[str], environment: dict[str, str], limit: float) -> tuple[int, float, str]:
        """Run a program to its end; return exit status, seconds and output."""
        begun = time.monotonic()
        process = subprocess.Popen(
            words,
            cwd=self.repository,
            env={**self.environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = f"{process.communicate()[0]}\nended after {limit:.0f} s"
            status = 124
        return status, time.monotonic() - begun, output

    def report(self, where: str, text: str, status: int, seconds: float, output: str) -> None:
        """Print a line for a command, and the end of its output where it failed."""
        with self.lock:
            self.done += 1
            self.failures += status != 0
            shown = " ".join(text.split())
            print(f"{where:<28} {seconds:6.1f} s  {'ok    ' if status == 0 else 'FAILED'}  {shown[:160]}", flush=True)
            if status != 0:
                print("    " + "\n    ".join(output.strip().splitlines()[-12:]), flush=True)

    def run_page(self, page: str, text: str) -> None:
        """Run the commands of a page."""
        settings = self.table["pages"].get(page, {})
        background: list[subprocess.Popen[bytes]] = []
        if not self.dry_run:
            (self.folder / page.replace("/", "_") / "out").mkdir(parents=True, exist_ok=True)
        blocks = blocks_of(text, page)
        for block in blocks if not self.dry_run else []:
            if block.language == "yaml":
                self.write_settings(page, block, settings)
        for block in blocks:
            if block.reason is not None:
                print(f"{page}:{block.line:<18} not run: {block.reason}")
            elif block.language in COMMANDS:
                for command in commands_of(block):
                    self.run_command(command, settings, background)
        for process in background:
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            try:
                status, words = process.wait(60), "it must end with 0 at Ctrl-C"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                status, words = 124, "it did not end within 60 s of Ctrl-C"
            self.report(page, "Ctrl-C ends what runs beside", status, time.monotonic() - begun, words)

    def write_settings(self, page: str, block: Block, settings: dict[str, Any]) -> None:
        """Write a YAML block whose first line names it to the page's folder, with its placeholders replaced."""
        name = re.match(r"# (\w+\.yaml)", block.lines[0])
        if name is not None:
            text = with_places("\n".join(block.lines), self.places(page, settings.get("file_places", {})))
            (self.folder / page.replace("/", "_") / "out" / name[1]).write_text(text)

    def places(self, page: str, values: dict[str, Any]) -> dict[str, str]:
        """Return placeholders with the paths that they stand for."""
        return {str(word): self.place(page, value) for word, value in values.items()}

    def run_command(
        self, command: Command, settings: dict[str, Any], background: list[subprocess.Popen[bytes]]
    ) -> None:
        """Run one command, small; those that the table calls so go on beside the others of the page."""
        entry = entry_of(command, self.table)
        where = f"{command.page}:{command.line}"
        if entry is None:
            self.report(where, command.text, 1, 0, f"not in {TABLE.name}")
            return
        if self.offline and entry.get("online"):
            print(f"{where:<28} left out: it needs a package index")
            return
        values = {**settings.get("places", {}), **entry.get("places", {})}
        text = f"{command.text} {entry['add']}" if "add" in entry else command.text
        used = {word: value for word, value in values.items() if with_places(text, {word: ""}) != text}
        text = with_places(text, self.places(command.page, used))
        if self.dry_run:
            print(f"{where:<28} {text}")
            return
        environment = {name: str(value) for name, value in entry.get("environment", {}).items()}
        if entry.get("beside"):
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.repository,
                env={**self.environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            background.append(process)
            begun, waited_for = time.monotonic(), Path(self.place(command.page, entry["beside"]))
            while process.poll() is None and not waited_for.exists() and time.monotonic() - begun < 60:
                time.sleep(0.2)
            up = process.poll() is None and waited_for.exists()
            self.report(where, text, 0 if up else 1, time.monotonic() - begun, f"{waited_for.name} was not made")
            return
        words = ["python", "-c", text] if command.python else ["bash", "-c", text]
        status, seconds, output = self.ran(words, environment, entry.get("limit", 300))
        self.report(where, text, status, seconds, output)
        for number, following in enumerate(entry.get("next", []) if status == 0 else []):
            said = _NEXT.findall(output)
            if len(said) <= number or following not in said[number]:
                self.report(f"{where} next", f"the last lines must have 'next: ... {following} ...'", 1, 0, output)
                continue
            text = with_places(said[number], self.places(command.page, values))
            self.report(f"{where} next", text, *self.ran(["bash", "-c", text], environment, 300))


def copy_repository(target: Path) -> None:
    """Copy what git knows or would add, as it stands in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def layered_environment(folder: Path) -> None:
    """Make a virtual environment that sees the packages of this process's, and may have more."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    pip.chmod(0o755)
    (folder / ".installed").touch()  # make takes it for its own, and has nothing to install


def main() -> None:
    """Parse the command line, check the pages and run their commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="+", choices=all_pages(), metavar="PAGE", default=all_pages())
    parser.add_argument("--jobs", type=int, default=1, help="pages at once, default 1")
    parser.add_argument("--offline", action="store_true", help="leave out what needs a package index")
    parser.add_argument("--dry_run", action="store_true", help="print the commands as they would run")
    parser.add_argument("--keep", type=Path, help="new folder that is kept, in place of a temporary one")
    args = parser.parse_args()
    table, begun = read_table(), time.monotonic()
    texts = {page: (ROOT / page).read_text() for page in all_pages()}
    broken = problems(texts, table)
    for line in broken:
        print(line)
    with tempfile.TemporaryDirectory(prefix="check_docs_") as temporary:
        checker = Checker((args.keep or Path(temporary)).resolve(), table, args.offline, args.dry_run)
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda page: checker.run_page(page, texts[page]), args.pages))
    markers = sum(block.reason is not None for page, text in texts.items() for block in blocks_of(text, page))
    print(
        f"{checker.done} commands, {checker.failures} failed, {len(broken)} broken rules, {markers} of at most "
        f"{MOST_MARKERS} blocks not run, {time.monotonic() - begun:.0f} s"
    )
    sys.exit(1 if broken or checker.failures else 0)


if __name__ == "__main__":
    main()
