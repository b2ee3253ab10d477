# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure what docs/performance.md says, one command a figure; ratios are taken in one run, medians of several turns.

    python scripts/benchmarks/benchmark.py inference      # ADFA, its backbone's taps, the paper's form
    python scripts/benchmarks/benchmark.py training       # a training epoch from kept features beside the paper's
    python scripts/benchmarks/benchmark.py memory         # peak memory of a large image and of a training step
    python scripts/benchmarks/benchmark.py start          # from the command to an image's report
    python scripts/benchmarks/benchmark.py scale          # time per image and memory, however many images
    python scripts/benchmarks/benchmark.py profile        # steps above 10 % of inference and training
    python scripts/benchmarks/benchmark.py soft_topk|reading|mining|attention   # the scripts of these tables

`--quick` takes fewer turns and EfficientNet-Lite0 only; `all --quick` stays under two minutes on an idle machine.
The sweeps of the paper's formulation take minutes an image: only `--rows` patches of an image go through them, and the
time of the others is extrapolated, which is exact in the arithmetic, as patches do not depend on each other.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import platform
import pstats
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from benchmark_reading import our_chain, synthetic_radiographs
from monai.bundle import ConfigParser
from paper_adfa import paper_map
from PIL import Image

from bundle.anomaly import FeatureCache, MeanDistanceLoss
from bundle.anomaly.adfa import ADFA
from bundle.classification.attention_lite import AttentionLite0
from bundle.command.memory import keep_freed_memory
from bundle.localization.erasure import erased_logits
from bundle.localization.inferer import AttentionMiningInferer
from bundle.localization.msa import MSA
from bundle.model import save_start

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parents[1]
PAPER = {"descriptor_channels": None, "epsilon": 0.1, "map_stride": 4, "whole_weight": 0.0}
DEFAULT = {"descriptor_channels": 0, "epsilon": 0.0, "map_stride": 8}
MAP_ALONE = {**DEFAULT, "whole_weight": 0.0}
OTHERS = {
    "soft_topk": ("benchmark_soft_topk.py", ["--repeats", "1", "--rows", "128"]),
    "reading": ("benchmark_reading.py", ["--repeats", "1"]),
    "mining": ("benchmark_mining.py", ["--repeats", "1", "--time_only", "--networks", "efficientnet_lite0"]),
    "attention": ("attention_cost.py", ["--rounds", "1", "--batch_size", "1"]),
}


def machine() -> str:
    """Return the processor's name."""
    file = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in file.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.processor()


def make(backbone: str, setting: dict, size: int = 224) -> ADFA:
    """Return a network with random weights and centers of a random image; the cost does not depend on them."""
    torch.manual_seed(0)
    network = ADFA((size, size), backbone, "random", **setting).eval()
    with torch.no_grad():
        network.center_bank.set_centers(network.describe(torch.rand(1, 3, size, size))[0])
    return network


def seconds(functions: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median time of each, measured in turn after one turn to warm up: processor time with one thread."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if turn:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def paper_seconds(network: ADFA, function: Callable[[int], object], rows: int) -> float:
    """Return the time of the paper's formulation, from that of two numbers of rows of each image."""
    few = rows // 4
    part = seconds({"some": lambda: function(rows), "few": lambda: function(few)}, 1)
    each = (part["some"] - part["few"]) / (rows - few)
    if each <= 0:  # the machine was busy
        return math.nan
    return part["few"] + each * (len(network.center_bank.centers) - few)


def inference(args: argparse.Namespace) -> None:
    """Print the time of an image beside that of the backbone's taps alone and of the paper's formulation."""
    head = ("backbone", "setting", "taps, ms", "ADFA, ms", "ADFA / taps", "paper, ms", "paper / ADFA")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    image = torch.rand(args.batch, 3, 224, 224)
    for backbone in args.backbones:
        network = make(backbone, PAPER)
        with torch.inference_mode():
            slow = paper_seconds(network, lambda rows, n=network: paper_map(n, image, 200, rows), args.rows)
        settings = {
            "paper's: soft 0.1, stride 4": PAPER,
            "default's map alone: hard, stride 8": MAP_ALONE,
            "default: and the whole image, beside the trunk up to stride 32": DEFAULT,
        }
        for name, setting in settings.items():
            network = make(backbone, setting)
            with torch.inference_mode():
                found = seconds(
                    {"taps": lambda n=network: n.backbone(image), "all": lambda n=network: n(image)}, args.turns
                )
            taps, ours, paper = (1000 * t / args.batch for t in (found["taps"], found["all"], slow))
            cells = f"{taps:.1f} | {ours:.1f} | {ours / taps:.2f} | {paper:.0f} | {paper / ours:.0f}"
            print(f"| {backbone} | {name} | {cells} |", flush=True)


def training_functions(backbone: str, batch: int, batches: int = 1) -> dict[str, Callable]:
    """Return an epoch from kept features, one that computes them, and a step of the paper's formulation."""
    network, loss, cache = make(backbone, PAPER), MeanDistanceLoss(), FeatureCache()
    images = [torch.rand(batch, 3, 224, 224) for _ in range(batches)]
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])

    def step(distances: Callable[[], torch.Tensor], kept: FeatureCache | None) -> None:
        network.backbone.cache = kept
        optimizer.zero_grad()
        loss(distances()).backward()
        optimizer.step()

    def epoch(kept: FeatureCache | None) -> None:
        for image in images:
            step(lambda image=image: network(image), kept)

    return {
        "kept": lambda: epoch(cache),
        "computed": lambda: epoch(None),
        "paper": lambda rows=None: step(lambda: paper_map(network, images[0], 200, rows), None),
    }


