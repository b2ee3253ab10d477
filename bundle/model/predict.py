# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A trained model in three lines of Python, by the configuration that the command line runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils import convert_to_tensor
from torch import nn

from bundle.command.options import literal
from bundle.errors import cause_of
from bundle.files import OWN_ROOT
from bundle.lists.find import find_images
from bundle.model.file import ModelFile
from bundle.model.read_file import read_model
from bundle.reading.datasets import ReadableDataLoader
from bundle.reading.reader import planar_affine
from bundle.results.handler import image_result
from bundle.results.records import ImageResult
from bundle.training.handler_group import HandlerGroup

__all__ = ["Model", "Predictions", "load_model"]


class Predictions(list):
    """
    Results in the order of the images.

    Args:
        results: one an image.
        failures: file and reason of each that could not be read.
    """

    def __init__(self, results: Sequence[ImageResult], failures: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(results)
        self.failures = list(failures)


class Model:
    """
    A trained model that answers images.

    Args:
        path: model folder, or its ``model.json``.
        device: where it runs; ``None`` for a GPU where there is one.
        settings: of the family's inference configuration that a user may change, such as ``false_alarm_rate``.

    Attributes:
        network: with its weights, in evaluation mode.
        file: what the folder says of the model.

    Raises:
        ValueError: When the folder holds no model, or a setting contradicts it.
    """

    def __init__(self, path: str | Path, device: torch.device | str | None = None, **settings: Any) -> None:
        self.file: ModelFile = read_model(path)
        self._parser = inference_parser(self.file, device, settings)
        try:
            self._parser.get_parsed_content("overridden")
            self._parser.get_parsed_content("load_weights")
            self._parser.get_parsed_content("calibration")
        except RuntimeError as error:  # MONAI's, around ours
            raise cause_of(error) from None
        self.network: nn.Module = self._parser.get_parsed_content("network")

    def predict(self, images: Any, batch_size: int | None = None) -> Any:
        """
        Answer images.

        Args:
            images: a path of a file, a folder, a DICOMDIR or a pattern; an array or tensor of display values 0..1 of
                shape ``(rows, columns)``, ``(1, rows, columns)`` or ``(3, rows, columns)``; or a list of such.
            batch_size: images at a time; ``None`` for the configuration's.

        Returns:
            one :py:class:`bundle.results.ImageResult` for one image; :py:class:`Predictions` for a folder, a pattern,
            a file of several frames, or a list.

        Raises:
            FileNotFoundError: When a path names no file.
            ValueError: When the one image that was given cannot be read, or an array is none of an image.
        """
        one = not isinstance(images, list | tuple)
        items, failures = self._items([images] if one else images)
        asked = len(items) + len(failures)
        results, unread = self._run(items, batch_size)
        failures += unread
        if one and asked == 1 and not _of_many(images):
            if failures:
                raise ValueError(failures[0][1])
            return results[0]
        return Predictions(results, failures)

    def preprocessed(self, image: Any) -> torch.Tensor:
        """
        Return what the network is given for an image, ``(3, H, W)``.

        Args:
            image: a path, with ``#frame=N`` after it for a frame, or an array or tensor as :py:meth:`predict` takes.

        Raises:
            RuntimeError: When the file cannot be read.
        """
        item = {"image": image if isinstance(image, str) else _as_image(image, 0)}
        return convert_to_tensor(self._preprocessing()(item)["image"], track_meta=False)

    def _preprocessing(self) -> Compose:
        slot = self._parser.get_parsed_content
        return Compose([_only_paths(slot("read")), slot("fit"), slot("normalize")])

    def _items(self, images: Sequence[Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        items: list[dict[str, Any]] = []
        failures: list[tuple[str, str]] = []
        for number, image in enumerate(images):
            if isinstance(image, str | Path):
                found, refusals = find_images(image, secret=self.setting("pseudonym_key"))
                items += found
                failures += [(str(refusal.source), refusal.reason) for refusal in refusals]
            else:
                items.append({"image": _as_image(image, number), "key": f"{number:06d}"})
        return [{**item, "key": f"{number:06d}"} for number, item in enumerate(items)], failures

    def setting(self, name: str) -> Any:
        """Return what the configuration of the family's inference says of a setting or a part, set to this model."""
        return self._parser.get_parsed_content(name)

    def evaluate(
        self,
        items: Sequence[dict[str, Any]],
        collect: Callable[[dict[str, Any]], None],
        postprocessing: Any = None,
        inferer: Inferer | None = None,
        handlers: Sequence[Any] = (),
        batch_size: int | None = None,
    ) -> list[tuple[str, str]]:
        """
        Read images as inference does, run the network on them, and hand out what it finds, one after the other.

        Args:
            items: with ``image``, a path or what the reader returns.
            collect: is given each item with ``pred`` and what post-processing and handlers added.
            postprocessing: of an item; ``None`` for none.
            inferer: ``None`` for the network's own output.
            handlers: of the evaluator.
            batch_size: images at a time; ``None`` for the configuration's.

        Returns:
            file and reason of each that could not be read.
        """
        batch_size = batch_size or self.setting("batch_size")
        loader = ReadableDataLoader(Dataset(items, self._preprocessing()), batch_size=batch_size)

        def hand_out(engine: Engine) -> None:
            state: Any = engine.state
            for batch, output in zip(state.batch, state.output, strict=True):
                collect({**batch, **output})

        evaluator = SupervisedEvaluator(
            device=self.setting("device"),
            val_data_loader=loader,
            network=self.network,
            inferer=inferer,
            postprocessing=postprocessing,
            val_handlers=[HandlerGroup(handlers)],
            amp=self.setting("amp"),
        )
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, hand_out)
        if items:
            evaluator.run()
        return list(loader.failures)

    def _run(self, items: list[dict], batch_size: int | None) -> tuple[list[ImageResult], list[tuple[str, str]]]:
        results: list[ImageResult] = []

        def collect(item: dict[str, Any]) -> None:
            results.append(image_result(item))

        postprocessing, inferer = self.setting("postprocessing"), self.setting("inferer")
        handlers = self.setting("family_handlers")
        return results, self.evaluate(items, collect, postprocessing, inferer, handlers, batch_size)


def load_model(path: str | Path, device: torch.device | str | None = None, **settings: Any) -> Model:
    """
    Return a trained model that answers images.

    ``model = bundle.load_model("OUT")``, ``result = model.predict("film.dcm")``, and ``model.network`` for those who
    want the module.

    Args:
        path: see :py:class:`Model`, as the others.
        device: see there.
        **settings: see there.

    Raises:
        ValueError: When the folder holds no model, or a setting contradicts it.
    """
    return Model(path, device, **settings)


def inference_parser(
    model: ModelFile, device: torch.device | str | None = None, settings: dict[str, Any] | None = None
) -> ConfigParser:
    """
    Return the configuration of a model's family in inference, set to the model.

    Args:
        model: from :py:func:`bundle.model.read_model`.
        device: where it runs; ``None`` for a GPU where there is one.
        settings: that replace the configuration's, by name.

    Raises:
        ValueError: When the configurations are not beside the package, or have no such setting.
    """
    root = OWN_ROOT
    arguments = root / "configs" / f"args_{model.family}_inference.yaml"
    files = [root / "configs" / "inference.json"]  # of a built zoo bundle
    if arguments.is_file():
        files = [root / file for file in ConfigParser.load_config_file(arguments)["config_file"]]
    elif not files[0].is_file():
        raise ValueError(f"the configurations must lie beside the package, '{root / 'configs'}' has none of them.")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    if device is not None:
        parser["device"] = torch.device(device)
    parser["model"], parser["pseudonym_key"] = model, secrets.token_hex(16)
    for name, value in (settings or {}).items():
        if name in parser:
            parser[name] = literal(value) if isinstance(value, str | Path) else value
        elif name in model.settings:
            model.check(name, value)
        else:
            raise ValueError(f"'{name}' is no setting of {model.family}'s inference.")
    return parser


def _of_many(path: Any) -> bool:
    """Return whether a path asks for all that it finds, however many that are."""
    return isinstance(path, str | Path) and not Path(path).expanduser().is_file()


def _only_paths(read: Callable) -> Callable:
    """Return a transform that reads what is a path and passes images on."""
    return lambda item: read(item) if isinstance(item["image"], str) else item


def _as_image(values: Any, number: int) -> MetaTensor:
    """Return display values as the reader returns an image, ``(3, rows, columns)``."""
    try:
        image = torch.as_tensor(np.asarray(values) if not isinstance(values, torch.Tensor) else values)
        image = torch.as_tensor(image).detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise ValueError(f"an image must be a path, an array or a tensor, got {type(values).__name__}.") from error
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
        shape = list(image.shape)
        raise ValueError(f"an image must have shape (rows, columns) or (1 or 3, rows, columns), got {shape}.")
    low, high = float(image.min()), float(image.max())
    if not (0 <= low and high <= 1):  # not-a-number too
        raise ValueError(f"an image must have display values 0..1, got {low:g} to {high:g}.")
    affine = torch.as_tensor(planar_affine(np.full(2, np.nan)))
    meta = {
        "original_affine": affine,
        "filename_or_obj": f"array {number}",
        "spatial_shape": np.array(image.shape[1:]),
        "original_channel_dim": 0,
        "spacing": np.full(2, np.nan),
        "region": np.array([0, 0, *image.shape[1:]]),
        "modality": "",
        "view_position": "",
    }
    return MetaTensor(image.expand(3, -1, -1).clone(), affine=affine.clone(), meta=meta)
