# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
What a model makes of images it was not trained on: other kinds of pictures, and normal films of another hospital.

    python scripts/studies/other_images_study.py features DATA \
        --rows docs/results/typical_features.csv --page docs/model.md
    python scripts/studies/other_images_study.py hospital DATA \
        --rows docs/results/recalibration.csv --page docs/model.md

``features``: how far abnormal images, and gray crops of the two photographs of scikit-learn, are from the features of
a set's normal images, which ``model.json`` keeps to tell another kind of picture. ``hospital``: shares of normal NIH
films that a model of ZhangLab's normals flags, before and after recalibration on other NIH films. DATA holds
``zhanglab_xray``, ``nih_part``, ``busi_part`` and ``brainmri``.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from bundle.model.typicality import cell_means, cells_of, cross_fitted_distances, typical_distance
from bundle.networks import FeatureBackbone
from bundle.preprocessing import ResizeAndPadd
from bundle.reading import RadiologyReader

ROOT = Path(__file__).resolve().parents[2]
# a model of these normals, and images that are to be inside: abnormal ones, or normal ones of another hospital
SETS = {
    "ZhangLab normals": ("zhanglab_xray/train/NORMAL", "zhanglab_xray/test/PNEUMONIA", 90),
    "NIH films": ("nih_part/images", "zhanglab_xray/train/NORMAL", 90),
    "BUSI normals": ("busi_part/normal", "busi_part/malignant", 45),
    "BrainMRI normals": ("brainmri/no", "brainmri/yes", 60),
}
RATES = (0.05, 0.1, 0.2)
Row = dict[str, Any]


def pictures(folder: Path, count: int) -> list[Path]:
    """Return some pictures of a folder, chosen by a seed."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return random.Random(0).sample(files, min(count, len(files)))


def photographs() -> list[np.ndarray]:
    """Return gray crops of the two photographs of scikit-learn, display values 0..1, ``(3, rows, columns)``."""
    chosen, crops = random.Random(0), []
    for picture in load_sample_images().images:
        gray = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32) / 255
        for _ in range(12):
            side = chosen.randint(200, 400)
            top, left = chosen.randint(0, gray.shape[0] - side), chosen.randint(0, gray.shape[1] - side)
            crops.append(np.repeat(gray[None, top : top + side, left : left + side], 3, axis=0))
    return crops


@torch.no_grad()
def cells(backbone: FeatureBackbone, images: Sequence[Path | np.ndarray]) -> torch.Tensor:
    """Return the feature cells of images, read and fitted as ADFA's default does."""
    reader, fit, found = RadiologyReader(channels=3), ResizeAndPadd("image", (224, 224)), []
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    for image in images:
        values = reader.get_data([str(image)])[0] if isinstance(image, Path) else image
        fitted = torch.as_tensor(fit({"image": torch.as_tensor(values)})["image"])
        features = cells_of(backbone(((fitted - mean) / deviation)[None])[-1])
        assert features is not None  # 14 x 14 positions
        found.append(features)
    return torch.cat(found)


def features_rows(data: Path) -> Iterator[Row]:
    """Yield one row a set: largest distance of its own images, those of other images, those of photographs."""
    backbone = FeatureBackbone().eval()
    other = cells(backbone, photographs())
    for name, (own, inside, count) in SETS.items():
        known = cells(backbone, pictures(data / own, count))
        mean, deviation = cell_means(known)
        near, far = (
            typical_distance(x, mean, deviation) for x in (cells(backbone, pictures(data / inside, 60)), other)
        )
        yield {
            "model of": f"{name} ({len(known)})",
            "largest of its own, cross-fitted": f"{cross_fitted_distances(known).max():.2f}",
            "to be inside": inside,
            "median and largest of these": f"{near.median():.2f}, {near.max():.2f}",
            "photographs, least and median": f"{far.min():.2f}, {far.median():.2f}",
        }


def run(*words: object) -> None:
    """Run a Python command from the repository."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(map(str, words))}: {done.stderr.strip().splitlines()[-1]}")


def nih_normals(data: Path) -> list[Path]:
    """Return normal PA films of folds 0 to 2, one a patient."""
    with (data / "nih_part" / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["view"] == "PA" and int(row["fold"]) < 3]
    normal = {row["patient"]: row["image"] for row in rows if row["no_finding"] == "1"}
    return [data / "nih_part" / "images" / name for _, name in sorted(normal.items())]


def hospital_rows(data: Path) -> Iterator[Row]:
    """Yield what a model says of normal films of another hospital, before and after recalibration."""
    films = random.Random(0).sample(nih_normals(data), 110)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lists = {"train": pictures(data / "zhanglab_xray/train/NORMAL", 100), "own": films[:50], "test": films[50:]}
        for name, files in lists.items():
            (place / name).mkdir()
            for file in files:
                shutil.copy(file, place / name)
        command = ("-m", "monai.bundle", "run", "--args_file", "configs/args_adfa_{}.yaml")
        train, infer = ([word.format(task) for word in command] for task in ("train", "inference"))
        run(*train, "--dataset_dir", place / "train", "--output_dir", place / "model", "--layout", "flat",
            "--max_epochs", 1, "--image_size", "[128,128]", "--seed", 0)  # fmt: skip
        models = {"of the training, 0.1": place / "model"}
        for rate in RATES:
            models[f"of 50 NIH normals, {rate}"] = new = place / f"recalibrated_{rate}"
            run("scripts/recalibrate.py", "--model_dir", place / "model", "--output_dir", new,
                "--recalibrate", place / "own", "--false_alarm_rate", rate)  # fmt: skip
        for name, model in models.items():
            out = place / f"results_{model.name}"
            run(*infer, "--input", place / "test", "--model_dir", model, "--output_dir", out, "--formats", "[json]")
            verdicts = [image["verdict"] for image in json.loads((out / "predictions.json").read_text())["images"]]
            counts = {word: verdicts.count(word) for word in ("abnormal", "not assessed", "not flagged")}
            yield {"calibration": name, **counts}


def table_of(rows: Sequence[Row]) -> str:
    """Return rows as a table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row.values())) + " |" for row in rows)])


def write_page(page: Path, part: str, table: str) -> None:
    """Put a table between its marks on a page."""
    begin, end = f"<!-- table of scripts/studies/other_images_study.py {part} -->", "<!-- end of the table -->"
    before, mark, rest = page.read_text().partition(begin)
    if not mark:
        raise SystemExit(f"error: '{page}' must have the line '{begin}'")
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    """Parse the command line, measure, write the rows and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("features", "hospital"))
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--rows", type=Path, help="CSV to write")
    parser.add_argument("--page", type=Path, help="page that holds the marks of the table")
    args = parser.parse_args()
    rows = list((features_rows if args.part == "features" else hospital_rows)(args.data.resolve()))
    table = table_of(rows)
    print(table)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if args.rows:
        args.rows.parent.mkdir(parents=True, exist_ok=True)
        with args.rows.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*rows[0], "seed", "commit", "command"], lineterminator="\n")
            writer.writeheader()
            command = f"python scripts/studies/other_images_study.py {args.part} DATA"
            writer.writerows([{**row, "seed": 0, "commit": commit.stdout.strip(), "command": command} for row in rows])
    if args.page:
        write_page(args.page, args.part, table)


if __name__ == "__main__":
    main()