def training(args: argparse.Namespace) -> None:
    """Print the time of a training epoch of several batches; the paper's is so many times that of its step."""
    batches = 1 if args.quick else 4
    print(f"An epoch of {batches * args.batch} images in batches of {args.batch}\n")
    print("| backbone | features kept, s | computed, s | paper, s | paper / kept |\n|---|---|---|---|---|")
    for backbone in args.backbones:
        epochs = training_functions(backbone, args.batch, batches)
        epochs["kept"]()  # what comes for the second time is kept
        found = seconds({name: epochs[name] for name in ("kept", "computed")}, args.turns)
        slow = batches * paper_seconds(make(backbone, PAPER), epochs["paper"], args.rows)
        kept, computed = found["kept"], found["computed"]
        print(f"| {backbone} | {kept:.1f} | {computed:.1f} | {slow:.0f} | {slow / kept:.0f} |", flush=True)


def memory_job(job: str) -> None:
    """Run one job; its peak memory is that of the process."""
    if job == "training":
        step = training_functions("efficientnet_lite0", 10)["kept"]
        for _ in range(3):
            step()
        return
    network = make("efficientnet_lite0", PAPER, 1024)
    if job == "image":
        with torch.inference_mode():
            network(torch.rand(1, 3, 1024, 1024))


def memory(args: argparse.Namespace) -> None:
    """Print the peak of the resident set of fresh processes, and the arithmetic of what would not fit into one."""
    print("| job (EfficientNet-Lite0, the paper's setting) | peak, MiB |\n|---|---|")
    jobs = {
        "training": "training step, 224 x 224, batch 10, features kept",
        "image": "1024 x 1024 image, 65,536 patches",
    }
    if args.quick:
        del jobs["training"]
    for job, text in jobs.items():  # the smaller one first: the system tells the largest child's peak
        subprocess.run([sys.executable, __file__, "memory", "--job", job], check=True)
        print(f"| {text} | {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} |", flush=True)
    for text, patches, images in (("training step", 3136, 10), ("1024 x 1024 image", 65536, 1)):
        # the distances, the cost and its kernel for two anchors, and a sweep's product with the kernel, float32
        print(f"| paper, {text}: the sweeps' arrays, computed | {images * patches**2 * 4 * 7 / 2**20:.0f} |")


def start(args: argparse.Namespace) -> None:
    """Print how long it takes until an image has its result, beside what of it is MONAI's own import."""
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            "Python alone": ["-c", ""],
            "import monai.bundle": ["-c", "import monai.bundle"],
            "the same, and this package": [
                "-c",
                "import monai.bundle, bundle.reading.reader, bundle.results.handler, bundle.anomaly.adfa",
            ],
            "inference of one image, from command to report": inference_call(Path(folder), 1, []),
        }
        if args.quick:
            del jobs["the same, and this package"]
        times: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(args.turns):
            for name, call in jobs.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *call], check=True, cwd=ROOT, capture_output=True)
                times[name].append(time.perf_counter() - began)
    print("| job | seconds |\n|---|---|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.1f} |")


def inference_call(folder: Path, count: int, flags: list[str], size: int = 224) -> list[str]:
    """Make synthetic images and a random network in a folder, and return the arguments of Python that run inference."""
    images, model = folder / "images", folder / "model"
    images.mkdir(), model.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (size + 32, size + 32), dtype=np.uint8)).save(images / f"{i:06d}.png")
    files = ConfigParser.load_config_file(ROOT / "configs" / "args_adfa_train.yaml")["config_file"]
    config = ConfigParser(ConfigParser.load_config_files([str(ROOT / file) for file in files]))
    config["image_size"] = [size, size]
    save_start(config, model, make("efficientnet_lite0", DEFAULT, size))
    call = ["-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_inference.yaml"]
    given = {"input": images, "model_dir": model, "output_dir": folder / "out", "calibration": None}
    return call + [str(word) for name, value in given.items() for word in (f"--{name}", value)] + flags


