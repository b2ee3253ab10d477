# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Treat a listener badly and say what it did: damaged associations, wrong titles, a huge object, many senders at once.

The listener runs as its own process with default limits. Beside everything, a well-behaved caller asks for an echo
twice a second. Every image is a synthetic phantom.

Usage: python scripts/checks/stress_service.py [--garbage 2000] [--gigabytes 3] [--senders 20] [--images 10] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from pynetdicom import AE, _config
from pynetdicom.sop_class import ComputedRadiographyImageStorage, Verification

from bundle.service.job_queue import JobQueue
from bundle.synthetic.phantoms import write_phantom

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def caller(title: str, seconds: float = 30) -> AE:
    """Return a node that can echo and send radiographs."""
    node = AE(title)
    node.acse_timeout = node.dimse_timeout = node.network_timeout = seconds
    node.add_requested_context(Verification)
    node.add_requested_context(ComputedRadiographyImageStorage, EXPLICIT_LITTLE)
    return node


def echo(port: int, called: str = "BUNDLE", seconds: float = 30) -> bool:
    """Return whether an echo is answered."""
    association = caller("ECHO", seconds).associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.get("Status") == 0


def send(files: Sequence[Path], port: int, title: str) -> list[int | None]:
    """Return the status of each file, ``None`` from where the association had ended."""
    association = caller(title, 600).associate("127.0.0.1", port, ae_title="BUNDLE")
    statuses = []
    for file in files:
        statuses.append(association.send_c_store(file).get("Status") if association.is_established else None)
    if association.is_established:
        association.release()
    return statuses


def recorded(file: Path, port: int) -> bytes:
    """Return every byte that a sender writes while it stores a file and is answered."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def pass_on() -> None:
            inner, _ = proxy.accept()
            with inner, socket.create_connection(("127.0.0.1", port)) as outer:

                def answers() -> None:
                    while data := outer.recv(2**16):
                        inner.sendall(data)

                back = threading.Thread(target=answers)
                back.start()
                while data := inner.recv(2**16):
                    heard.append(data)
                    outer.sendall(data)
                outer.shutdown(socket.SHUT_RDWR)
                back.join()

        thread = threading.Thread(target=pass_on)
        thread.start()
        send([file], proxy.getsockname()[1], "RECORDED")
        thread.join()
    return b"".join(heard)


def damaged(stream: bytes, rng: np.random.Generator) -> bytes:
    """Return a recorded association with bytes flipped, cut off, cut out or doubled, or bytes that never were one."""
    kind = rng.integers(6)
    start, end = sorted(rng.integers(0, len(stream), 2))
    if kind < 3:
        changed = bytearray(stream)
        for place in rng.integers(0, (300, 1500, len(stream))[kind], rng.integers(1, 20)):
            changed[place] ^= int(rng.integers(1, 256))
        return bytes(changed)
    return [stream[:end], stream[:start] + stream[end:] + stream[start:end], rng.bytes(rng.integers(1, 5000))][kind - 3]


def throw(stream: bytes, port: int) -> str:
    """Write bytes to a port and return how it ended."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(stream)
            connection.settimeout(0.3)
            while connection.recv(2**16):
                pass
            return "closed by the listener"
    except TimeoutError:
        return "left by the sender"
    except OSError:
        return "reset by the listener"


def huge_file(small: Path, path: Path, gigabytes: float) -> Path:
    """Write a copy of an image with a private element of zeros behind its pixels; most of it takes no disk space."""
    shutil.copyfile(small, path)
    length = int(gigabytes * 2**30) // 2 * 2
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, length))
        file.truncate(file.tell() + length)
    return path


