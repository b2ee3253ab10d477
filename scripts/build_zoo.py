# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""
Build the zoo bundles, each as a folder and as a zip: flat JSON configs, metadata, pages, package and a trained model.

    python scripts/build_zoo.py [--weights DIR] [--large_files_url URL]

Everything in a bundle is made from what the repository has once: the layers of configs/, the versions of
constraints.txt, sections of docs/README.md, a shipped model with its card, and zoo/<bundle>.yaml for what only that
bundle has. The bundle has the whole state dict of the model, so that it needs no file of this repository.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the bundles get the package of this repository, whatever else is installed

from bundle import __version__  # noqa: E402
from bundle.files import file_sha256  # noqa: E402
from bundle.model import read_model  # noqa: E402
from bundle.model.compact import whole_model  # noqa: E402
from bundle.networks.pretrained import read_state_dict  # noqa: E402

PAGES = ("configs.md", "exports.md", "model.md", "pixels.md", "results-format.md")  # of docs/, and the family's own
OF_THE_SOURCE = (
    "> A page of the source repository, version {version}. What it names under `scripts/`, `tests/` and "
    "`configs/*.yaml` is there, and not in this bundle.\n\n"
)
LARGE = 25 * 10**6  # bytes; the zoo takes no larger file into its repository


def merged(files: list[str]) -> dict[str, Any]:
    """Return layers of configs/ merged as MONAI merges them."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / Path(file).name) for file in files])
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def flat_config(arguments_file: str) -> dict[str, Any]:
    """Return the one config that a runnable file of configs/ and the zoo's own run layer make."""
    arguments = yaml.safe_load((ROOT / "configs" / arguments_file).read_text())
    layer = "zoo_train.yaml" if arguments["workflow_type"] == "train" else "zoo_results.yaml"
    return merged([*arguments["config_file"], layer])


def as_trained(config: dict[str, Any], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of training with the values that a shipped model was trained with."""
    entry = yaml.safe_load((ROOT / "models" / "models.yaml").read_text()).get(name, {})
    flags = {key: yaml.safe_load(str(value)) for key, value in entry.get("flags", {}).items()}
    plain = {key for key, value in config.items() if not (isinstance(value, dict) and "_target_" in value)}
    return {**config, **{key: value for key, value in {**flags, **settings}.items() if key in plain}}


def card_of(folder: Path) -> dict[str, str]:
    """Return the parts of a model's card: its first paragraph, its picture, empty where it has none, and the rest."""
    file = folder / "README.md"
    if not file.is_file():
        return {"first": "", "picture": "", "rest": ""}
    _, first, *rest = file.read_text().strip().split("\n\n")
    picture = rest.pop(0) if rest[0].startswith("![") else ""
    return {"first": first, "picture": picture, "rest": linked("\n\n".join(rest), set())}


def linked(text: str, kept: Set[str]) -> str:
    """Return a page whose links to other pages than ``kept`` are plain text."""
    return re.sub(
        r"\[([^\]]+)\]\((?!https?:)([^)#\s]*)(#[^)]*)?\)",
        lambda found: found[0] if not found[2] or found[2] in kept else found[1],
        text,
    )


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


def make_page(config: dict[str, Any], metadata: dict[str, Any], parts: dict[str, Any], card: dict[str, str]) -> str:
    """Return docs/README.md in the zoo's order."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    tensors = metadata["network_data_format"]
    return environment.from_string((ROOT / "zoo" / "README.md.j2").read_text()).render(
        {**config, "phases": None, **parts},
        metadata=metadata,
        inputs=tensors["inputs"]["image"],
        outputs=tensors["outputs"]["pred"],
        sections=sections(),
        card=card,
    )


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


def parts_of(manifest: Path) -> dict[str, Any]:
    """Return what only one bundle has, on top of another's where it extends one."""
    parts = yaml.safe_load(manifest.read_text())
    return {**(parts_of(manifest.with_stem(parts.pop("extends"))) if "extends" in parts else {}), **parts}


def build(manifest: Path, output_dir: Path, source: Path, large_files_url: str | None) -> Path:
    """Build one bundle with the model of a folder, and return its zip."""
    parts, target = parts_of(manifest), output_dir / manifest.stem
    shutil.rmtree(target, ignore_errors=True)
    for folder in ("configs", "docs", "models"):
        (target / folder).mkdir(parents=True)
    configs = {name: flat_config(file) for name, file in parts["configs"].items()}
    whole_model(source, target / "models")
    model, card = read_model(target / "models", parts["family"]), card_of(source)
    for name in (name for name in configs if name.startswith("train")):
        configs[name] = as_trained(configs[name], source.name, model.settings)
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
    (target / "docs" / "README.md").write_text(make_page(described, metadata, parts, card))
    shutil.copy(ROOT / "zoo" / "data_license.txt", target / "docs")
    if card["picture"]:
        shutil.copy(source / "demo_films.jpg", target / "docs")
        shutil.copytree(ROOT / "models" / "demo_films", target / "sample_films")
    pages = {f"{parts['family']}.md", *PAGES}
    for name in pages:
        text = linked((ROOT / "docs" / name).read_text(), pages)
        (target / "docs" / name).write_text(OF_THE_SOURCE.format(version=__version__) + text)
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
        "--weights", type=Path, help="has models of your own in folders <bundle>, in place of the shipped ones"
    )
    parser.add_argument("--large_files_url", help="where <bundle>/model.pt will be; it then stays out of the bundle")
    args = parser.parse_args()
    manifests = sorted((ROOT / "zoo").glob("*.yaml"))
    print("| bundle | model | folder, MB | zip, MB |\n|---|---|---|---|")
    for manifest in manifests:
        if args.bundles is None or manifest.stem in args.bundles:
            own = args.weights and args.weights / manifest.stem
            source = own if own and own.is_dir() else ROOT / "models" / parts_of(manifest)["model"]
            archive = build(manifest, args.output_dir, source, args.large_files_url)
            folder = sum(f.stat().st_size for f in (args.output_dir / manifest.stem).rglob("*") if f.is_file())
            name = "your own" if source == own else f"`{source.name}`"
            print(f"| {manifest.stem} | {name} | {folder / 1e6:.1f} | {archive.stat().st_size / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
