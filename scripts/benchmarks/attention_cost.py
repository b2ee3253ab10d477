# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Print what every attention block costs: parameters, multiply-adds, and images per second, all measured in one run.

The blocks are timed in turn, round after round, so that a busy moment of the machine falls on all of them; the fastest
round of each counts.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bundle.classification.sna_densenet import SNADenseNet
from bundle.classification.sna_resnet import SNAResNet
from bundle.networks.attention.make import ATTENTION_NAMES

NETWORKS = {"ResNet-18": (SNAResNet, 18), "DenseNet-121": (SNADenseNet, 121)}


@torch.inference_mode()
def seconds(network: nn.Module, image: torch.Tensor) -> float:
    """Return the wall time of one forward pass."""
    if image.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def multiply_adds(network: nn.Module, image: torch.Tensor) -> float:
    """Return the multiply-adds of the convolutions, linear layers and matrix products for one image."""
    with FlopCounterMode(display=False) as counter:
        network(image[:1])
    return counter.get_total_flops() / 2


def main() -> None:
    """Parse the arguments and print one table a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size, threads = (args.image_size, args.image_size), args.threads
    image = torch.rand(args.batch_size, 3, *size, device=args.device)
    print(f"torch {torch.__version__} on {args.device}, {threads} threads, batch {args.batch_size}, {size}\n")
    for title, (net, depth) in NETWORKS.items():
        networks = {
            name: net(args.num_classes, depth, image_size=size, attention=name).to(args.device).eval()
            for name in ATTENTION_NAMES
        }
        times: dict[str, list[float]] = {name: [] for name in networks}
        for i in range(args.rounds + 1):
            for name, network in networks.items():
                elapsed = seconds(network, image)
                if i > 0:  # the first round warms up
                    times[name].append(elapsed)
        plain = min(times["none"])
        print(f"| {title} | parameters | in 2^20 | multiply-adds (G) | images per second | time against none |")
        print("|---|---|---|---|---|---|")
        for name, network in networks.items():
            count, best = sum(p.numel() for p in network.parameters()), min(times[name])
            print(
                f"| {name} | {count:,} | {count / 2**20:.3f} | {multiply_adds(network, image) / 1e9:.3f} "
                f"| {args.batch_size / best:.1f} | {best / plain - 1:+.1%} |"
            )
        print()


if __name__ == "__main__":
    main()