class Listener:
    """The listener as a process of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.state = folder / "state"
        usual = {"state_dir": "state", "port": self.port, "models": [{"name": "none", "args_file": "none.yaml"}]}
        folder.mkdir()
        (folder / "service.yaml").write_text(yaml.safe_dump({**usual, **settings}))
        command = [sys.executable, "-m", "bundle.service", "listen", "--config", str(folder / "service.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until = time.monotonic() + 240
        while not echo(self.port):
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError((folder / "log.txt").read_text()[-2000:])
            time.sleep(0.2)
        self.echoes: list[float] = []
        self.unanswered = 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watch_echo)
        self._watch.start()

    def _watch_echo(self) -> None:
        while not self._stop.wait(0.5):
            begun = time.monotonic()
            if echo(self.port):
                self.echoes.append(time.monotonic() - begun)
            else:
                self.unanswered += 1

    def peak_mib(self) -> float:
        """Return the most memory that the process has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def images(self) -> int:
        """Return how many images are in the queue."""
        queue = JobQueue(self.state / "queue.sqlite")
        (row,) = queue.rows("SELECT COUNT(*) AS n FROM instances")
        queue.close()
        return row["n"]

    def end(self) -> str:
        """Stop it and return whether it had stayed up."""
        self._stop.set()
        self._watch.join()
        up = self.process.poll() is None and echo(self.port)
        self.process.terminate()
        self.process.wait(60)
        slowest = max(self.echoes, default=0)
        return (
            f"{'up all the time' if up else 'DOWN'}; {len(self.echoes)} echoes beside it answered, "
            f"{self.unanswered} not, slowest {slowest:.1f} s"
        )


def main() -> None:
    """Run all of it and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--garbage", type=int, default=2000, help="damaged associations")
    parser.add_argument("--gigabytes", type=float, default=3, help="size of the huge object, below 4")
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--images", type=int, default=10, help="of each sender")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image.dcm"
        write_phantom(image, "cr", 0)
        listener = Listener(folder / "usual")
        before = listener.peak_mib()
        try:
            garbage(listener, image, args.garbage, args.seed)
            wrong = sum(echo(listener.port, called) for called in ("OTHER", "bundle", "BUNDLE2", "ANY-SCP", "X" * 16))
            print(f"wrong titles: {wrong} of 5 associations accepted")
            huge = huge_file(image, folder / "huge.dcm", args.gigabytes)
            begun = time.monotonic()
            statuses = send([huge], listener.port, "HUGE")
            print(
                f"object of {args.gigabytes} GiB, limit 512 MiB: {words(statuses)} in {time.monotonic() - begun:.0f} s"
            )
            many_senders(listener, folder, args.senders, args.images)
            print(f"memory of the listener: {before:.0f} MiB at the start, at most {listener.peak_mib():.0f} MiB")
        finally:
            print(f"listener: {listener.end()}")
        listener = Listener(folder / "large", max_object_bytes=2**32)
        before = listener.peak_mib()
        try:
            begun = time.monotonic()
            statuses = send([huge], listener.port, "HUGE")
            took = time.monotonic() - begun
            print(f"object of {args.gigabytes} GiB, limit 4 GiB: {words(statuses)} in {took:.0f} s")
            print(f"memory of the listener: {before:.0f} MiB at the start, at most {listener.peak_mib():.0f} MiB")
        finally:
            print(f"listener: {listener.end()}")


def garbage(listener: Listener, image: Path, count: int, seed: int) -> None:
    """Throw damaged copies of an association at the listener."""
    stream, rng = recorded(image, listener.port), np.random.default_rng(seed)
    with ThreadPoolExecutor(8) as pool:
        ends = Counter(pool.map(lambda s: throw(s, listener.port), [damaged(stream, rng) for _ in range(count)]))
    told = ", ".join(f"{number} {end}" for end, number in sorted(ends.items()))
    print(f"damaged associations: {count}, {told}; {listener.images()} images in the queue")


def many_senders(listener: Listener, folder: Path, senders: int, images: int) -> None:
    """Send from many at once."""
    groups = [[folder / f"{s}_{i}.dcm" for i in range(images)] for s in range(senders)]
    for number, file in enumerate(file for group in groups for file in group):
        write_phantom(file, "cr", number + 1)
    before, begun = listener.images(), time.monotonic()
    with ThreadPoolExecutor(senders) as pool:
        answers = pool.map(lambda g: send(groups[g], listener.port, f"SENDER{g}"), range(senders))
        statuses = [status for answer in answers for status in answer]
    took = time.monotonic() - begun
    arrived = listener.images() - before
    print(
        f"{senders} senders at once, {images} images each: {words(statuses)}, {arrived} in the queue, "
        f"{len(statuses) / took:.0f} images/s"
    )


def words(statuses: Sequence[int | None]) -> str:
    """Return how many got which answer."""
    names = {0: "accepted", None: "association ended"}
    counted = Counter(names.get(status, f"status 0x{status or 0:04X}") for status in statuses)
    return ", ".join(f"{number} {name}" for name, number in counted.items())


if __name__ == "__main__":
    main()
