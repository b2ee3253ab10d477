# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Check built zoo bundles as a stranger would meet them: unpacked from the zip, away from this repository.

    python scripts/checks/check_zoo.py build/zoo/*.zip [--venv]

Each bundle is checked by one new process in an empty folder that finds nothing of this project but the unpacked zip:
metadata against the schema, shapes, properties, loading by name, TorchScript, and a short training, evaluation and
inference on synthetic images, and training in two processes (gloo, on the CPU). With --venv that process gets a new
virtual environment with exactly the versions that the bundle's metadata.json names (and jsonschema), from the package
index. Only --schema '' needs the network otherwise: it takes the official schema instead of zoo/metadata.schema.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {"image_size": [64, 64], "resize": [64, 64], "batch_size": 4}
SCHEMA = Path(__file__).resolve().parents[2] / "zoo" / "metadata.schema.json"


def write_images(folder: Path, classes: list[str]) -> None:
    """Write synthetic pictures, noise with or without a white square, in folders and with a label table and boxes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    rows: list[list[Any]] = []
    for i in range(24):
        pixels, square = random.integers(60, 90, (80, 80)).astype(np.uint8), i % 2
        pixels[20:50, 30:60] += np.uint8(150 * square)
        split = ("training", "validation", "test")[i // 8]
        name = f"{'test' if split == 'test' else 'train'}/{'square' if square else 'good'}/{i:02d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
        rows.append(
            [name, f"patient {i}", split, *(int(n == square) for n in range(2)), *[square] * (len(classes) - 2)]
        )
    boxes = [["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"]]
    finding = "Mass" if classes[1:] == ["square"] else "".join(classes[1:2])  # ADFA has no classes: any finding
    boxes += [[Path(row[0]).name, finding, 30, 20, 30, 30] for row in rows if row[4]] if finding else []
    for file, table in (("labels.csv", [["image", "patient", "split", *classes], *rows]), ("boxes.csv", boxes)):
        with (folder / file).open("w", newline="") as stream:
            csv.writer(stream).writerows(table)


def checks_of(root: Path, schema: str, work: Path) -> dict[str, Callable[[], None]]:
    """Return the checks of an unpacked bundle by name."""
    from monai import bundle

    configs = root / "configs"
    meta, inference = str(configs / "metadata.json"), str(configs / "inference.json")
    classes = json.loads((configs / "train.json").read_text()).get("classes", ["normal", "square"])
    data, trained = work / "data", work / "trained"
    write_images(data, classes)
    places = {"bundle_root": str(root), "dataset_dir": str(data)}
    if "boxes_path" in json.loads((configs / "evaluate.json").read_text()):
        places["boxes_path"] = str(data / "boxes.csv")

    def metadata() -> None:
        file = work / "schema.json"
        if schema:
            shutil.copy(schema, file)  # MONAI downloads none where the file is there
        bundle.verify_metadata(meta_file=meta, filepath=str(file))

    def shapes() -> None:
        bundle.verify_net_in_out(net_id="network_def", meta_file=meta, config_file=inference)

    def properties() -> None:
        names = [[path.stem] for path in sorted(configs.glob("train*.json"))]
        for layers in [*names, ["evaluate"], ["evaluate", "multi_gpu_evaluate"], ["inference"]]:
            kind, files = "train" if layers in names else "infer", [str(configs / f"{name}.json") for name in layers]
            settings = {**places, "output_dir": str(work / "properties")}
            workflow = bundle.create_workflow(config_file=files, meta_file=meta, workflow_type=kind, **settings)
            if missing := workflow.check_properties():
                raise ValueError(f"{' and '.join(layers)} lack {missing}")

    def load() -> None:
        before = sorted(Path.cwd().iterdir())
        network = bundle.load(root.name, bundle_dir=str(root.parent), workflow_type="inference")
        if not any(parameter.any() for parameter in network.parameters()) or sorted(Path.cwd().iterdir()) != before:
            raise ValueError("load() gave no weights, or wrote into the folder it was called from")

    def torchscript() -> None:
        weights, out = str(root / "models" / "model.pt"), str(work / "model.ts")
        bundle.ckpt_export(net_id="network_def", filepath=out, ckpt_file=weights, meta_file=meta, config_file=inference)

    def run(task: str, out: Path, **settings: Any) -> None:
        config = str(configs / f"{task}.json")
        bundle.run(config_file=config, meta_file=meta, output_dir=str(out), **{**places, **SMALL, **settings})

    def train_in_two_processes() -> None:
        out, layers = work / "together", [str(configs / f"{name}.json") for name in ("train", "multi_gpu_train")]
        settings = {**places, **SMALL, "meta_file": meta, "config_file": layers, "output_dir": str(out)}
        settings.pop("boxes_path", None)  # of evaluation; a command line refuses what training does not know
        flags = [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()
        ]
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command = [*start, "-m", "monai.bundle", "run", *flags, "--max_epochs=1"]
        cpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=cpu, capture_output=True, text=True)
        if done.returncode or not (out / "model.pt").is_file():
            raise ValueError(f"training in two processes left no model.pt: {done.stderr[-3000:]}")

    def train() -> None:
        run("train", trained, max_epochs=1)
        if not (trained / "model.pt").is_file():
            raise ValueError("training left no model.pt")
        train_in_two_processes()

    def evaluate() -> None:
        run("evaluate", work / "evaluated", model_dir=str(trained))
        if not (work / "evaluated" / "metrics.json").is_file():
            raise ValueError("evaluation left no metrics.json")

    def infer() -> None:
        run("inference", work / "inferred", model_dir=str(trained), input=str(data / "test"))
        lines = (work / "inferred" / "predictions.csv").read_text().splitlines()
        if len(lines) != 9:
            raise ValueError(f"inference should have 8 results, has {len(lines) - 1}")

    checks = [metadata, shapes, properties, load, torchscript, train, evaluate, infer]
    return {check.__name__: check for check in checks}


def check_inside(root: Path, schema: str) -> None:
    """Run all checks of an unpacked bundle in this process and print one line each."""
    import bundle as package

    if Path(package.__file__).resolve().parents[1] != root.resolve():
        sys.exit(f"error: the package comes from {package.__file__}, not from the bundle")
    hook = sys.excepthook
    with tempfile.TemporaryDirectory() as work:
        for name, check in checks_of(root, schema, Path(work)).items():
            start = time.monotonic()
            check()
            sys.excepthook = hook  # a run prints errors as one line; here a traceback is wanted
            print(f"{root.name}: {name} ok ({time.monotonic() - start:.0f} s)", flush=True)


def make_environment(folder: Path, root: Path) -> Path:
    """Make a virtual environment with the versions of a bundle's metadata and return its Python."""
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    pinned = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    wanted = [f"{name}=={version}" for name, version in pinned.items()]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted, "jsonschema"], check=True)
    return python


def check_zip(archive: Path, schema: str, venv: bool) -> bool:
    """Unpack one zip into an empty place and check it there; return whether all went well."""
    with tempfile.TemporaryDirectory() as folder:
        place, elsewhere = Path(folder) / "bundles", Path(folder) / "elsewhere"
        elsewhere.mkdir()
        with zipfile.ZipFile(archive) as stream:
            stream.extractall(place)
        (root,) = place.iterdir()
        python = make_environment(Path(folder) / "venv", root) if venv else Path(sys.executable)
        script = shutil.copy(__file__, elsewhere / "check_zoo.py")  # its folder goes first on sys.path
        settings = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(python), str(script), "--inside", str(root), "--schema", schema]
        done = subprocess.run(command, cwd=elsewhere, env={**os.environ, **settings}, capture_output=True, text=True)
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith(root.name)), flush=True)
    if done.returncode:
        print(f"{root.name}: FAILED\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}", flush=True)
    return done.returncode == 0


def main() -> None:
    """Parse the command line, check, and end with 1 if any check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, nargs="*", help="zips of scripts/build_zoo.py")
    parser.add_argument("--schema", default=str(SCHEMA), help="schema file; '' for the official one, by download")
    parser.add_argument("--venv", action="store_true", help="check each in a new virtual environment")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside is not None:
        check_inside(args.inside, args.schema)
    elif not all([check_zip(archive, args.schema, args.venv) for archive in args.archives]):
        sys.exit(1)


if __name__ == "__main__":
    main()
