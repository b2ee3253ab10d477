# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Feature maps of images that a frozen backbone has seen before."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

__all__ = ["FeatureCache", "keep_features"]

logger = logging.getLogger(__name__)


class FeatureCache:
    """
    Feature maps by the content of the image: what changes the image, as the preprocessing does, changes the key.

    An image is kept when it comes for the second time, so images that are changed at random, which never come again,
    take no memory. What is kept is what the backbone gave, so results are the same up to the rounding that batches of
    other sizes bring.

    Args:
        folder: where memory-mapped files are kept, also for later runs; ``None`` keeps the maps in memory.
        max_bytes: in memory; an image that does not fit is computed anew each time.
        half: store half-precision numbers, at half the bytes.
        levels: number of maps of an image.
    """

    def __init__(
        self, folder: str | Path | None = None, max_bytes: int = 4 * 2**30, half: bool = False, levels: int = 3
    ) -> None:
        self.folder, self.bytes_left = None if folder is None else Path(folder), max_bytes
        self.dtype = np.float16 if half else np.float32
        self.computed, self.levels = 0, levels
        self._seen: set[str] = set()
        self._kept: dict[str, list[np.ndarray]] = {}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, images: torch.Tensor, compute: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """
        Args:
            images: shape ``(B, C, H, W)``.
            compute: the backbone.

        Returns:
            its maps of the images, on their device.
        """
        plain = convert_to_tensor(images, track_meta=False)
        pixels = plain.detach().cpu().contiguous().numpy()
        keys = [self._key(image) for image in pixels]
        found = [self._find(key) for key in keys]
        missing = [i for i, maps in enumerate(found) if maps is None]
        if missing:
            self.computed += len(missing)
            fresh = [m.permute(0, 2, 3, 1) for m in compute(plain[missing])]
            if len(missing) == len(keys) and not any(key in self._seen for key in keys):
                self._seen.update(keys)
                return [m.permute(0, 3, 1, 2) for m in fresh]
            for number, i in enumerate(missing):
                maps = [m[number].detach().cpu().float().contiguous().numpy() for m in fresh]
                self._offer(keys[i], maps)
                found[i] = maps
        levels = zip(*(maps for maps in found if maps is not None), strict=True)
        stacked = [torch.from_numpy(np.stack([m.astype(np.float32, copy=False) for m in level])) for level in levels]
        return [m.to(plain.device).permute(0, 3, 1, 2) for m in stacked]  # channels last, as they were

    def _key(self, image: np.ndarray) -> str:
        head = f"{image.shape} {image.dtype} {self.dtype.__name__} {torch.is_autocast_enabled()}".encode()
        return hashlib.blake2b(
            image.tobytes(), key=hashlib.blake2b(head, digest_size=16).digest(), digest_size=16
        ).hexdigest()

    def _find(self, key: str) -> list[np.ndarray] | None:
        if self.folder is None or key in self._kept:
            return self._kept.get(key)
        if not self._file(key, 0).exists():  # written last
            return None
        self._kept[key] = [np.load(self._file(key, level), mmap_mode="r") for level in range(self.levels)]
        return self._kept[key]

    def _file(self, key: str, level: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}_{level}.npy"

    def _offer(self, key: str, maps: list[np.ndarray]) -> None:
        if key not in self._seen:
            self._seen.add(key)
            return
        stored = [m.astype(self.dtype) for m in maps]
        if self.folder is not None:
            for level, array in reversed(list(enumerate(stored))):
                with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                    np.save(file, array)
                os.replace(file.name, self._file(key, level))
            return
        size = sum(array.nbytes for array in stored)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self._kept[key] = stored


def keep_features(network: Any, place: str | None = "memory", half: bool = False) -> None:
    """
    Let a network's frozen backbone look up images that it has seen.

    A folder is divided by name, precision and weights of the backbone, so another network finds nothing there.

    Args:
        network: has a ``backbone``, a :py:class:`bundle.networks.FeatureBackbone`.
        place: ``memory``, a folder, or ``None`` to compute everything anew.
        half: see :py:class:`FeatureCache`.
    """
    backbone = network.backbone
    if place is None:
        backbone.cache = None
        return
    folder = None
    if place != "memory":
        digest = hashlib.sha256(f"{backbone.name} {backbone.precision}".encode())
        for name, value in backbone.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        folder = Path(place) / digest.hexdigest()[:16]
        logger.info("features are kept under '%s'", folder)
    backbone.cache = FeatureCache(folder, half=half, levels=len(backbone.strides))
