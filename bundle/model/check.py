# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Hold the settings of a run against the model that it runs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from bundle.model.content import described, json_value, setting_text, without_start
from bundle.model.file import ModelFile

__all__ = ["check_model"]

logger = logging.getLogger(__name__)


def check_model(
    model: ModelFile,
    settings: Mapping[str, Any],
    network: nn.Module,
    weights_sha256: str | None = None,
    override: bool = False,
) -> list[str]:
    """
    Refuse a run whose settings contradict its model, since its results would be wrong and look right.

    Values are compared, not texts: 0.10 is 0.1, and a tuple is a list.

    Args:
        model: from :py:func:`bundle.model.read_model`.
        settings: of the run, by name; those that the model has too are compared.
        network: of the run.
        weights_sha256: of the file that runs, a checkpoint's or that of the checkpoint an export was made from;
            ``None`` where it is not known.
        override: use the run's settings all the same.

    Returns:
        names of the settings that contradict the model, which ``override`` allowed; no calibration belongs to them.

    Raises:
        ValueError: When a setting contradicts the model, with both values and the way to do it on purpose.
    """
    if not isinstance(override, bool):
        raise ValueError(f"override_model must be True or False, spelled so, got '{override}'.")
    different: dict[str, tuple[Any, Any]] = {
        key: (value, model.settings[key])
        for key, value in settings.items()
        if key in model.settings and json_value(value, key) != model.settings[key]
    }
    own = described(network)
    known = _with_defaults(model.described, network)
    if own["arguments"] is not None and own != known:
        different |= {"network_def": _differing(own, known)}
    if weights_sha256 is not None and weights_sha256 != model.weights_sha256:
        different["ckpt_path"] = (weights_sha256[:12], model.weights_sha256[:12])
        if not override:
            raise ValueError(
                f"the weights in use are not those of the model '{model.name}': SHA-256 "
                f"{weights_sha256[:12]} in place of {model.weights_sha256[:12]}. A training that "
                "was ended goes on with --resume True; --override_model True uses them all the same, uncalibrated."
            )
    for key, (given, known) in different.items():
        if not override:
            words = model.contradiction(key, given, known)
            raise ValueError(f"{words}, or give --override_model True for results without calibration.")
        told = setting_text(given), setting_text(known)
        logger.warning("--%s %s in place of the model's %s: no calibration applies", key, *told)
    return list(different)


def _with_defaults(known: Mapping[str, Any], network: nn.Module) -> Mapping[str, Any]:
    """Return the description of a network with every argument that its class came to have later, as it was before."""
    if known["name"] != type(network).__name__ or known["arguments"] is None:
        return known
    parameters = inspect.signature(type(network)).parameters.items()
    defaults = {name: p.default for name, p in parameters if p.default is not p.empty}
    defaults |= getattr(type(network), "BEFORE", {})
    return {
        "name": known["name"],
        "arguments": {**json_value(without_start(defaults), "network"), **known["arguments"]},
    }


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the two descriptions of a network, without the arguments that are the same."""
    if one["name"] != other["name"]:
        return one["name"], other["name"]
    first, second = one["arguments"], other["arguments"] or {}
    keys = [key for key in {**first, **second} if first.get(key, ...) != second.get(key, ...)]
    return {key: first.get(key) for key in keys}, {key: second.get(key) for key in keys}
