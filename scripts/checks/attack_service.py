# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Attack a listener with default limits, beside an honest sender, and say what came of it.

``bombs``: deflated objects of some kilobytes that inflate to millions of items or hundreds of megabytes.
``silent``: callers that connect and say nothing.

Each begins with a start of the listener, whose time and memory are told. Every image is a synthetic phantom.

Usage: python scripts/checks/attack_service.py [bombs silent]
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.sop_class import ComputedRadiographyImageStorage

sys.path.insert(0, str(Path(__file__).resolve().parent))
from stress_service import Listener, words

from bundle.synthetic.phantoms import write_phantom

ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
SEQUENCE = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)


def bomb(folder: Path, number: int, megabytes: int) -> Path:
    """Write an image, deflated, with a sequence of empty items (even numbers) or one long value before its elements."""
    path, small = folder / f"bomb_{number}.dcm", folder / f"small_{number}.dcm"
    write_phantom(small, "cr", 1000 + number)
    dataset = dcmread(small)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.PixelData = b""
    dataset.save_as(path)
    with path.open("rb") as file:
        file.seek(140)  # preamble, prefix, head of the group's length
        end = 144 + struct.unpack("<L", file.read(4))[0]
    head, body = path.read_bytes()[:end], path.read_bytes()[end:]
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    size = megabytes * 2**20
    value = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, size)
    packed = [deflater.compress(SEQUENCE if number % 2 == 0 else value)]
    packed += [deflater.compress(ITEM * 2**17 if number % 2 == 0 else bytes(2**20)) for _ in range(megabytes)]
    path.write_bytes(head + b"".join(packed) + deflater.compress(zlib.decompress(body, -15)) + deflater.flush())
    return path


def store(file: Path, port: int, title: str, syntax: str) -> int | None:
    """Return the status that a file gets, ``None`` where the association ended."""
    node = AE(title)
    node.acse_timeout = node.dimse_timeout = node.network_timeout = 120
    node.add_requested_context(ComputedRadiographyImageStorage, syntax)
    association = node.associate("127.0.0.1", port, ae_title="BUNDLE")
    if not association.is_established:
        return None
    status = association.send_c_store(file).get("Status")
    association.release()
    return status


def attacked(folder: Path, attack: Callable[[Listener], str]) -> None:
    """Start a listener, attack it, and send an honest study meanwhile."""
    begun = time.monotonic()
    listener = Listener(folder / "listener")
    print(f"listener: answers after {time.monotonic() - begun:.1f} s, {listener.peak_mib():.0f} MiB")
    image = folder / "honest.dcm"
    write_phantom(image, "cr", 1)
    syntax = str(dcmread(image, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    try:
        with ThreadPoolExecutor(1) as pool:
            attackers = pool.submit(attack, listener)
            time.sleep(0.5)
            begun = time.monotonic()
            while (status := store(image, listener.port, "HONEST", syntax)) != 0 and time.monotonic() < begun + 120:
                time.sleep(1)  # as senders do
            took = time.monotonic() - begun
            print(attackers.result())
        print(f"honest sender: {words([status])} in {took:.1f} s; {listener.images()} image in the queue")
        print(f"memory of the listener: at most {listener.peak_mib():.0f} MiB")
    finally:
        print(f"listener: {listener.end()}")


def bombs(folder: Path) -> None:
    """Send eight at once."""
    files = [bomb(folder, number, (16, 400)[number % 4 // 2]) for number in range(8)]
    sizes = sorted({file.stat().st_size // 1000 for file in files})

    def attack(listener: Listener) -> str:
        with ThreadPoolExecutor(8) as pool:
            syntax = str(DeflatedExplicitVRLittleEndian)
            statuses = list(pool.map(lambda f: store(f, listener.port, f.stem.upper(), syntax), files))
        return f"8 deflated objects of {', '.join(map(str, sizes))} kB: {words(statuses)}"

    attacked(folder, attack)


def silent(folder: Path) -> None:
    """Connect and say nothing."""

    def attack(listener: Listener) -> str:
        callers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(80)]
        time.sleep(15)
        for caller in callers:
            caller.close()
        return "80 connections without a word for 15 s"

    attacked(folder, attack)


ATTACKS = {"bombs": bombs, "silent": silent}


def main() -> None:
    """Run the attacks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="attack", help=f"of {', '.join(ATTACKS)}; all if none is given")
    args = parser.parse_args()
    if unknown := set(args.attacks) - set(ATTACKS):
        parser.error(f"attack must be one of {', '.join(ATTACKS)}, got {', '.join(sorted(unknown))}.")
    _config.STORE_SEND_CHUNKED_DATASET = True  # or the attacker would be the first to inflate them
    _config.LOG_HANDLER_LEVEL = "none"
    for name in args.attacks or ATTACKS:
        print(f"== {name}")
        with tempfile.TemporaryDirectory() as folder:
            ATTACKS[name](Path(folder))


if __name__ == "__main__":
    main()
