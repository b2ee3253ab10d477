# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The last lines of a run: what was written where, the main figure, and the next command to type."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from bundle.command.run import command_line_of_this_run

__all__ = ["closing_words", "main_metric"]

_TRAINING = re.compile(r"args_(?P<family>[a-z]+)_(?:\w+_)?train(?:_(?P<phase>\w+))?\.yaml$")
_PHASES = ("backbone", "head", "end_to_end", "mining")  # of MSA
_PLACES = ("dataset_dir", "allow_outside", "labels_csv", "boxes_path", "device")  # flags of the next command too
_RESULTS = ("report.html", "predictions.csv", "predictions.json", "metrics.json", "failures.csv")


def closing_words(parser: ConfigParser, args_file: str | None) -> Iterator[str]:
    """
    Yield the last lines of a run that has ended well.

    Args:
        parser: of the run; only what it has built already is asked for.
        args_file: that the run was started with, or ``None``; names the family.
    """
    output_dir = str(parser.get_parsed_content("output_dir"))
    if "train" in parser:
        yield from _after_training(parser, output_dir, args_file)
    else:
        yield from _after_results(Path(output_dir))


def _after_training(parser: ConfigParser, output_dir: str, args_file: str | None) -> Iterator[str]:
    paths = [parser.get_parsed_content(key) for key in ("ckpt_path", "calibration_path") if key in parser]
    paths.append(Path(output_dir, "model.json"))
    if found := [shlex.quote(str(path)) for path in paths if Path(path).is_file()]:
        yield f"wrote {', '.join(found)}"
    for handler in parser.get_parsed_content("train::handlers"):
        if getattr(handler, "best_metric", None) is not None:
            name = next(iter(parser.get_parsed_content("validate::key_metric")), "key metric")
            yield f"best {name} on validation: {handler.best_metric:.3f} (epoch {handler.best_epoch})"
    if command_line_of_this_run() is not None and args_file is not None:
        yield from (f"next: {command}" for command in _next_commands(Path(args_file), output_dir))


def _next_commands(args_file: Path, output_dir: str) -> Iterator[str]:
    """Yield the commands that follow a training, with the paths of its own command line."""
    name = _TRAINING.match(args_file.name)
    command_line = command_line_of_this_run()
    if name is None or command_line is None:
        return
    given = command_line.given()
    places = {key: str(given[key]) for key in _PLACES if key in given}
    if name["phase"] in _PHASES[:-1]:
        phase = _PHASES[_PHASES.index(name["phase"]) + 1]
        out = Path(output_dir).with_name(phase) if Path(output_dir).name == name["phase"] else Path(output_dir, phase)
        flags = {**places, "start_from": str(Path(output_dir, "model.pt")), "output_dir": str(out)}
        if "classes" in given:
            flags["classes"] = json.dumps(given["classes"], ensure_ascii=False)
        yield _command(args_file.with_name(f"args_{name['family']}_train_{phase}.yaml"), flags)
        return
    for task, flags, folder in (("evaluate", places, "evaluation"), ("inference", {"input": "PATH"}, "results")):
        file = args_file.with_name(f"args_{name['family']}_{task}.yaml")
        if file.is_file():
            yield _command(file, {**flags, "model_dir": output_dir, "output_dir": str(Path(output_dir, folder))})


def _command(args_file: Path, flags: Mapping[str, str]) -> str:
    """Return a command to paste into a shell; a value that looks like a flag stands behind an equals sign."""
    words = ["python", "-m", "monai.bundle", "run", "--args_file", str(args_file)]
    for key, value in flags.items():
        words += [f"--{key}={value}"] if value.startswith("-") else [f"--{key}", value]
    return shlex.join(words)


def _after_results(output_dir: Path) -> Iterator[str]:
    if found := [name for name in _RESULTS if (output_dir / name).is_file()]:
        yield f"wrote {', '.join(found)} in {shlex.quote(str(output_dir))}"
    if (output_dir / "failures.csv").is_file():
        with (output_dir / "failures.csv").open(newline="", encoding="utf-8") as file:
            failures = sum(1 for _ in csv.DictReader(file))
        if failures:
            where = shlex.quote(str(output_dir / "failures.csv"))
            yield f"files without a result or a part of it: {failures}, see {where}"
    if (output_dir / "metrics.json").is_file():
        yield from main_metric(json.loads((output_dir / "metrics.json").read_text(encoding="utf-8")))
    if (output_dir / "report.html").is_file():
        yield f"next: open {shlex.quote(str(output_dir / 'report.html'))} in a browser"


def main_metric(metrics: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield the line of the metric that an evaluation is about, none where it has none.

    Args:
        metrics: content of ``metrics.json``.

    Example:
        >>> list(main_metric({"auroc": 0.9, "auroc_interval": [0.85, 0.94]}))
        ['AUROC: 0.900 (95 % interval 0.850 to 0.940)']
    """
    for name, words in (("auroc", "AUROC"), ("mean_auroc", "mean AUROC")):
        if _finite(metrics.get(name)):
            ends: Sequence[Any] = metrics.get(f"{name}_interval") or ()
            known = len(ends) == 2 and all(map(_finite, ends))
            interval = f" (95 % interval {ends[0]:.3f} to {ends[1]:.3f})" if known else ""
            yield f"{words}: {metrics[name]:.3f}{interval}"
            return
    if note := metrics.get("note"):
        yield str(note)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