def scale(args: argparse.Namespace) -> None:
    """Print time per image and peak memory of the inference command on folders of more and more images."""
    print("As a user starts it: PyTorch chooses its number of threads.\n")
    head = ("images", "seconds in all", "ms an image beyond the smallest folder", "peak, MiB", "report, MiB")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    counts = args.counts or ((10,) if args.quick else (100, 1000, 10000))
    first: tuple[int, float] | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            call = inference_call(Path(folder), count, args.flags, args.size)
            began = time.perf_counter()
            subprocess.run([sys.executable, *call], check=True, cwd=ROOT, capture_output=True)
            took = time.perf_counter() - began
            report = (Path(folder) / "out" / "report.html").stat().st_size / 2**20
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        each = "" if first is None else f"{1000 * (took - first[1]) / (count - first[0]):.0f}"
        first = first or (count, took)
        print(f"| {count} | {took:.1f} | {each} | {peak:.0f} | {report:.1f} |", flush=True)


def other_families() -> dict[str, tuple[Callable[[], object], bool]]:
    """Return an inference and a training step of the other families, random weights, by name; True for inference."""
    sna, msa = AttentionLite0(2, weights=None), MSA(14, weights=None)
    small, large, labels = torch.rand(10, 3, 224, 224), torch.rand(2, 3, 512, 512), torch.ones(10, 2)
    mined = (torch.rand(2, 14, 32, 32) > 0.1).float()

    def sna_step() -> None:
        F.binary_cross_entropy_with_logits(sna.train()(small), labels).backward()

    def mining_step() -> None:
        logits = erased_logits(msa.train()(large), mined)
        F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()

    return {
        "SNA, inference": (lambda: sna.eval()(small), True),
        "SNA, training": (sna_step, False),
        "MSA, inference with three steps": (lambda: AttentionMiningInferer(3)(large, msa.eval()), True),
        "MSA, mining in training": (mining_step, False),
    }


def profile(args: argparse.Namespace) -> None:
    """Print the share of each operation of an inference and of a training step of each family."""
    network, image = make("efficientnet_lite0", DEFAULT), torch.rand(10, 3, 224, 224)
    soft, kept = make("efficientnet_lite0", PAPER), training_functions("efficientnet_lite0", 10)["kept"]
    jobs = {
        "ADFA, inference, default": (lambda: network(image), True),
        "ADFA, inference, paper's setting": (lambda: soft(image), True),
        "ADFA, training from kept features, paper's setting": (kept, False),
        **other_families(),
    }
    for name, (run, infer) in jobs.items():
        with torch.inference_mode(infer):
            run()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                run()
        events = [(e.key, e.self_cpu_time_total) for e in found.key_averages()]
        whole = sum(spent for _, spent in events)
        print(f"\n{name}\n\n| operation | share |\n|---|---|")
        for key, spent in sorted(events, key=lambda event: -event[1])[:8]:
            print(f"| {key} | {100 * spent / whole:.0f} % |")
    if args.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in synthetic_radiographs(Path(folder)):
            profile_decoding(path)


def profile_decoding(path: Path) -> None:
    """Print the share of each function of reading a synthetic radiograph and fitting it to the network."""
    chain, profiler = our_chain(), cProfile.Profile()
    chain({"image": str(path)})
    profiler.runcall(lambda: [chain({"image": str(path)}) for _ in range(5)])
    stats = pstats.Stats(profiler)
    found = {f"{Path(file).name}:{name}": own for (file, _, name), (_, _, own, *_) in stats.stats.items()}  # type: ignore[attr-defined]
    print(f"\nDecoding, {path.stem}\n\n| function | share |\n|---|---|")
    for key, spent in sorted(found.items(), key=lambda item: -item[1])[:6]:
        print(f"| {key.removeprefix('~:')} | {100 * spent / sum(found.values()):.0f} % |")


def main() -> None:
    """Parse the command line and print what was asked for."""
    figures = {f.__name__: f for f in (inference, training, memory, start, scale, profile)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=[*figures, *OTHERS, "all"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch", type=int, default=None, help="images at once: 1 for inference, 10 for training")
    parser.add_argument("--rows", type=int, default=256, help="patches that go through the sweeps")
    parser.add_argument("--counts", type=int, nargs="+", help="scale: numbers of images")
    parser.add_argument("--size", type=int, default=224, help="scale: rows and columns of the network's images")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="scale: further flags of the inference")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads[0])
    keep_freed_memory()  # as every run does
    if args.job:
        memory_job(args.job)
        return
    if args.quick:
        args.turns, args.rows = 1, 32
    args.backbones = ("efficientnet_lite0",) if args.quick else ("efficientnet_lite0", "wide_resnet50_2")
    print(f"{machine()}, torch {torch.__version__}")
    for name in [*figures, *OTHERS] if args.figure == "all" else [args.figure]:
        for threads in args.threads:
            torch.set_num_threads(threads)
            print(f"\n## {name}, {threads} threads\n", flush=True)
            if name in figures:
                batch = args.batch or (10 if name == "training" else 1)
                figures[name](argparse.Namespace(**{**vars(args), "batch": batch}))
            else:
                script, quick = OTHERS[name]
                sys.argv = [script, "--threads", str(threads), *(quick if args.quick else [])]
                runpy.run_path(str(SCRIPTS / script), run_name="__main__")


if __name__ == "__main__":
    main()
