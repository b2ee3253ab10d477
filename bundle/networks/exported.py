# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks as one file that needs no class of ours: TorchScript, torch.export and ONNX, written and run."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_torchscript
from monai.utils import convert_to_tensor, optional_import
from torch import nn
from torch.export.passes import move_to_device_pass

from bundle.files import atomic_path, file_sha256

__all__ = ["EXPORT_FORMATS", "ExportedNetwork", "can_export", "export_network", "network_to_run", "weights_sha256"]

EXPORT_FORMATS = (".ts", ".pt2", ".onnx")

logger = logging.getLogger(__name__)
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_KEY = "weights_sha256"  # under this name a file says which checkpoint it was made from


def export_network(network: nn.Module, path: str | Path, image_shape: Sequence[int], checkpoint: str | Path) -> None:
    """
    Write a network, buffers included, for batches of any number of images of one size.

    Args:
        network: on the CPU, in any mode; it is exported in evaluation mode.
        path: file to write; its suffix is the format, one of ``EXPORT_FORMATS``.
        image_shape: ``(C, H, W)`` of the images; a ``.pt2`` file keeps an example, which is all zeros.
        checkpoint: the file whose weights the network has; its SHA-256 goes into the file.

    Raises:
        ValueError: When the suffix is unknown, or the format's package is missing.
        CannotWriteError: When the file cannot be written.
    """
    suffix, extra = _suffix(Path(path)), {_KEY: file_sha256(checkpoint)}
    if suffix == ".onnx":
        _package("onnxscript", Path(path))
    network.eval()
    with atomic_path(path) as partial:
        if suffix == ".ts":
            save_net_with_metadata(convert_to_torchscript(network), str(partial), meta_values=extra)
            return
        with torch.no_grad():
            batch = ({0: torch.export.Dim("batch", min=1)},)
            program = torch.export.export(network, (torch.zeros(2, *image_shape),), dynamic_shapes=batch)
        if suffix == ".pt2":
            torch.export.save(program, partial, extra_files=extra)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its own future
            onnx = torch.onnx.export(program, input_names=["image"], output_names=["pred"], verbose=False)
        assert onnx is not None
        onnx.model.metadata_props.update(extra)
        onnx.save(partial, external_data=False)  # one file


def can_export(suffix: str) -> bool:
    """
    Return whether the packages that a format needs are installed, to write its files and to run them.

    Args:
        suffix: one of ``EXPORT_FORMATS``.

    Example:
        >>> can_export(".ts")
        True
    """
    return suffix != ".onnx" or all(map(importlib.util.find_spec, _ONNX_PACKAGES))


class ExportedNetwork(nn.Module):
    """
    A file of :py:func:`export_network` or MONAI's ``ckpt_export``, called like the network it was made from.

    It has no parameters, no layers to look into and no gradient. ONNX runs in onnxruntime, on as many threads as torch.

    Args:
        path: file whose suffix is one of ``EXPORT_FORMATS``. Whoever runs it must trust it as he would trust a program.
        device: where it runs; ONNX runs on CUDA where onnxruntime can.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When the suffix is unknown, or onnxruntime is missing.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        super().__init__()
        path, device = _existing(path), torch.device(device)
        self._run: Callable[[torch.Tensor], torch.Tensor]
        if path.suffix == ".ts":
            script = torch.jit.load(path, map_location=device).eval()
            self._run = lambda image: script(image)  # in a closure: torch.export's module refuses train() and eval()
        elif path.suffix == ".pt2":
            program = torch.export.load(path)
            if device.type != "cpu":
                program = move_to_device_pass(program, str(device))
            module = program.module()
            self._run = lambda image: module(image)
        else:
            session = _session(path)
            name = session.get_inputs()[0].name
            self._run = lambda image: torch.from_numpy(session.run(None, {name: image.cpu().numpy()})[0]).to(image)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape ``(B, C, H, W)`` with the size that was exported.

        Returns:
            what the network returned that was exported.
        """
        with torch.no_grad():
            return self._run(convert_to_tensor(image))


def network_to_run(network: nn.Module, exported: str | Path, device: torch.device | str) -> nn.Module:
    """
    Return the network on its device and in evaluation mode, or the exported file in place of it.

    MONAI's evaluator sets the mode for its own forward pass only; an explanation that follows would run in training
    mode, and change the batch statistics of what comes next.

    Args:
        network: with weights, or to be given weights.
        exported: a file of :py:func:`export_network`, or ``""`` for the network itself.
        device: where it is to run.
    """
    return ExportedNetwork(exported, device) if exported else network.to(device).eval()


def weights_sha256(path: str | Path) -> str | None:
    """
    Return the SHA-256 of a checkpoint, of an exported file that of the checkpoint it was made from.

    Args:
        path: a checkpoint, or a file with a suffix of ``EXPORT_FORMATS``.

    Returns:
        64 hexadecimal digits, or ``None`` with a warning where an exported file does not say it.

    Raises:
        FileNotFoundError: When the file does not exist.
    """
    if Path(path).suffix not in EXPORT_FORMATS:
        if not Path(path).is_file():
            raise FileNotFoundError(f"weights must be an existing file, got '{path}'.")
        return file_sha256(path)
    path = _existing(path)
    found: Any
    if path.suffix == ".onnx":
        found = _session(path).get_modelmeta().custom_metadata_map.get(_KEY)
    elif path.suffix == ".ts":
        files = {"metadata.json": ""}  # where MONAI puts it; its own reader fails where there is none
        torch.jit.load(path, _extra_files=files)
        found = json.loads(files["metadata.json"] or "{}").get(_KEY)
    else:
        extra = {_KEY: ""}
        torch.export.load(path, extra_files=extra)
        found = extra[_KEY]
    if not found:
        logger.warning("'%s' does not say which checkpoint it was made from: nothing is compared with it", path.name)
    return found or None


def _suffix(path: Path) -> str:
    if path.suffix not in EXPORT_FORMATS:
        raise ValueError(f"an exported network's file must end in {', '.join(EXPORT_FORMATS)}, got '{path.name}'.")
    return path.suffix


def _existing(path: str | Path) -> Path:
    path = Path(path)
    _suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"exported must be an existing file, got '{path}'.")
    return path


def _package(name: str, path: Path) -> Any:
    module, found = optional_import(name)
    if not found:
        raise ValueError(f"'{path.name}' needs {name}: pip install 'attention-imaging-bundle[onnx]'.")
    return module


def _session(path: Path) -> Any:
    runtime = _package("onnxruntime", path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # the last level re-orders convolutions: faster by two thirds, but further from torch (1.2e-4 for ADFA's distances)
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return runtime.InferenceSession(str(path), options, providers=runtime.get_available_providers())
