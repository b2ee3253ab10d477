# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Training, evaluation and inference with every documented setting that takes another way through the code.

Each setting is trained for one epoch on a handful of small images. Evaluation and inference must then give the same
finite numbers for the same files, and where training wrote scores of its own (ADFA without the refit), those.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.uid import generate_uid

from bundle.anomaly import METHODS
from bundle.networks.attention.make import ATTENTION_NAMES
from bundle.networks.exported import export_network
from tests.synthetic_dicom import save_dicom
from tests.workflows import run_workflow, workflow_of

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
SIZE = [32, 32]
SMALL: dict[str, Any] = {"image_size": SIZE, "resize": SIZE, "batch_size": 4, "progress_bar": False}
LARGER: dict[str, Any] = {"image_size": [96, 96], "resize": [96, 96]}
TRAINING: dict[str, Any] = {"max_epochs": 1, "tensorboard": False}
COMMON: dict[str, dict[str, Any]] = {  # flags of every training of a family, and so of what follows it
    "adfa": {"held_back": 0.5, "false_alarm_rate": 0.3},
    "sna": {"classes": ["normal", "Mass"], "warmup_epochs": 1},
    "msa": {"classes": ["normal", "Mass"]},
    "detector": {"classes": ["Mass"], "pyramid_channels": 16},
}


