# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""``model.json``: everything that is needed to use a file of weights, bound to it by its SHA-256."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

import bundle
from bundle import __version__
from bundle.files import atomic_path, file_sha256

__all__ = ["FORMAT_VERSION", "MODEL_FILE", "ModelFile", "read_model", "rewrite_model", "write_model"]

MODEL_FILE = "model.json"
FORMAT = "attention-imaging-bundle model"
_FORMATS = (FORMAT, "attention-imaging model")  # the second of files from before
FORMAT_VERSION = 1
NOTICE = "Research use only. Not for diagnosis."
FAMILIES = ("adfa", "sna", "msa")
_PACKAGES = {"adfa": "bundle.anomaly", "sna": "bundle.classification", "msa": "bundle.localization"}
_LARGEST = 4 * 2**20  # bytes; a real one has less than 100 kB
# arguments that name where training started, of no use later: today's, and two of files of before, where they are null
_STARTS = ("weights", "backbone_weights", "pretrained")
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


# settings that came later, as they were for a model from before
_BEFORE: dict[str, Any] = {"adjustments": []}


@dataclass(frozen=True)
class ModelFile:
    """
    What a model folder says of its model.

    ``model["resize"]`` is a setting that belongs to the weights; ``model.changeable`` holds defaults that a user may
    change.

    Args:
        folder: that the file lies in.
        content: of the file, as ``docs/model.schema.json`` describes it.
        sha256: of the file.
    """

    folder: Path
    content: Mapping[str, Any]
    sha256: str

    @property
    def family(self) -> str:
        """``adfa``, ``sna`` or ``msa``."""
        return self.content["family"]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that belong to the weights, by the name that the configurations have for them."""
        return {**_BEFORE, **self.content["settings"]}

    @property
    def changeable(self) -> dict[str, Any]:
        """Settings that a user may change, as they were in training."""
        return dict(self.content["changeable"])

    @property
    def training_set(self) -> dict[str, Any] | None:
        """What the model was trained on; ``None`` for one that was not trained."""
        return self.content["training_set"]

    @property
    def weights(self) -> str:
        """Path of the weights."""
        return str(self.folder / self.content["weights"]["file"])

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.content["weights"]["sha256"]

    @property
    def calibration(self) -> str:
        """Path of the calibration; empty for a model without one, whatever else lies in the folder."""
        found = self.content["calibration"]
        return str(self.folder / found["file"]) if found else ""

    def __getitem__(self, name: str) -> Any:
        """
        Return a setting.

        Raises:
            ValueError: When the file has none of this name.
        """
        for settings in (self.settings, self.content["changeable"]):
            if name in settings:
                return settings[name]
        raise ValueError(f"'{self.folder / MODEL_FILE}' has no setting '{name}', which this version needs.")

    def check(self, name: str, value: Any) -> None:
        """
        Refuse another value of a setting than the model has.

        Args:
            name: of the setting.
            value: values are compared, not texts: 0.10 is 0.1, and a tuple is a list.

        Raises:
            ValueError: When the model has another, with both.
        """
        if json_value(value, name) != self.settings[name]:
            raise ValueError(self.contradiction(name, value, self.settings[name]) + ".")

    def contradiction(self, name: str, value: Any, known: Any) -> str:
        """Return the words for a setting of a run that is another than the model's."""
        folder = self.folder.name or self.folder
        given, trained = setting_text(value), setting_text(known)
        return f"--{name} {given} contradicts the model '{folder}', which was trained with {trained}: leave it out"

    @property
    def described(self) -> dict[str, Any]:
        """Class and arguments of the network, as :py:func:`described` gives them of one that is there."""
        network = self.content["network"]
        return {"name": network["name"], "arguments": without_start(network["arguments"])}

    def network(self) -> nn.Module:
        """
        Return the network, before its weights are loaded.

        Raises:
            ValueError: When its class is none of this package's, or refuses its arguments.
        """
        name, arguments = self.described["name"], self.described["arguments"]
        family = import_module(_PACKAGES[self.family])
        names = ", ".join(family.NETWORKS)
        if name not in family.NETWORKS or arguments is None:
            raise ValueError(
                f"'{self.folder / MODEL_FILE}': network must be one of {names}, got '{name}'; "
                "a network of one's own is given as network_def, in a layer after the others."
            )
        try:
            made = getattr(family, name)
            return made(**{**getattr(made, "BEFORE", {}), **arguments}, weights=None)
        except TypeError as error:
            raise ValueError(f"'{self.folder / MODEL_FILE}': network '{name}': {error}.") from None


