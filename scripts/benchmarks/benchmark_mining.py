# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure what attention mining costs: time at inference, and memory of a training step.

    python scripts/benchmarks/benchmark_mining.py

Prints the time of three-step mining with maps, final map, probabilities and boxes beside that of a single class
activation map with its boxes, and the peak memory of one training step beside the naive erasure of Eq. 1, for 14
classes. On a CPU the memory is the growth of the resident set of a fresh process (Linux); on a GPU, CUDA's own peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from bundle.localization.erasure import class_activation_maps, erased_logits
from bundle.localization.inferer import AttentionMiningInferer
from bundle.localization.msa import MSA

NETWORKS = ("resnet50", "resnet18", "efficientnet_lite0")


def make(name: str, num_classes: int) -> torch.nn.Module:
    """Return a network with random weights; the cost does not depend on them."""
    return MSA(num_classes, name, weights=None)


@torch.no_grad()
def seconds(name: str, args: argparse.Namespace) -> tuple[float, float]:
    """Return the median time of an image with one step and with three, in turn; processor time of one CPU thread."""
    clock = time.process_time if args.device == "cpu" and args.threads == 1 else time.perf_counter
    network = make(name, args.classes).eval().to(args.device)
    image = torch.rand(1, 3, args.size, args.size, device=args.device)
    times: dict[int, list[float]] = {1: [], 3: []}
    for _ in range(args.repeats + 2):
        for steps, values in times.items():
            start = clock()
            AttentionMiningInferer(steps)(image, network)["boxes"].cpu()
            values.append(clock() - start)
    return tuple(sorted(v[2:])[args.repeats // 2] for v in times.values())  # two rounds to warm up


def training_step(
    name: str, naive: bool, head_only: bool, args: argparse.Namespace, out: multiprocessing.Queue
) -> None:
    """Put the peak memory of one training step, in MiB, into ``out``; runs in a process of its own."""
    network = make(name, args.classes).train().to(args.device)
    labels = torch.zeros(args.batch, args.classes, device=args.device)
    images = torch.rand(args.batch, 3, args.size, args.size, device=args.device)
    weight = network.classifier.weight.flatten(1)
    side = -(-args.size // 16)
    masks = torch.rand(args.batch, args.classes, side, side, device=args.device) > 0.2
    features = torch.rand(args.batch, weight.shape[1], side, side, device=args.device, requires_grad=True)
    if args.device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
        before = resident_mebibytes("VmRSS")
    else:
        torch.cuda.reset_peak_memory_stats()
    if not head_only:
        penultimate = network.penultimate(network.shallow(images))
        features = network.aggregation(penultimate, network.last(penultimate))
    if naive:
        erased = features[:, None] * masks[:, :, None]  # (B, C, D, H, W)
        logits = (erased.mean(dim=(-2, -1)) * weight).sum(dim=-1)
    else:
        logits = erased_logits(class_activation_maps(features, weight), masks)
    F.binary_cross_entropy_with_logits(logits, labels).backward()
    if args.device == "cpu":
        out.put(resident_mebibytes("VmHWM") - before)
    else:
        out.put(torch.cuda.max_memory_allocated() / 2**20)


def resident_mebibytes(name: str) -> float:
    """Return a figure of this process's status file in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def peak(name: str, naive: bool, head_only: bool, args: argparse.Namespace) -> float:
    """Return the peak memory in MiB of a step in a fresh process."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=training_step, args=(name, naive, head_only, args, out))
    process.start()
    value = out.get()
    process.join()
    return value


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4, help="images of the training step")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time_only", action="store_true", help="leave out the memory of a training step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.classes} classes, {args.size} x {args.size}, {args.device}, {args.threads} threads\n")
    print("| network | 1 map, ms | 3 maps mined, ms | ratio |\n|---|---|---|---|")
    for name in args.networks:
        one, three = seconds(name, args)
        print(f"| {name} | {1000 * one:.0f} | {1000 * three:.0f} | {three / one:.3f} |", flush=True)
    if args.time_only:
        return
    print(f"\nPeak memory of a training step on {args.batch} images, MiB\n")
    print("| network | part | erasing maps | erasing features (Eq. 1) |\n|---|---|---|---|")
    for name in args.networks:
        for part in ("head alone", "whole network"):
            ours, naive = (peak(name, way, part == "head alone", args) for way in (False, True))
            print(f"| {name} | {part} | {ours:.0f} | {naive:.0f} |", flush=True)


if __name__ == "__main__":
    main()
