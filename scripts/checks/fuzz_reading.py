# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Read thousands of damaged DICOM files and account for every one: read, skipped or refused, never crashed or hung.

Bytes are flipped, files cut off, elements deleted, sizes changed, all from a seed. Each file is read in a child process
with a limit on time and on memory beyond what the imports take.

Usage: python scripts/checks/fuzz_reading.py --count 5000 [--seed 0] [--keep DIR] [--model_dir DIR [overrides]]
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data

SIZES = ("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel")
FINE = ("read", "skipped", "refused")


def source_files() -> list[Path]:
    """Return the small files with pixels inside the installed pydicom."""
    root = Path(pydicom.data.__file__).parent / "test_files"
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.stat().st_size < 2**20:
            try:
                if "PixelData" in pydicom.dcmread(path, force=True):
                    found.append(path)
            except Exception:
                continue
    return found


def mutated(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return the kind of damage and the damaged file."""
    kind = str(rng.choice(["flip header", "flip anywhere", "truncate", "delete", "resize"]))
    if kind.startswith("flip"):
        damaged = bytearray(content)
        end = min(len(content), 2048) if kind == "flip header" else len(content)
        for place in rng.integers(0, end, rng.integers(1, 33)):
            damaged[place] ^= int(rng.integers(1, 256))
        return kind, bytes(damaged)
    if kind == "truncate":
        return kind, content[: rng.integers(0, len(content))]
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        if kind == "delete":
            tags = list(dataset.keys())
            for i in rng.choice(len(tags), min(len(tags), int(rng.integers(1, 5))), replace=False):
                del dataset[tags[i]]
        else:
            keyword = str(rng.choice(SIZES))
            setattr(dataset, keyword, int(rng.choice([0, 1, 2, 7, 12, 16, 64, 255, 256, 4096, 65535])))
        stream = io.BytesIO()
        try:
            pydicom.dcmwrite(stream, dataset)
        except Exception:  # the source itself lacks what a writer needs
            return "none", content
    return kind, stream.getvalue()


def read_all(connection: Connection, megabytes: int) -> None:
    """Answer each file's path with what became of it and the peak memory, in a child process with limits."""
    from bundle.lists.find import find_images
    from bundle.reading.errors import SkippedFileError, UnreadableImageError
    from bundle.reading.reader import RadiologyReader

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + megabytes * 2**20,) * 2)
    reader = RadiologyReader(secret="fuzz")
    while path := connection.recv():
        try:
            items, refusals = find_images(path)
            for item in items:
                reader.get_data(reader.read(item["image"]))
            outcome = "read" if items else {"skipped": "skipped", "failed": "refused"}[refusals[0].status]
        except UnreadableImageError:
            outcome = "refused"
        except SkippedFileError:
            outcome = "skipped"
        except Exception as error:
            outcome = f"unexpected {type(error).__name__}"
        connection.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


class Child:
    """
    A reading process that is replaced when it dies or hangs.

    Args:
        seconds: time limit a file.
        megabytes: memory limit beyond the imports.
    """

    def __init__(self, seconds: float, megabytes: int) -> None:
        self.seconds, self.megabytes = seconds, megabytes
        self.start()

    def start(self) -> None:
        """Start a fresh process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=read_all, args=(theirs, self.megabytes), daemon=True)
        self.process.start()
        theirs.close()

    def outcome(self, path: Path) -> tuple[str, float]:
        """Return what became of a file, and the peak memory of the process in MiB, not-a-number if it is gone."""
        self.connection.send(str(path))
        try:
            if self.connection.poll(self.seconds):
                return self.connection.recv()
            word = "hung"
        except EOFError:
            word = "crashed"
        self.process.kill()
        self.start()
        return word, float("nan")


def infer_all(folder: Path, model_dir: Path, output_dir: Path, seconds: float, overrides: list[str]) -> tuple[int, int]:
    """Run the whole inference over a folder; return how many files are missing from its tables, and the exit status."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_inference.yaml"]
    command += ["--input", str(folder), "--model_dir", str(model_dir), "--output_dir", str(output_dir)]
    # one image a batch, read in another process, so that the loader's time limit is one a file
    command += ["--frames", "first", "--formats", "['csv']", "--batch_size", "1"]
    command += ["--num_workers", "1", "--dataloader::timeout", str(seconds), *overrides]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    named: Counter[str] = Counter()
    for table, column in (("predictions.csv", "source"), ("failures.csv", "file")):
        if (output_dir / table).exists():
            with (output_dir / table).open(newline="") as file:
                rows = [row[column].split("#frame=")[0] for row in csv.DictReader(file)]
            print(f"{table}: {len(rows)} rows")
            named.update(rows)
    missing = sum(named[path.name] != 1 for path in folder.glob("*.dcm"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"inference: exit status {status}, {missing} files not named once, peak {peak:.0f} MiB")
    return missing, status or int(peak > 2048)


def main() -> int:
    """Damage, read, report; the exit status says whether every file was accounted for within the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="time limit a file")
    parser.add_argument("--megabytes", type=int, default=1400, help="memory limit beyond the imports")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder that keeps the damaged files, for a run of inference")
    parser.add_argument("--model_dir", type=Path, help="trained ADFA; then the whole inference runs over the files too")
    args, overrides = parser.parse_known_args()

    sources = source_files()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        kinds: dict[Path, str] = {}
        for i in range(args.count):
            rng = np.random.default_rng([args.seed, i])
            source = sources[rng.integers(len(sources))]
            kind, content = mutated(source.read_bytes(), rng)
            path = folder / f"{i:06d}.dcm"
            path.write_bytes(content)
            kinds[path] = kind

        def read_share(paths: list[Path]) -> list[tuple[Path, str, float, float]]:
            child = Child(args.seconds, args.megabytes)
            child.connection.send(str(sources[0]))  # the first answer waits for the imports
            child.connection.recv()
            results = []
            for path in paths:
                started = time.perf_counter()
                results.append((path, *child.outcome(path), time.perf_counter() - started))
            child.process.kill()
            return results

        if args.model_dir is not None:
            inferred = infer_all(folder, args.model_dir, Path(scratch) / "results", args.seconds, overrides)
        else:
            inferred = (0, 0)

        paths = list(kinds)
        with ThreadPoolExecutor(args.processes) as pool:
            shares = pool.map(read_share, [paths[i :: args.processes] for i in range(args.processes)])
            results = [result for share in shares for result in share]

    outcomes = Counter((kinds[path], outcome) for path, outcome, _, _ in results)
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:14s} {outcome:12s} {count}")
    bad = sorted((path.name, outcome) for path, outcome, _, _ in results if outcome not in FINE)
    for name, outcome in bad:
        print(f"NOT ACCOUNTED FOR: {name} {outcome}")
    peak = max((memory for _, _, memory, _ in results if memory == memory), default=0.0)
    slowest = max(results, key=lambda result: result[3])
    print(
        f"{len(results)} files, {len(bad)} not accounted for, peak {peak:.0f} MiB, "
        f"slowest {slowest[3]:.2f} s ({slowest[0].name})"
    )
    return int(any(inferred) or bool(bad) or len(results) != args.count or peak > 2048)


if __name__ == "__main__":
    sys.exit(main())