def write_model(
    folder: str | Path,
    family: str,
    weights: str | Path,
    network: nn.Module,
    settings: Mapping[str, Any],
    changeable: Mapping[str, Any] | None = None,
    training_set: Mapping[str, Any] | None = None,
    calibration: str | Path | None = None,
) -> None:
    """
    Write ``model.json`` beside a file of weights; it is complete or absent.

    Args:
        folder: of the weights and the calibration.
        family: ``adfa``, ``sna`` or ``msa``.
        weights: file in ``folder``.
        network: that the weights are of; see :py:func:`bundle.networks.arguments.keeps_arguments`.
        settings: that belong to the weights, by name: plain values, no path.
        changeable: settings that a user may change later.
        training_set: see :py:func:`bundle.model.describe_training_set`; ``None`` for a network that was not trained.
        calibration: file in ``folder``; one that does not exist is left out.

    Raises:
        ValueError: When the family is unknown, a file lies elsewhere, or a setting is no plain finite value.
    """
    folder = Path(folder)
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got '{family}'.")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "notice": NOTICE,
        "bundle_version": __version__,
        "family": family,
        "weights": _bound(Path(weights), folder),
        "calibration": _bound(Path(calibration), folder) if calibration and Path(calibration).is_file() else None,
        "network": described(network),
        "settings": json_value(settings, "settings"),
        "changeable": json_value(changeable or {}, "changeable"),
        "training_set": json_value(training_set, "training_set"),
    }
    _write(folder, content)


def rewrite_model(
    model: ModelFile, folder: str | Path, calibration: str | Path, training_set: Mapping[str, Any] | None
) -> None:
    """
    Write the ``model.json`` of a folder that has a model's weights and another calibration.

    Args:
        model: that the weights are of.
        folder: of the copied weights and the calibration.
        calibration: file in ``folder``.
        training_set: that replaces the model's.

    Raises:
        ValueError: When the weights in ``folder`` are others, or the calibration lies elsewhere.
    """
    folder = Path(folder)
    weights = _bound(folder / model.content["weights"]["file"], folder)
    if weights != model.content["weights"]:
        raise ValueError(f"'{model.folder}' has changed while its weights were copied: start again.")
    _write(
        folder,
        {
            **model.content,
            "format": FORMAT,
            "bundle_version": __version__,
            "calibration": _bound(Path(calibration), folder),
            "training_set": json_value(training_set, "training_set"),
        },
    )


def read_model(path: str | Path, family: str | None = None) -> ModelFile:
    """
    Read what a model folder says of its model.

    Args:
        path: the folder, or a ``model.json``. A relative one that does not exist is looked for beside the package too,
            where a built zoo bundle has its ``models``.
        family: that is asked for; ``None`` for any.

    Returns:
        the file's content; its parts and the hash of the calibration were checked, that of the weights is
        :py:func:`bundle.model.check_model`'s, since an exported file may run in their place.

    Raises:
        ValueError: When there is no such file, it is malformed or of a newer version, a file that it names is another
            or missing, or the model is of another family.
    """
    file = _model_file(path)
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


def json_value(value: Any, name: str) -> Any:
    """
    Return a value as JSON holds it: tuples as lists, numbers of NumPy and torch as Python's.

    Args:
        value: of plain kinds, nested.
        name: for the error.

    Raises:
        ValueError: When something is not finite or not plain.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item, f"{name}::{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, f"{name}::{i}") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):
        return json_value(value.tolist(), name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}.")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{name} must be a plain value, got {type(value).__name__}.")


def setting_text(value: Any) -> str:
    """Return the value of a setting as a person writes it."""
    return value if isinstance(value, str) else json.dumps(json_value(value, "value"))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the content of a model's file with the SHA-256 of all its other parts, so that an edit is noticed.

    Args:
        content: with or without an older ``content_sha256``.
    """
    parts = {key: value for key, value in content.items() if key != "content_sha256"}
    words = json.dumps(parts, sort_keys=True, allow_nan=False)
    return {**parts, "content_sha256": hashlib.sha256(words.encode()).hexdigest()}


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(folder / MODEL_FILE) as partial:
        partial.write_text(json.dumps(sealed(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _model_file(path: str | Path) -> Path:
    given = Path(path).expanduser()
    if not given.is_absolute() and not given.exists():
        beside = Path(bundle.__file__).resolve().parents[1] / given
        given = beside if beside.exists() else given
    if given.is_file() and given.suffix == ".json":
        return given
    folder = given.parent if given.is_file() else given
    if not folder.is_dir():
        raise ValueError(f"model_dir must be the folder of a trained model, '{path}' does not exist.")
    if (folder / MODEL_FILE).is_file():
        return folder / MODEL_FILE
    if (folder / "model.pt").is_file():
        raise ValueError(
            f"model_dir '{path}' has weights but no {MODEL_FILE}: their training was not finished, or is older than "
            f"model files. Run its training command once more with --resume True, which writes {MODEL_FILE}."
        )
    raise ValueError(f"model_dir must be the folder of a trained model, '{path}' has no {MODEL_FILE}.")


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


def _bound(file: Path, folder: Path) -> dict[str, str]:
    if file.resolve().parent != folder.resolve():
        raise ValueError(f"'{file}' must lie in the model's folder '{folder}'.")
    return {"file": file.name, "sha256": file_sha256(file)}


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


def described(network: nn.Module) -> dict[str, Any]:
    """Return the class and the arguments of a network; a network of one's own is only named."""
    kind, arguments = type(network), getattr(network, "arguments", None)
    if not kind.__module__.startswith(tuple(f"{package}." for package in _PACKAGES.values())) or arguments is None:
        return {"name": f"{kind.__module__}.{kind.__qualname__}", "arguments": None}
    return {"name": kind.__name__, "arguments": json_value(without_start(arguments), "network")}


def without_start(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the arguments of a network without the one that names where its training started."""
    return None if arguments is None else {name: value for name, value in arguments.items() if name not in _STARTS}
