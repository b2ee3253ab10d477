# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Kill runs (``kill -9``) at random moments, resume them, and compare what they leave with an undisturbed run, bit by bit.

Training of each family and inference over many images, on small synthetic images. A run is killed and resumed until an
attempt ends before its moment, so most runs are killed several times. The processes are forked from one that has the
imports behind it, so that the kills fall into the work and not into the start. The undisturbed run of a task is done
twice: the same seed must give the same files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the number of threads changes the rounding

import numpy as np
import torch
from monai.bundle import run
from monai.transforms import LoadImage
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("adfa_train", "sna_train", "msa_train_backbone", "msa_train_mining")
INFERENCE = "adfa_inference"
SIDE = 32


def write_images(folder: Path, count: int, seed: int) -> None:
    """Write noise, with a bright square in every second image, and their label table."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient", "split", "normal", "square"])
        for i in range(count):
            pixels = generator.integers(60, 90, (SIDE, SIDE)).astype(np.uint8)
            pixels[8:20, 12:24] += np.uint8(110 * (i % 2))
            Image.fromarray(pixels).save(folder / "images" / f"{i:04d}.png")
            table.writerow(
                [
                    f"images/{i:04d}.png",
                    f"p{i // 2}",
                    ("training", "training", "validation")[i // 2 % 3],
                    1 - i % 2,
                    i % 2,
                ]
            )


def settings_of(task: str, data: Path, model: Path) -> dict[str, Any]:
    """Return what is small about a task's run."""
    small = {"image_size": [SIDE, SIDE], "batch_size": 4}
    adfa = {"descriptor_channels": 8}
    if task == INFERENCE:
        return {"batch_size": 4, "input": str(data / "images"), "model_dir": str(model)}
    small |= {"dataset_dir": str(data), "max_epochs": 4}
    if task == "adfa_train":
        return {**small, **adfa, "dataset_dir": str(data / "images"), "weights": "random", "folds": 3}
    if task == "sna_train":
        return {**small, "classes": ["normal", "square"], "frozen_stages": 1, "averaging": 0.1}
    small["classes"] = ["normal", "square"]
    return {**small, "mining_steps": 2} if task == "msa_train_mining" else small


def start(task: str, output_dir: Path, settings: dict[str, Any]) -> int:
    """Fork a process that runs the task, and return its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        log = os.open(output_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(ROOT)
        run(args_file=f"configs/args_{task}.yaml", output_dir=str(output_dir), tensorboard=False, **settings)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def check(status: int, log: Path) -> None:
    """End the script when a run did not end well."""
    if status:
        sys.exit(f"error: a run ended with status {status}:\n{log.read_text()[-3000:]}")


def digests(folder: Path) -> dict[str, str]:
    """Return a hash of each file's content by its name."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "checkpoint.pt":  # equal objects may be pickled in other words after a resume
            content = described(torch.load(path, weights_only=True)).encode()
        if path.name == "report.html":
            content = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", content)
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def described(value: Any) -> str:
    """Return nested values in words, tensors by the hash of their bytes."""
    if isinstance(value, dict):
        return str([(key, described(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return str([described(item) for item in value])
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)} {hashlib.sha256(value.numpy().tobytes()).hexdigest()}"
    return repr(value)


def killed(process: int, moment: float, log: Path) -> bool:
    """Kill a run after some seconds, and return whether it was still at work."""
    until = time.monotonic() + moment
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            check(status, log)
            return False
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    if not os.WIFSIGNALED(status):  # it was just through
        check(status, log)
    return os.WIFSIGNALED(status)


def test_task(task: str, kills: int, data: Path, work: Path, generator: random.Random) -> dict[str, Any]:
    """
    Return how many runs of a task, killed and resumed until one attempt is quicker than its moment, end as undisturbed.

    The moment of each attempt is uniform over the time that the last undisturbed run took.
    """
    settings = settings_of(task, data, work / "adfa_train" / "whole")
    folder = work / task
    folder.mkdir()
    seconds = []
    for name in ("whole", "again"):
        begun = time.monotonic()
        check(os.waitpid(start(task, folder / name, settings), 0)[1], folder / f"{name}.log")
        seconds.append(time.monotonic() - begun)
    expected = digests(folder / "whole")
    repeated = digests(folder / "again") == expected
    same = runs = done = 0
    while done < kills:
        target, moments = folder / f"run_{runs}", []
        log = target.with_suffix(".log")
        while True:  # killed and resumed, until it ends by itself
            moment = generator.uniform(0, seconds[-1]) if done + len(moments) < kills else math.inf
            begun = time.monotonic()
            if not killed(start(task, target, {**settings, "resume": bool(moments)}), moment, log):
                break
            moments.append(moment)
        if not moments:
            seconds.append(time.monotonic() - begun)  # how busy the machine is now
        else:
            left = digests(target)
            other = sorted(name for name in {*left, *expected} if left.get(name) != expected.get(name))
            same, runs, done = same + (not other), runs + 1, done + len(moments)
            places = re.findall(r"resumed[^\n]*", log.read_text())
            print(
                f"{task}: killed after {', '.join(f'{m:.2f}' for m in moments)} s: {other or 'same'}; {places}",
                flush=True,
            )
        if not moments or not other:
            shutil.rmtree(target)
            log.unlink()
    return {
        "task": task,
        "files": len(expected),
        "seconds": min(seconds),
        "repeated": repeated,
        "kills": done,
        "runs": runs,
        "same": same,
    }


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="per task, default: %(default)s")
    parser.add_argument("--images", type=int, default=500, help="of the inference, default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, default: %(default)s")
    tasks = [*TRAINING, INFERENCE]
    parser.add_argument("--tasks", nargs="+", default=tasks, choices=tasks, metavar="TASK", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    LoadImage()  # imports what every run imports
    generator = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_images(work / "data", 12, 1)
        write_images(work / "many", args.images, 2)
        if INFERENCE in args.tasks and "adfa_train" not in args.tasks:  # it needs a model
            test_task("adfa_train", 0, work / "data", work, generator)
        rows = [
            test_task(task, args.kills, work / ("many" if task == INFERENCE else "data"), work, generator)
            for task in args.tasks
        ]
    print("\n| task | s undisturbed | files | twice the same | kills | runs | ended the same |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        again = "yes" if row["repeated"] else "no"
        print(
            f"| {row['task']} | {row['seconds']:.1f} | {row['files']} | {again} "
            f"| {row['kills']} | {row['runs']} | {row['same']} |"
        )
    if any(row["same"] != row["runs"] or not row["repeated"] for row in rows):
        sys.exit("error: not every run ended like the undisturbed one")


if __name__ == "__main__":
    main()
