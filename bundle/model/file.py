# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""``model.json``: everything that is needed to use a file of weights, bound to it by its SHA-256."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from bundle.model.content import MODEL_FILE, PACKAGES, json_value, setting_text, without_start

__all__ = ["ModelFile"]

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
    def name(self) -> str:
        """Name of the folder, without its path; that of the zoo bundle for its folder ``models``."""
        folder = Path(os.path.abspath(self.folder))
        return folder.parent.name if folder.name == "models" else folder.name

    @property
    def family(self) -> str:
        """``adfa``, ``sna``, ``msa`` or ``detector``."""
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
        given, trained = setting_text(value), setting_text(known)
        return f"--{name} {given} contradicts the model '{self.name}', which was trained with {trained}: leave it out"

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
        family = import_module(PACKAGES[self.family])
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
