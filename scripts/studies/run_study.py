# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Run a study: variants of a family's settings, each trained and evaluated by the commands that a user types.

    python scripts/studies/run_study.py anomaly/methods.yaml DATA --work WORK
    python scripts/studies/run_study.py anomaly/methods.yaml DATA --work WORK --quick
    python scripts/studies/tables.py

A study is a YAML file beside this script: data sets, seeds, and variants, which are flags of the workflow (``train``,
``evaluate``) or another configuration of training (``config: adfa_paper`` for ``args_adfa_paper_train.yaml``). Where a
family trains in phases, each from the one before, the study and its variants name them in order with their flags
(``phases: {backbone: {max_epochs: 6}}`` for ``args_msa_train_backbone.yaml``); phases that variants share are trained
once, and so are the models of sets that differ in what they test alone, with ``keep_models: true``.
``control: median_box`` is no training but a function of controls.py, and ``model: chest_xray_anomaly`` a shipped model
as it is, or with the calibration of ``recalibrate: 50`` normal images that the set trains with. Every finished run is a
row of its rows file, and a run that is there is not repeated, so the command resumes where it was stopped. A row has
the metrics, the number and digest of the training items, the commit (with + where files had changed), the device, the
seconds (without those of shared phases that were there), and the command. WORK keeps the features of frozen networks,
the models of phases, and each run's scores.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from controls import CONTROLS
from study_sets import Chosen, Flags, dataset_flags
from tables import ROOT, Row, read_rows, read_study, table_of

from bundle.model.read_file import read_model

FIXED = ("set", "variant", "seed")
ORIGIN = ("items", "data_digest", "commit", "device", "seconds", "command")


class Job(NamedTuple):
    """One row to come: a variant of one set with one seed."""

    set: str
    variant: str
    seed: int


def jobs_of(study: dict[str, Any]) -> Iterator[Job]:
    """Yield the jobs of a study, seed by seed, so that a run that is stopped has whole seeds."""
    for seed in study["seeds"]:
        for name in study["sets"]:
            if seed == study["seeds"][0] or name not in study.get("once", ()):
                yield from (Job(name, variant, seed) for variant in study["variants"])


def commit_of(root: Path) -> str:
    """Return the commit, with ``+`` where tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "bundle", "configs", "scripts")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def device_name() -> str:
    """Return the name of the accelerator that a run would take, or ``CPU``."""
    import torch  # only where something is run

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def command_of(config: str, flags: Flags) -> list[str]:
    """Return the command of a configuration as a user types it, behind the name of Python."""
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    return ["-m", "monai.bundle", "run", "--args_file", f"configs/args_{config}.yaml", *words]


def run_command(command: list[str]) -> None:
    """Run a command of Python, and end with its last line where it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"error: python {shlex.join(command)}: {last}")


def value_at(metrics: Any, path: str | list[str]) -> Any:
    """Return what lies at ``classes/Mass/accuracy/0.1`` of metrics, '' where nothing does; of several, the mean."""
    if isinstance(path, list):
        found = [value_at(metrics, each) for each in path]
        return "" if "" in found else statistics.mean(found)
    for part in path.split("/"):
        metrics = metrics[int(part)] if isinstance(metrics, list) else (metrics or {}).get(part)
    return "" if metrics is None else metrics


def columns_of(study: dict[str, Any]) -> list[str]:
    """Return the names of the columns that hold metrics; an interval of a metric is two columns more."""
    return [name + end for name in study["metrics"] for end in ("", "_low", "_high")]


def model_folder(work: Path, made_by: str) -> Path:
    """Return the folder of a model that is kept, for what it was made by at this commit."""
    return work / "models" / hashlib.sha256(f"{commit_of(ROOT)} {made_by}".encode()).hexdigest()[:16]


def trained(
    study: dict[str, Any], settings: Row, flags: Flags, work: Path, out: Path, boxes: object = ""
) -> tuple[Path, str]:
    """
    Train a variant, phase after phase where it has phases; return the folder of the model and the commands.

    ``BOXES`` as the value of a phase's flag stands for the boxes of the set.
    """
    config = settings.get("config", study["family"])
    if "phases" not in settings:
        chosen = {**flags, **settings.get("train", {})}
        folder = model_folder(work, f"{config} {chosen}") if study.get("keep_models") else out
        command = command_of(f"{config}_train", {**chosen, "output_dir": folder})
        if not (folder / "model.json").is_file():
            run_command(command)
        return folder, shlex.join(["python", *command]).replace(str(folder), "OUT")
    texts: list[str] = []
    folders: dict[str, Path] = {}
    for phase, changed in settings["phases"].items():
        chosen = {**flags, **study["phases"].get(phase, {}), **(changed or {})}
        chosen = {key: boxes if value == "BOXES" else value for key, value in chosen.items()}
        if folders:
            chosen["start_from"] = list(folders.values())[-1] / "model.pt"
        folders[phase] = model_folder(work, f"{phase} {chosen}")  # the phases before are in start_from
        command = command_of(f"{config}_train_{phase}", {**chosen, "output_dir": folders[phase]})
        if not (folders[phase] / "model.json").is_file():
            run_command(command)
        texts.append(shlex.join(["python", *command]))
    text = " && ".join(texts)
    for phase, folder in folders.items():
        text = text.replace(str(folder), f"OUT/{phase}")
    return list(folders.values())[-1], text


