# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Build one zoo bundle a family, as a folder and as a zip: flat JSON configs, metadata, pages, package and weights.

    python scripts/build_zoo.py [--weights DIR] [--large_files_url URL]

Everything in a bundle is made from what the repository has once: the layers of configs/, the versions of
constraints.txt, sections of docs/README.md, and zoo/<bundle>.yaml for what only that bundle has. Without --weights the
bundle gets a start from packaged ImageNet weights, and its page and its reports say that it is untrained.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml
from monai.bundle import ConfigParser
from monai.utils import set_determinism

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the bundles get the package of this repository, whatever else is installed

from bundle import __version__  # noqa: E402
from bundle.files import file_sha256  # noqa: E402
from bundle.model import ModelFile, read_model, save_start  # noqa: E402
from bundle.networks.pretrained import read_state_dict  # noqa: E402

PAGES = (
    "configs.md",
    "exports.md",
    "pixels.md",
    "results.md",
    "results-format.md",
)  # of docs/, besides the family's own
LARGE = 25 * 10**6  # bytes; the zoo takes no larger file into its repository


def merged(files: list[str]) -> dict[str, Any]:
    """Return layers of configs/ merged as MONAI merges them."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / Path(file).name) for file in files])
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def flat_config(arguments_file: str, untrained: bool) -> dict[str, Any]:
    """Return the one config that a runnable file of configs/ and the zoo's own run layers make."""
    arguments = yaml.safe_load((ROOT / "configs" / arguments_file).read_text())
    if arguments["workflow_type"] == "train":
        return merged([*arguments["config_file"], "zoo_train.yaml"])
    return merged([*arguments["config_file"], "zoo_results.yaml", *(["zoo_untrained.yaml"] if untrained else [])])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON as the zoo formats it."""
    path.write_text(json.dumps(content, indent=4) + "\n")


def pinned_versions() -> dict[str, str]:
    """Return the versions of constraints.txt by the plain name of the package."""
    pairs = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return {plain(name): version for name, version in pairs}


def plain(package: str) -> str:
    """Return a package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def sections() -> dict[str, str]:
    """Return the sections of docs/README.md by heading."""
    parts = re.split(r"^# (.+)\n", (ROOT / "docs" / "README.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def data_format(config: dict[str, Any], network: torch.nn.Module, parts: dict[str, Any]) -> dict[str, Any]:
    """Return what goes into a network and what comes out, measured on one image."""
    low = min((0 - m) / s for m, s in zip(config["mean"], config["std"], strict=True))
    high = max((1 - m) / s for m, s in zip(config["mean"], config["std"], strict=True))
    with torch.no_grad():
        pred = network.eval()(torch.zeros(1, 3, *config["image_size"]))
    channels = parts["channels"] or config["classes"]
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "CR, DX, MG or US",
        "num_channels": 3,
        "spatial_shape": config["image_size"],
        "dtype": "float32",
        "value_range": [round(low, 2), round(high, 2)],
        "is_patch_data": False,
        "channel_def": {"0": "red", "1": "green", "2": "blue"},
    }
    output = {
        **parts["output"],
        "num_channels": pred.shape[1],
        "spatial_shape": list(pred.shape[2:]),
        "dtype": "float32",
        "is_patch_data": False,
        "channel_def": {str(i): name for i, name in enumerate(channels)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": output}}


def make_metadata(config: dict[str, Any], network: torch.nn.Module, parts: dict[str, Any]) -> dict[str, Any]:
    """Return metadata.json: the repository's own, with this family's texts, tensors and the pinned versions."""
    base = json.loads((ROOT / "configs" / "metadata.json").read_text())
    pinned = pinned_versions()
    return {
        **base,
        "version": __version__,
        "monai_version": pinned["monai"],
        "pytorch_version": pinned["torch"],
        "numpy_version": pinned["numpy"],
        "required_packages_version": {name: pinned[plain(name)] for name in base["required_packages_version"]},
        **parts["metadata"],
        "network_data_format": data_format(config, network, parts),
    }


def make_page(config: dict[str, Any], metadata: dict[str, Any], parts: dict[str, Any], **choices: bool) -> str:
    """Return docs/README.md in the zoo's order."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    tensors = metadata["network_data_format"]
    return environment.from_string((ROOT / "zoo" / "README.md.j2").read_text()).render(
        {**config, "phases": None, **parts},
        metadata=metadata,
        inputs=tensors["inputs"]["image"],
        outputs=tensors["outputs"]["pred"],
        sections=sections(),
        **choices,
    )


def add_model(config: dict[str, Any], folder: Path, weights: Path | None) -> ModelFile:
    """Put a trained model into a folder, or a start by the configuration, and return what its file says."""
    if weights is None:
        set_determinism(seed=0)
        save_start(ConfigParser(config), folder)
    else:
        for file in ("model.pt", "model.json", "calibration.json"):
            if (weights / file).is_file():
                shutil.copy(weights / file, folder)
    return read_model(folder, config["family"])


def move_large(target: Path, large_files_url: str | None) -> None:
    """Put the address of the weights into large_files.yml and the file beside the bundle, where there is an address."""
    model = target / "models" / "model.pt"
    if large_files_url is not None:
        entry = {
            "path": "models/model.pt",
            "url": f"{large_files_url.rstrip('/')}/{target.name}/model.pt",
            "hash_val": file_sha256(model),
            "hash_type": "sha256",
        }
        (target / "large_files.yml").write_text(yaml.safe_dump({"large_files": [entry]}, sort_keys=False))
        shutil.move(model, target.parent / f"{target.name}_model.pt")
    elif model.stat().st_size > LARGE:
        raise ValueError(f"{target.name}'s model.pt has more than {LARGE} bytes; give --large_files_url.")


def write_zip(folder: Path, path: Path) -> None:
    """Zip a folder so that the same files give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.writestr(
                zipfile.ZipInfo(str(Path(folder.name) / file.relative_to(folder)), (1980, 1, 1, 0, 0, 0)),
                file.read_bytes(),
                zipfile.ZIP_DEFLATED,
            )


def build(manifest: Path, output_dir: Path, weights: Path | None, large_files_url: str | None) -> Path:
    """Build one bundle and return its zip."""
    parts, target = yaml.safe_load(manifest.read_text()), output_dir / manifest.stem
    if weights is not None and not (weights / "model.pt").is_file():
        weights = None
    shutil.rmtree(target, ignore_errors=True)
    for folder in ("configs", "docs", "models"):
        (target / folder).mkdir(parents=True)
    configs = {name: flat_config(file, weights is None) for name, file in parts["configs"].items()}
    model = add_model(configs["train"], target / "models", weights)
    configs["train"] |= {name: value for name, value in model.settings.items() if name in configs["train"]}
    for name, config in configs.items():
        write_json(target / "configs" / f"{name}.json", config)
    for name in ("multi_gpu_train", "multi_gpu_evaluate"):  # the zoo's names for what goes on top of a config
        write_json(target / "configs" / f"{name}.json", merged(["multi_gpu.yaml"]))
    network = model.network()
    network.load_state_dict(read_state_dict(model.weights))  # or they belong to another network
    described = {**configs["train"], **model.settings}
    metadata = make_metadata(described, network, parts)
    write_json(target / "configs" / "metadata.json", metadata)
    shutil.copy(ROOT / "configs" / "logging.conf", target / "configs")
    page = make_page(described, metadata, parts, untrained=weights is None)
    (target / "docs" / "README.md").write_text(page)
    shutil.copy(ROOT / "zoo" / "data_license.txt", target / "docs")
    for name in (f"{parts['family']}.md", *PAGES):
        shutil.copy(ROOT / "docs" / name, target / "docs")
    shutil.copy(ROOT / "LICENSE", target)
    shutil.copytree(ROOT / "bundle", target / "bundle", ignore=shutil.ignore_patterns("__pycache__"))
    move_large(target, large_files_url)
    archive = output_dir / f"{target.name}_v{metadata['version']}.zip"
    write_zip(target, archive)
    return archive


def main() -> None:
    """Parse the command line, build the bundles and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=ROOT / "build" / "zoo", help="default: build/zoo")
    parser.add_argument("--bundles", nargs="+", help="names of zoo/*.yaml, default: all")
    parser.add_argument(
        "--weights", type=Path, help="has the model folder of each bundle, <bundle>/model.json and what it names"
    )
    parser.add_argument("--large_files_url", help="where <bundle>/model.pt will be; it then stays out of the bundle")
    args = parser.parse_args()
    manifests = sorted((ROOT / "zoo").glob("*.yaml"))
    print("| bundle | weights | folder, MB | zip, MB |\n|---|---|---|---|")
    for manifest in manifests:
        if args.bundles is None or manifest.stem in args.bundles:
            weights = args.weights and args.weights / manifest.stem
            archive = build(manifest, args.output_dir, weights, args.large_files_url)
            folder = sum(f.stat().st_size for f in (args.output_dir / manifest.stem).rglob("*") if f.is_file())
            kind = "trained" if weights and (weights / "model.pt").is_file() else "a start, untrained"
            print(f"| {manifest.stem} | {kind} | {folder / 1e6:.1f} | {archive.stat().st_size / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