@dataclass
class Setting:
    """
    One way to train a family.

    Args:
        flags: of the training.
        task: its arguments file is ``configs/args_FAMILY_TASK.yaml``.
        layers: last in training, such as that of a network.
        exported: suffixes of exported files whose results must be the same.
        results: flags that belong to evaluation and inference alone.
        result_layers: last in evaluation and inference.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    task: str = "train"
    layers: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    result_layers: tuple[str, ...] = ()


@dataclass
class Run:
    """A family, one of its settings, and where its data and its results lie."""

    family: str
    setting: Setting
    data: Path
    root: Path

    def train(self) -> None:
        flags = SMALL | TRAINING | COMMON[self.family] | self.setting.flags
        if self.family == "detector":
            flags["boxes_path"] = self.data / "boxes.csv"
        out = self.root / "model"
        run_workflow(
            f"{self.family}_{self.setting.task}", self.setting.layers, **flags, dataset_dir=self.data, output_dir=out
        )

    def needed(self) -> dict[str, Any]:
        """Return what a trained model needs to be used: its folder."""
        return {"model_dir": self.root / "model", "batch_size": 4, "progress_bar": False}

    def use(self, task: str, name: str, **flags: Any) -> dict[str, dict[str, float]]:
        """Evaluate or infer with the trained model and return the numbers of predictions.csv by file."""
        out = self.root / name
        all_flags = self.needed() | {"formats": ["csv"]} | self.setting.results | flags
        run_workflow(f"{self.family}_{task}", self.setting.result_layers, **all_flags, output_dir=out)
        return numbers(out / "predictions.csv")

    def export(self, suffix: str) -> Path:
        path = self.root / f"model{suffix}"
        own = {"input": self.data, "output_dir": self.root / "export"}
        workflow = workflow_of(f"{self.family}_inference", **self.needed(), **own)
        workflow.initialize()
        network = workflow.parser.get_parsed_content("network_def")
        export_network(network, path, (3, *SIZE), self.root / "model" / "model.pt")
        return path


def numbers(path: Path) -> dict[str, dict[str, float]]:
    """Return the finite scores, p-values, probabilities and counts of each row by the file's name."""
    found: dict[str, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            names = [n for n in row if n.startswith(("anomaly_score", "probability", "p_value")) and row[n]]
            values = {name: float(row[name]) for name in names}
            assert values, row
            assert all(map(math.isfinite, values.values())), row
            found[Path(row["source"]).name] = values
    return found


def pictures(folder: Path, count: int, seed: int, square: bool = False) -> None:
    """Write noise, with a bright square in it or not."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = random.integers(60, 90, (36, 40)).astype(np.uint8)
        pixels[8:24, 16:32] += np.uint8(150 * square)
        Image.fromarray(pixels).save(folder / f"{seed} {i}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a folder of images for each family: normal images alone to train ADFA, a label table for the others."""
    root = tmp_path_factory.mktemp("data")
    pictures(root / "adfa" / "train" / "good", 8, seed=0)
    pictures(root / "adfa" / "test" / "good", 2, seed=1)
    pictures(root / "adfa" / "test" / "square", 2, seed=2, square=True)
    rows, boxes = [], [["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""]]
    for square in (False, True):
        pictures(root / "labels", 6, seed=3 + square, square=square)
    for i in range(12):
        name, square = f"{3 + i // 6} {i % 6}.png", i // 6
        split = ("training", "training", "training", "validation", "test", "test")[i % 6]
        rows.append([name, f"patient {i}", split, 1 - square, square])
        if square:
            boxes.append([name, "Mass", 16, 8, 16, 16, "", "", ""])
    for file, table in (("labels", [["image", "patient", "split", "normal", "Mass"], *rows]), ("boxes", boxes)):
        with (root / "labels" / f"{file}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(table)
    return {"adfa": root / "adfa", **dict.fromkeys(("sna", "msa", "detector"), root / "labels")}


def check(run: Run) -> None:
    """Train, evaluate, infer and export, and compare what they give."""
    run.train()
    boxes = {"boxes_path": run.data / "boxes.csv"}
    only = {"sna": {"bootstrap_samples": 5}, "msa": boxes, "detector": boxes}.get(run.family, {})
    evaluated = run.use("evaluate", "evaluation", dataset_dir=run.data, **only)
    inferred = run.use("inference", "inference", input=run.data)
    film = np.random.default_rng(0).integers(0, 4096, (60, 70)).astype(np.uint16)
    save_dicom(run.root / "film.dcm", film, **{f"{name}InstanceUID": generate_uid() for name in UIDS})
    run.use("inference", "film", input=run.root / "film.dcm", formats=["csv", "sr"])
    (report,) = (run.root / "film").rglob("*_sr.dcm")
    assert pydicom.dcmread(report).Modality == "SR"
    assert len(evaluated) == 4
    for name, values in evaluated.items():
        assert inferred[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
    assert len({tuple(values.values()) for values in inferred.values()}) > 1, "all images got the same numbers"
    if run.family == "adfa" and run.setting.flags.get("refit", run.setting.task == "train") is False:
        # training scored the held-back normals with its own network
        scores = json.loads((run.root / "model" / "calibration.json").read_text())["scores"]
        known = [values["anomaly_score"] for values in inferred.values()]
        assert scores
        for score in scores:
            assert min(abs(value - score) for value in known) <= 1e-4 * score
    for suffix in run.setting.exported:
        again = run.use("inference", f"out{suffix}", input=run.data, exported=run.export(suffix))
        for name, values in again.items():
            assert inferred[name] == pytest.approx(values, rel=1e-3, abs=1e-4), name


UIDS = ("SOP", "Study", "Series")
RANDOM = {"weights": "random"}
PLAIN = {"whiten": False, "refit": False, "center_mode": "once", "synthetic_anomaly_share": 0}
METHOD: dict[str, dict[str, Any]] = {
    "adfa": {},
    "padim": {"method": "padim"},
    # not all patches, or a training image has a distance of 0, which is rounding and differs from export to export
    "patch_memory": {"method": "patch_memory", "memory_size": 20},
}
ADFA = {
    "default": Setting(exported=(".ts", ".pt2")),
    **{
        f"epsilon 0.02 by {scale}": Setting({"epsilon": 0.02, "scale": scale, "refit": False})
        for scale in ("row_mean", "row_max")
    },
    # here the others of a batch change a score, so it is the same only where they are the same
    "epsilon 0.02 by batch_max": Setting({"epsilon": 0.02, "scale": "batch_max"}),
    "epsilon 0.5 without a cache": Setting({"epsilon": 0.5, "feature_cache": None}, exported=(".ts",)),
    "the paper": Setting(task="paper_train"),
    "the paper, sharp": Setting({"epsilon": 0.02}, task="paper_train"),
    "map stride 4, narrow": Setting({"map_stride": 4, "descriptor_channels": 12, "refit": False}),
    "no whitening": Setting({"whiten": False, "refit": False, "center_mode": "ema"}),
    "no refit": Setting({"refit": False, "within_positions": False, "attention_weight": 0, "k": 1}),
    "no synthetic anomalies": Setting({"synthetic_anomaly_share": 0, "center_mode": "once", "top_fraction": 0}),
    "loss of the paper": Setting({"loss": {"_target_": "bundle.anomaly.MeanDistanceLoss"}, "smoothing": 0}),
    "features in half precision": Setting({"half_features": True, "keep_aspect": False, "refit": False, "k": 16}),
    "bfloat16": Setting({"backbone_precision": "bfloat16", "epsilon": 0.1, "feature_cache": None, "refit": False}),
    "resnet18": Setting({"backbone": "resnet18", **RANDOM, "refit": False}),
    "padim": Setting(METHOD["padim"], exported=(".ts", ".pt2")),
    "patch memory": Setting(METHOD["patch_memory"], exported=(".ts", ".pt2")),
    "padim of resnet18, 12 channels": Setting(
        {"method": "padim", "backbone": "resnet18", **RANDOM, "kept_channels": 12}
    ),
    "patch memory of resnet18": Setting({"method": "patch_memory", "backbone": "resnet18", **RANDOM, "memory_size": 9}),
}
ADFA_LONG = {
    **{
        f"{backbone}, epsilon {epsilon}": Setting({"backbone": backbone, **RANDOM, "epsilon": epsilon, "map_stride": s})
        for backbone in ("resnet50", "wide_resnet50_2")
        for epsilon, s in ((0, 4), (0.02, 8))
    },
    "auto precision": Setting({"backbone_precision": "auto", "epsilon": 0.02}),
    "the paper, exported": Setting(task="paper_train", exported=(".ts", ".pt2")),
    **({f"onnx, {m}": Setting(METHOD[m], exported=(".onnx",)) for m in METHODS} if ONNX else {}),
    **{
        f"epsilon {epsilon}, {scale}, k {k}, stride {s}": Setting(
            {"epsilon": epsilon, "scale": scale, "k": k, "map_stride": s, "refit": scale == "batch_max"}
        )
        for epsilon in (0, 0.01, 1.0)
        for scale in ("row_mean", "row_max", "batch_max")
        for k in (1, 5)
        for s in (4, 8)
    },
}
RESNET, DENSENET = ({"backbone": name, "weights": "random"} for name in ("resnet18", "densenet121"))
SNA = {
    "default": Setting(exported=(".ts",)),
    "no attention": Setting({"attention": "none", "mixup_alpha": 0, "class_balance": None, "averaging": 0.1}),
    "options of sna": Setting({"attention_options": {"rank": 2, "combine": "add", "preserve_mean": False}}),
    "one stage frozen": Setting({"frozen_stages": 1, "attention": "scse"}),
    "bce": Setting({"loss_name": "bce", "exclusive": False, "normal_class": "normal"}, results={"explanation": "cam"}),
    "focal": Setting({"loss_name": "focal", "exclusive": False, "normal_class": "", "sensitivity": 0.9}),
    "cross entropy, all stages": Setting(
        {"label_smoothing": 0, "frozen_stages": 6}, results={"explanation": "grad_cam_plus_plus"}
    ),
    "random start": Setting({"weights": "random", "attention": "aa"}, results={"explained_class": "Mass"}),
    "resnet": Setting({"attention": "cbam", "placement": "both"} | RESNET),
    "resnet, sna": Setting(RESNET),
    "densenet": Setting({"attention": "ppcr"} | DENSENET),
    "densenet, sna": Setting({"placement": "blocks"} | DENSENET, results={"explanation": "cam"}),
}
SNA_LONG = {
    # of 32 x 32 pixels one cell is left at the end, which blocks that shrink their input leave at zero before training
    **{f"lite, {name}": Setting({"attention": name} | LARGER) for name in ATTENTION_NAMES},
    **{
        f"{trunk['backbone']}, {name}, {placement}": Setting({"attention": name, "placement": placement} | trunk)
        for trunk in (RESNET, DENSENET)
        for name in ATTENTION_NAMES
        for placement in ("stem", "blocks", "both")
    },
    "resnet, exported": Setting(RESNET, exported=(".ts", ".pt2")),
    "resnet 50": Setting(RESNET | {"backbone": "resnet50", "attention": "se"}),
    "densenet 169": Setting(DENSENET | {"backbone": "densenet169", "attention": "eca"}),
    **({"onnx": Setting(exported=(".onnx",))} if ONNX else {}),
}
MINING = {"mining_steps": 2, "epochs_per_step": 1, "max_epochs": 2}
RESNET18 = {"backbone": "resnet18", **RANDOM}
MSA = {
    "backbone phase": Setting({"aggregate": False}, task="train_backbone"),
    "head phase": Setting(task="train_head", results={"test_time_flip": True}),
    "end to end": Setting(task="train_end_to_end", exported=(".ts",)),
    "atrous": Setting({"atrous": True, "fixed_statistics": True}, task="train_end_to_end"),
    "deconv": Setting({"upsample": "deconv", **RESNET18}, task="train_end_to_end"),
    "resnet18, atrous": Setting({"atrous": True, "aggregate": False, **RESNET18}, task="train_end_to_end"),
    **{
        f"mining, {mode}": Setting({**MINING, "preservation": mode, "mined_fraction": 0.5}, task="train_mining")
        for mode in ("full", "vanilla", "none")
    },
}
MSA_LONG = {
    **{
        f"{backbone}, {mode}, aggregate {aggregate}, atrous {atrous}": Setting(
            {
                **MINING,
                "backbone": backbone,
                # the statistics of a random start stay those of no image while mining
                "weights": "default" if backbone == "efficientnet_lite0" else "random",
                "preservation": mode,
                "aggregate": aggregate,
                "atrous": atrous,
            },
            task="train_mining",
        )
        for backbone in ("efficientnet_lite0", "resnet18", "resnet50")
        for mode in ("full", "vanilla", "none")
        for aggregate in (True, False)
        for atrous in (True, False)
    },
    **({"onnx": Setting(task="train_end_to_end", exported=(".onnx",))} if ONNX else {}),
}
DETECTOR = {
    "default": Setting(exported=(".ts",)),
    **{f"attention {name}": Setting({"attention": name}) for name in ATTENTION_NAMES[1:]},
    "resnet18, hard negatives": Setting(
        {"classification_loss": "hard_negatives", "attention": "sna", "frozen": [], **RESNET18},
        results={"probability_threshold": 0.01},
        exported=(".ts", ".pt2"),
    ),
    "resnet50": Setting({"backbone": "resnet50", "pyramid_channels": 256, **RANDOM}),
}
EVERY_TIME = {
    "adfa": ("default", "the paper", "padim", "patch memory"),
    "sna": ("default", "resnet"),
    "msa": ("end to end", "mining, full"),
    "detector": ("default",),
}
CASES = [
    pytest.param(family, setting, id=f"{family}, {name}", marks=marks if name not in EVERY_TIME[family] else [])
    for family, settings, marks in (
        ("adfa", ADFA, [pytest.mark.full]),
        ("adfa", ADFA_LONG, [pytest.mark.long]),
        ("sna", SNA, [pytest.mark.full]),
        ("sna", SNA_LONG, [pytest.mark.long]),
        ("msa", MSA, [pytest.mark.full]),
        ("msa", MSA_LONG, [pytest.mark.long]),
        ("detector", DETECTOR, [pytest.mark.full]),
    )
    for name, setting in settings.items()
]


@pytest.mark.parametrize(("family", "setting"), CASES)
def test_training_evaluation_and_inference_agree(
    family: str, setting: Setting, data: dict[str, Path], tmp_path: Path
) -> None:
    check(Run(family, setting, data[family], tmp_path))


@pytest.mark.full
def test_features_kept_in_a_folder(data: dict[str, Path], tmp_path: Path) -> None:
    flags = {"feature_cache": str(tmp_path / "features"), "epsilon": 0.02, "refit": False}
    check(Run("adfa", Setting(flags), data["adfa"], tmp_path / "first"))
    assert list((tmp_path / "features").rglob("*.npy"))
    Run("adfa", Setting(flags), data["adfa"], tmp_path / "second").train()
    first, second = (json.loads((tmp_path / n / "model" / "calibration.json").read_text()) for n in ("first", "second"))
    assert second["scores"] == pytest.approx(first["scores"], rel=1e-3)


class Corner(torch.nn.Module):
    """Anomaly maps that are 1 in the upper left quarter and 0 elsewhere."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(image[:, :1])
        out[:, :, :112, :112] = 1
        return out


def test_boxes_and_the_anomaly_prior(data: dict[str, Path], tmp_path: Path) -> None:
    flags = {"boxes_path": data["msa"] / "boxes.csv", "boxes_weight": 0.5}
    run = Run("msa", Setting(flags, "train_end_to_end", layers=("msa_boxes",)), data["msa"], tmp_path)
    check(run)
    torch.jit.save(torch.jit.script(Corner()), str(tmp_path / "prior.ts"))
    found = []
    for layers, results in (((), {}), (("msa_prior",), {"prior_path": tmp_path / "prior.ts"})):
        run.setting = Setting(result_layers=layers, results=results)
        run.use("inference", f"with {layers}", input=data["msa"], formats=["json", "csv"], probability_threshold=0.01)
        images = json.loads((tmp_path / f"with {layers}" / "predictions.json").read_text())["images"]
        found.append([box for image in images for box in image["boxes"]])
    assert all(found)
    assert found[0] != found[1]


def test_boxes_at_the_places_of_training(data: dict[str, Path], tmp_path: Path) -> None:
    run = Run("msa", Setting({"anchor_boxes": data["msa"] / "boxes.csv"}, "train_end_to_end"), data["msa"], tmp_path)
    run.train()
    found = []
    for flags in ({}, {"use_anchors": False}):
        run.use(
            "inference",
            f"with {flags}",
            input=data["msa"],
            formats=["json", "csv", "report"],
            probability_threshold=0.01,
            **flags,
        )
        images = json.loads((tmp_path / f"with {flags}" / "predictions.json").read_text())["images"]
        found.append([box for image in images for box in image["boxes"] if box["label"] == "Mass"])
        report = (tmp_path / f"with {flags}" / "report.html").read_text()
        assert ("one of its usual places in the training images" in report) == (not flags)
    placed, cut = ([[box[side] for side in ("x", "y", "width", "height")] for box in boxes] for boxes in found)
    # every annotated box of the fixture is this one, in files of 36 x 40 pixels
    assert placed
    assert placed == [pytest.approx([16, 8, 16, 16], abs=0.01)] * len(placed)
    assert cut
    assert cut != placed