def shipped(name: str, normals: int, chosen: Chosen, seed: int, folder: Path) -> tuple[Path | str, list[str]]:
    """Return a shipped model, recalibrated on so many normal training images of a set, and the command of that."""
    if not normals:
        return name, []
    table = Path(str(chosen.both["dataset_dir"]))
    paths = [Path(row["image"]) for row in csv.DictReader(table.open(newline="")) if row["split"] == "training"]
    images = folder / "normals"
    images.mkdir()
    for path in random.Random(seed).sample(paths, normals):
        (images / path.name).symlink_to(path)
    words = {"model_dir": name, "output_dir": folder / "model", "recalibrate": images, "allow_outside": True}
    command = ["scripts/recalibrate.py", *(word for key, value in words.items() for word in (f"--{key}", str(value)))]
    run_command(command)
    return folder / "model", command


def measured(
    study: dict[str, Any], job: Job, chosen: Chosen, work: Path, kept: Path
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Train and evaluate once; return the metrics, what the model says of its training items, and the command."""
    settings = study["variants"][job.variant] or {}
    if "control" in settings:
        words = [study["name"], "DATA", "--sets", job.set, "--variants", job.variant, "--seeds", str(job.seed)]
        command = shlex.join(["python", "scripts/studies/run_study.py", *words])
        return *CONTROLS[settings["control"]](chosen), command
    common = {"seed": job.seed, **chosen.both}
    cache = {"feature_cache": work / "features"} if study.get("feature_cache") else {}
    flags = {**common, **chosen.train, **cache, **study.get("flags", {}), "tensorboard": False}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        if "model" in settings:
            name, normals = settings["model"], settings.get("recalibrate", 0)
            model, before = shipped(name, normals, chosen, job.seed, Path(folder))
        else:
            model, command = trained(study, settings, flags, work, out, chosen.evaluate.get("boxes_path", ""))
        own = {**chosen.evaluate, "formats": "[csv]", **settings.get("evaluate", {})}
        test = {**common, **own, "model_dir": model, "output_dir": out / "test"}
        tested = command_of(f"{study['family']}_evaluate", test)
        run_command(tested)
        if "model" in settings:
            steps = [shlex.join(["python", *words]) for words in (before, tested) if words]
            command, model = " && ".join(steps).replace(folder, "OUT"), read_model(model).folder
        kept.mkdir(parents=True, exist_ok=True)
        for table in (out / "test").glob("*.csv"):
            shutil.copy(table, kept)
        metrics = json.loads((out / "test" / "metrics.json").read_text())
        return metrics, json.loads((model / "model.json").read_text())["training_set"], command


def kept_folder(work: Path, name: str, variant: str, seed: int) -> Path:
    """Return the folder for the tables of a run."""
    return work / name / f"{variant} {seed}".replace(" ", "_").replace("/", "_").replace(",", "")


def row_of(study: dict[str, Any], job: Job, data: Path, work: Path) -> Row:
    """Train and evaluate once, and return the row."""
    started = time.monotonic()
    kept = kept_folder(work, job.set, job.variant, job.seed)
    chosen = dataset_flags(study["family"], job.set, data, work, job.seed)
    metrics, training, command = measured(study, job, chosen, work, kept)
    values: Row = {}
    for name, path in study["metrics"].items():
        values[name] = value_at(metrics, path)
        for end, number in (("_low", 0), ("_high", 1)):
            values[name + end] = "" if isinstance(path, list) else value_at(metrics, f"{path}_interval/{number}")
    return {
        **job._asdict(),
        **values,
        "items": training["items"],
        "data_digest": training["digest"][:16],
        "commit": commit_of(ROOT),
        "device": device_name(),
        "seconds": round(time.monotonic() - started),
        "command": command.replace(str(work), "WORK").replace(str(data), "DATA"),
    }


def rows_of(path: Path, columns: list[str]) -> list[Row]:
    """Return the rows of a file, which must have these columns."""
    rows = read_rows(path)
    if rows and list(rows[0]) != columns:
        raise SystemExit(f"error: '{path}' must have the columns {columns}, got {list(rows[0])}")
    return rows


def append_row(path: Path, columns: list[str], row: Row) -> None:
    """Add a row to a rows file, which is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a YAML file of scripts/studies")
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data sets; none only prints the table")
    parser.add_argument("--work", type=Path, default=Path("study"), help="kept features and scores (%(default)s)")
    parser.add_argument("--rows", type=Path, help="rows file, added to; that of the study by default")
    parser.add_argument("--quick", action="store_true", help="the study's own short form, in a rows file of its own")
    parser.add_argument("--sets", nargs="+", help="only these")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    args = parser.parse_args()
    study = read_study(args.study)
    rows_path = args.rows or ROOT / study["rows"]
    if args.quick:
        short = study.get("quick", {})
        study |= {**short, "flags": {**study.get("flags", {}), **short.get("flags", {})}}
        rows_path = args.rows or args.work / f"quick_{rows_path.name}"
    if unknown := sorted({*(args.variants or [])} - {*study["variants"]}):
        raise SystemExit(f"error: '{args.study}' has no variant {unknown}; it has {list(study['variants'])}")
    columns = [*FIXED, *columns_of(study), *ORIGIN]
    done = {(row["set"], row["variant"], int(row["seed"])) for row in rows_of(rows_path, columns)}
    wanted = ((args.sets, 0), (args.variants, 1), (args.seeds, 2))
    jobs = [j for j in jobs_of(study) if j not in done and all(not w or j[i] in w for w, i in wanted)]
    for number, job in enumerate(jobs if args.data else []):
        row = row_of(study, job, args.data.resolve(), args.work.resolve())
        append_row(rows_path, columns, row)
        first = next(iter(study["metrics"]))
        print(
            f"{number + 1} of {len(jobs)}: {job.set}, {job.variant}, seed {job.seed}: "
            f"{first} {float(row[first] or 'nan'):.3f} ({row['seconds']} s)",
            flush=True,
        )
    print(table_of(study, read_rows(rows_path)))


if __name__ == "__main__":
    main()
