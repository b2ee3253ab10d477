# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Read ``model.json``, and refuse what is malformed, newer, or not what its files are."""

from __future__ import annotations

import functools
import json
import logging
import math
from pathlib import Path
from typing import Any

from bundle import __version__
from bundle.files import OWN_ROOT, file_sha256
from bundle.model.content import FAMILIES, FORMAT, FORMAT_VERSION, MODEL_FILE, sealed
from bundle.model.file import ModelFile

__all__ = ["own_or_shipped", "read_model", "shipped_models", "shipped_note"]

logger = logging.getLogger(__name__)
_FORMATS = (FORMAT, "attention-imaging model")  # the second of files from before
_LARGEST = 4 * 2**20  # bytes; a real one has less than 100 kB
SHIPPED_MODELS = OWN_ROOT / "models"
_PARTS: dict[str, type | tuple[type, ...]] = {
    "family": str,
    "bundle_version": str,
    "weights": dict,
    "calibration": (dict, type(None)),
    "network": dict,
    "settings": dict,
    "changeable": dict,
    "training_set": (dict, type(None)),
}


def read_model(path: str | Path, family: str | None = None, option: str = "model_dir") -> ModelFile:
    """
    Read what a model folder says of its model.

    Args:
        path: the folder, a ``model.json``, or the name of a shipped model. What exists comes first; then what lies
            beside the package, as ``models`` of a built zoo bundle and, by its name, a shipped model.
        family: that is asked for; ``None`` for any.
        option: that named the path, for messages.

    Returns:
        the file's content; its parts and the hash of the calibration were checked, that of the weights is
        :py:func:`bundle.model.check_model`'s, since an exported file may run in their place.

    Raises:
        ValueError: When there is no such file, it is malformed or of a newer version, a file that it names is another
            or missing, or the model is of another family.
    """
    file = _model_file(path, option)
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"it must have at most {_LARGEST} bytes, has {file.stat().st_size}")
        content = json.loads(file.read_text(encoding="utf-8"))
        _check_parts(content)
    except (ValueError, RecursionError, OSError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"'{file}' is no file of a model: {reason}.") from None
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"'{file}' is of format {content['format_version']}, this version ({__version__}) reads up to "
            f"{FORMAT_VERSION}: use bundle {content['bundle_version']} or newer."
        )
    if family is not None and content["family"] != family:
        raise ValueError(f"'{file}' is a model of family {content['family']}, {family} is asked for.")
    if sealed(content) != content:
        raise ValueError(
            f"'{file}' was changed after it was written: its parts belong to the weights. Bring it back; another "
            "setting is tried by its flag, with --override_model True."
        )
    _check_entry(file, "weights", content["weights"])
    if content["calibration"] is not None:
        _check_bound(file, "calibration", content["calibration"])
    return ModelFile(file.parent, content, file_sha256(file))


def shipped_models() -> list[str]:
    """Return the names of the models that lie beside the package, in ``models``."""
    return sorted(file.parent.name for file in SHIPPED_MODELS.glob(f"*/{MODEL_FILE}"))


def own_or_shipped(folder: str | Path, name: str, family: str) -> str:
    """
    Return a folder where it has weights or a model file, else the name of a shipped model, and say so in the log.

    Args:
        folder: where a training of one's own would have left a model.
        name: of the family's shipped model; empty for a family without one.
        family: for the message.

    Raises:
        ValueError: When the folder has no model and none is shipped.
    """
    if any((Path(folder) / file).is_file() for file in (MODEL_FILE, "model.pt")):
        return str(folder)
    if name not in shipped_models():
        raise ValueError(
            f"--model_dir must name the folder of a trained model: '{folder}' has none, and no model of family "
            f"{family} is shipped."
        )
    _say_shipped(str(folder), name)
    return name


def shipped_note(model: ModelFile) -> str:
    """Return the sentence of a report that a shipped model made, nothing for another model."""
    if model.folder.resolve().parent != SHIPPED_MODELS.resolve():
        return ""
    return f"Answered by the shipped model {model.name}, a baseline (models/README.md)."


@functools.cache  # a run asks twice, and is told once
def _say_shipped(folder: str, name: str) -> None:
    logger.warning("no --model_dir, and no model in '%s': the shipped model '%s' is used", folder, name)


def _model_file(path: str | Path, option: str) -> Path:
    given = Path(path).expanduser()
    if not given.is_absolute() and not given.exists():
        places = [OWN_ROOT / given] + ([SHIPPED_MODELS / given] if len(given.parts) == 1 else [])
        given = next((place for place in places if place.exists()), given)
    if given.is_file() and given.suffix == ".json":
        return given
    folder = given.parent if given.is_file() else given
    if not folder.is_dir():
        names = ", ".join(shipped_models())
        raise ValueError(
            f"{option} must be the folder of a trained model, '{path}' does not exist."
            + (f" Shipped ones, by name: {names}." if names else "")
        )
    if (folder / MODEL_FILE).is_file():
        return folder / MODEL_FILE
    if (folder / "model.pt").is_file():
        raise ValueError(
            f"{option} '{path}' has weights but no {MODEL_FILE}: their training was not finished, or is older than "
            f"model files. Run its training command once more with --resume True, which writes {MODEL_FILE}."
        )
    raise ValueError(f"{option} must be the folder of a trained model, '{path}' has no {MODEL_FILE}.")


def _check_parts(content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") not in _FORMATS:
        raise ValueError(f"format must be '{FORMAT}'")
    version = content.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"format_version must be a number from 1, got {version!r}")
    if version > FORMAT_VERSION:
        return  # its parts may be others; what comes next refuses it by its version
    for name, kinds in _PARTS.items():
        if not isinstance(content.get(name, ...), kinds):
            raise ValueError(f"{name} must be there, and be {_kind_names(kinds)}")
    if content["family"] not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got '{content['family']}'")
    network = content["network"]
    if not isinstance(network.get("name"), str) or not isinstance(network.get("arguments", ...), dict | None):
        raise ValueError("network must have a name and arguments")
    _check_finite(content, "")


def _check_finite(value: Any, name: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):  # Python's JSON reads NaN and Infinity
        raise ValueError(f"{name} must be finite, got {value}")
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        _check_finite(item, f"{name}::{key}" if name else str(key))


def _kind_names(kinds: type | tuple[type, ...]) -> str:
    names = {str: "text", dict: "a mapping", type(None): "null"}
    return " or ".join(names[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def _check_entry(model: Path, part: str, entry: Any) -> None:
    name, known = (entry.get(key) if isinstance(entry, dict) else None for key in ("file", "sha256"))
    if not isinstance(name, str) or not isinstance(known, str) or Path(name).name != name:
        raise ValueError(f"'{model}' is no file of a model: {part} must have the name of a file and its sha256.")


def _check_bound(model: Path, part: str, entry: Any) -> None:
    _check_entry(model, part, entry)
    name, known = entry["file"], entry["sha256"]
    file = model.parent / name
    if not file.is_file():
        raise ValueError(f"'{model}' names '{name}', which is missing.")
    if file_sha256(file) != known:
        raise ValueError(
            f"'{file}' is not the file that {model.name} describes: the SHA-256 differs. A training that was ended "
            "goes on with --resume True; a file from elsewhere has to come with its own folder."
        )
