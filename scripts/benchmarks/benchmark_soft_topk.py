# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Time SOFT top-k in closed form against Sinkhorn sweeps, forward and backward: processor time with one thread.

Both references follow Xie et al. (2020, https://arxiv.org/abs/2002.06504): the plain sweeps at epsilon above 0.01 and
the stabilized ones in the log domain from there down, each with the backward pass of its implicit derivative rather
than through the sweeps, which is the faster choice.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from bundle.anomaly.topk import soft_topk, soft_topk_reference


def _cost(d: torch.Tensor) -> torch.Tensor:
    return torch.stack([d.square(), (d - 1).square()], dim=-1)  # (rows, n, 2)


def plain_plan(cost: torch.Tensor, masses: torch.Tensor, epsilon: float, sweeps: int) -> torch.Tensor:
    """Return the transport plan (rows, n, 2) by Sinkhorn sweeps on the kernel."""
    n = cost.shape[1]
    kernel = torch.exp(-cost / epsilon)
    v = torch.full((cost.shape[0], 1, 2), 0.5, dtype=cost.dtype)
    for _ in range(sweeps):
        u = (1 / n) / (kernel * v).sum(dim=-1, keepdim=True)
        v = masses / (kernel * u).sum(dim=-2, keepdim=True)
    return u * kernel * v


def stabilized_plan(cost: torch.Tensor, masses: torch.Tensor, epsilon: float, sweeps: int) -> torch.Tensor:
    """Return the transport plan (rows, n, 2) by Sinkhorn sweeps on the potentials."""
    n = cost.shape[1]
    log_mu, log_nu = epsilon * torch.tensor(1 / n, dtype=cost.dtype).log(), epsilon * masses.log()
    g = torch.zeros(cost.shape[0], 1, 2, dtype=cost.dtype)
    for _ in range(sweeps):
        f = log_mu - epsilon * torch.logsumexp((g - cost) / epsilon, dim=-1, keepdim=True)
        g = log_nu - epsilon * torch.logsumexp((f - cost) / epsilon, dim=-2, keepdim=True)
    return torch.exp((f + g - cost) / epsilon)


class SinkhornTopK(torch.autograd.Function):
    """Weights of SOFT top-k by Sinkhorn sweeps, with the implicit derivative of the plan."""

    @staticmethod
    def forward(ctx, distances: torch.Tensor, k: int, epsilon: float, sweeps: int) -> torch.Tensor:
        """Return the weights, shape of ``distances``."""
        n = distances.shape[-1]
        masses = torch.tensor([k / n, (n - k) / n], dtype=distances.dtype)
        plan = (plain_plan if epsilon > 0.01 else stabilized_plan)(_cost(distances), masses, epsilon, sweeps)
        ctx.save_for_backward(plan, distances)
        ctx.epsilon = epsilon
        return plan[..., 0] * n

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient for ``distances``."""
        # plan = exp((f + g - cost) / epsilon) with fixed margins: solve for how f and g move with the cost (g_2 = 0)
        plan, distances = ctx.saved_tensors
        n = distances.shape[-1]
        near, far = plan[..., 0], plan[..., 1]
        across = (near * far).sum(dim=-1, keepdim=True) * n  # the 1 x 1 Schur complement
        inner = grad * n * near  # (rows, n)
        share = (inner * far).sum(dim=-1, keepdim=True) * n / across
        row = n * (inner - near * share)
        gradient_near = (near * (row + share) - inner) / ctx.epsilon
        gradient_far = far * row / ctx.epsilon
        return gradient_near * 2 * distances + gradient_far * 2 * (distances - 1), None, None, None


def seconds(
    function: Callable[[torch.Tensor], torch.Tensor], d: torch.Tensor, upstream: torch.Tensor, repeats: int
) -> tuple[float, float]:
    """Return the median time of the forward pass, and of forward and backward pass together."""
    # of one thread, what else runs on the machine does not count
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    forward, both = [], []
    for _ in range(repeats):
        x = d.clone().requires_grad_()
        start = clock()
        out = function(x)
        forward.append(clock() - start)
        out.backward(upstream)
        both.append(clock() - start)
    return statistics.median(forward), statistics.median(both)


def compare(arguments: argparse.Namespace, epsilon: float) -> None:
    """Print the two lines of one epsilon: forward, and forward with backward."""
    generator = torch.Generator().manual_seed(arguments.seed)
    d = torch.rand(arguments.rows, arguments.n, generator=generator)
    upstream = torch.rand(d.shape, generator=generator)

    def ours(x: torch.Tensor) -> torch.Tensor:
        return soft_topk(x, arguments.k, epsilon)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return SinkhornTopK.apply(x, arguments.k, epsilon, arguments.sweeps)

    exact = soft_topk_reference(d.double(), arguments.k, epsilon)
    errors = [(function(d).double() - exact).abs().max().item() for function in (ours, theirs)]
    closed = seconds(ours, d, upstream, 5 * arguments.repeats)
    sweeps = seconds(theirs, d, upstream, arguments.repeats)
    for name, mine, reference in zip(("forward", "forward + backward"), closed, sweeps, strict=True):
        print(
            f"| {epsilon:g} | {name} | {1e3 * mine:.1f} | {1e3 * reference:.0f} | {reference / mine:.0f} "
            f"| {errors[0]:.1e} | {errors[1]:.1e} |",
            flush=True,
        )


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512, help="rows of distances")
    parser.add_argument("--n", type=int, default=3136, help="distances in a row")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--sweeps", type=int, default=200, help="Sinkhorn sweeps")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of the sweeps, five times as many of ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__} on the CPU")
    size = f"{arguments.rows} x {arguments.n} float32, k = {arguments.k}, {arguments.sweeps} sweeps"
    print(f"{size}, {arguments.threads} threads, medians")
    print("| epsilon | pass | closed form, ms | Sinkhorn, ms | ratio | error of closed form | error of Sinkhorn |")
    print("|---|---|---|---|---|---|---|")
    for epsilon in arguments.epsilon:
        compare(arguments, epsilon)


if __name__ == "__main__":
    main()
