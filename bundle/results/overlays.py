# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a result: heat as color over the image, findings as boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bundle.files import atomic_path
from bundle.results.records import Box, ImageResult, NotWrittenError

__all__ = [
    "check_heat_range",
    "draw_boxes",
    "draw_seen",
    "draw_words",
    "heat_layer",
    "image_layer",
    "overlay_picture",
    "words_fit",
    "write_overlay",
]

_BOX_COLOR = (0, 229, 255)  # cyan: not in the color map, and seen on dark and on bright tissue
_SEEN_COLOR = (124, 252, 0)  # green, for the same reasons
_LEAST_FONT = 8  # pixels; smaller ones cannot be read
_OPACITY = 0.6  # how much of the image full heat hides


def image_layer(image: np.ndarray, max_side: int | None = None) -> Image.Image:
    """
    Return the image as an 8-bit RGB picture.

    Args:
        image: display values 0..1, clipped to the range, or bytes, shape ``(rows, columns)`` or ``(rows, columns, 3)``.
        max_side: the longer side is brought down to this many pixels; ``None`` keeps the pixel grid.

    Raises:
        ValueError: When the shape is another one, or a side is zero.
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)) or 0 in image.shape:
        raise ValueError(f"image must have shape (rows, columns) or (rows, columns, 3), got {image.shape}.")
    pixels = image if image.dtype == np.uint8 else np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2:] == (1,) else pixels).convert("RGB")
    return _limit(picture, max_side, Image.Resampling.LANCZOS)


def heat_layer(heatmap: np.ndarray, heat_range: tuple[float, float], max_side: int | None = None) -> Image.Image:
    """
    Return the heatmap as an RGBA picture: no heat is transparent, full heat is bright and opaque.

    Args:
        heatmap: any unit, shape ``(rows, columns)``; not-a-number, which the network did not look at, is transparent.
        heat_range: values shown as no heat and as full heat; the same for all pictures that are to be compared.
        max_side: the longer side is brought down to this many pixels; ``None`` keeps the pixel grid.

    Raises:
        ValueError: When the shape is another one, or the range is empty or not finite.
    """
    if heatmap.ndim != 2 or 0 in heatmap.shape:
        raise ValueError(f"heatmap must have shape (rows, columns), got {heatmap.shape}.")
    low, high = check_heat_range(heat_range)
    fraction = np.clip((np.nan_to_num(heatmap.astype(np.float32), nan=low) - low) / (high - low), 0, 1)
    # resized as numbers, not as colors, or the border of a hot spot takes the hue of values that it does not have
    gray = _limit(Image.fromarray(np.rint(fraction * 255).astype(np.uint8)), max_side, Image.Resampling.BILINEAR)
    return Image.fromarray(_colors()[np.asarray(gray)])


def draw_boxes(picture: Image.Image, boxes: Sequence[Box], scale: float = 1.0) -> None:
    """
    Draw each box with its label into a picture.

    The height of the map inside is not printed: it reads like a probability, and is none.

    Args:
        picture: RGB, changed in place.
        boxes: in pixels of the source frame.
        scale: pixels of the picture per pixel of the source frame.
    """
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 400))
    font = ImageFont.load_default(size=max(10, round(max(picture.size) / 45)))
    for box in boxes:
        left, top = box.x * scale, box.y * scale
        # edges lie between pixels, and the pen takes the pixel after the edge
        right, bottom = (box.x + box.width) * scale - 1, (box.y + box.height) * scale - 1
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=_BOX_COLOR, width=width)
        if not box.label:
            continue
        x0, y0, x1, y1 = pen.textbbox((0, 0), box.label, font=font)
        corner = (min(left, picture.width - x1), top - y1 if top >= y1 else top + width)
        pen.rectangle((corner[0] + x0, corner[1] + y0, corner[0] + x1, corner[1] + y1), fill=(0, 0, 0))
        pen.text(corner, box.label, fill=_BOX_COLOR, font=font)


def draw_seen(picture: Image.Image, seen: Sequence[float], scale: float = 1.0) -> None:
    """
    Frame the part of the image that the network looked at.

    Args:
        picture: RGB, changed in place.
        seen: x, y, width, height in pixels of the source frame.
        scale: pixels of the picture per pixel of the source frame.
    """
    x, y, width, height = (edge * scale for edge in seen)
    # a line that lies beyond the border would not be seen
    left, top = (min(max(0.0, edge), side - 1) for edge, side in zip((x, y), picture.size, strict=True))
    right, bottom = (
        min(max(low, edge - 1), side - 1)
        for low, edge, side in zip((left, top), (x + width, y + height), picture.size, strict=True)
    )
    line = max(1, round(max(picture.size) / 400))
    ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=_SEEN_COLOR, width=line)


def _laid_out(width: int, height: int, lines: Sequence[str]) -> list[tuple[str, Any]]:
    """Return each line with its font, as small as it must be to fit a picture, broken between words where none is."""
    pen = ImageDraw.Draw(Image.new("1", (1, 1)))
    found: list[tuple[str, Any]] = []
    for line in lines:
        size = max(_LEAST_FONT, round(min(width / 45, height / 20)))
        while size > _LEAST_FONT and pen.textlength(line, font=ImageFont.load_default(size=size)) > width - 8:
            size -= 1
        font, row = ImageFont.load_default(size=size), ""
        for word in line.split(" "):
            longer = f"{row} {word}" if row else word
            if row and pen.textlength(longer, font=font) > width - 8:
                found.append((row, font))
                longer = word
            row = longer
        found.append((row, font))
    return found


def words_fit(width: int, height: int, lines: Sequence[str]) -> bool:
    """
    Return whether words can be drawn legibly: within the width of a picture, and over at most half of its height.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        lines: as for :py:func:`draw_words`.

    Example:
        >>> words_fit(640, 480, ["Research use only."]), words_fit(16, 16, ["Research use only."])
        (True, False)
    """
    pen = ImageDraw.Draw(Image.new("1", (1, 1)))
    edges = [pen.textbbox((0, 0), text, font=font) for text, font in _laid_out(width, height, lines)]
    taken = 4 + sum(y1 - y0 + 5 for _, y0, _, y1 in edges)
    return max(x1 for _, _, x1, _ in edges) <= width - 4 and taken <= height / 2


def draw_words(
    picture: Image.Image, lines: Sequence[str], top: bool, color: tuple[int, int, int] = (255, 255, 255)
) -> None:
    """
    Draw lines of words on black into the left corner of a picture, broken where they do not fit its width.

    Args:
        picture: RGB, changed in place.
        lines: one below the other.
        top: in the upper corner instead of the lower one.
        color: of the words.
    """
    pen = ImageDraw.Draw(picture)
    y = 4.0
    laid_out = _laid_out(picture.width, picture.height, lines)
    for line, font in laid_out if top else reversed(laid_out):
        x0, y0, x1, y1 = pen.textbbox((0, 0), line, font=font)
        corner = (4, y - y0 if top else picture.height - y1 - y)
        pen.rectangle((corner[0] + x0 - 2, corner[1] + y0 - 2, corner[0] + x1 + 2, corner[1] + y1 + 2), fill=(0, 0, 0))
        pen.text(corner, line, fill=color, font=font)
        y += y1 - y0 + 5


def overlay_picture(result: ImageResult, heat_range: tuple[float, float]) -> Image.Image:
    """
    Return the image with its heat and its boxes; without an image, the heat over black.

    A frame shows what the network looked at where that is not all, and words say that an image is not assessed.

    Args:
        result: with an image or a heatmap.
        heat_range: values shown as no heat and as full heat.

    Returns:
        RGB picture.

    Raises:
        NotWrittenError: When there is neither image nor heatmap, or the two differ in size.
    """
    grid = result.image if result.image is not None else result.heatmap
    if grid is None:
        raise NotWrittenError("a picture needs an image or a heatmap, got neither.")
    rows, columns = grid.shape[:2]
    picture = image_layer(np.zeros((rows, columns)) if result.image is None else result.image)
    if result.heatmap is not None:
        if result.heatmap.shape != (rows, columns):
            raise NotWrittenError(
                f"heatmap must have the image's {(rows, columns)} pixels, got {result.heatmap.shape}."
            )
        heat = heat_layer(result.heatmap, heat_range)
        heat.putalpha(heat.getchannel("A").point(lambda value: round(value * _OPACITY)))
        picture.paste(heat, mask=heat)
    draw_boxes(picture, result.boxes, scale=picture.width / columns)
    if result.seen is not None:
        draw_seen(picture, result.seen, scale=picture.width / columns)
    words = [] if result.not_assessed is None else [f"Not assessed: {result.not_assessed}"]
    if result.seen is not None:
        words.append("Outside of the frame: not looked at")
    draw_words(picture, words, top=True, color=_SEEN_COLOR)
    return picture


def write_overlay(
    path: str | os.PathLike,
    result: ImageResult,
    heat_range: tuple[float, float],
) -> None:
    """
    Write :py:func:`overlay_picture` as a PNG file, which carries no text of the source.

    Args:
        path: file to write.
        result: with an image or a heatmap.
        heat_range: values shown as no heat and as full heat.
    """
    picture = overlay_picture(result, heat_range)
    with atomic_path(path) as partial:
        picture.save(partial, format="PNG", compress_level=1)  # 4 times as fast as the usual 6


def check_heat_range(heat_range: tuple[float, float]) -> tuple[float, float]:
    """
    Return the range as two numbers.

    Args:
        heat_range: values shown as no heat and as full heat.

    Raises:
        ValueError: When it is empty or not finite.
    """
    low, high = (float(value) for value in heat_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"heat_range must be two finite numbers, the lower first, got {(low, high)}.")
    return low, high


def _limit(picture: Image.Image, max_side: int | None, resample: Image.Resampling) -> Image.Image:
    if max_side is None or max(picture.size) <= max_side:
        return picture
    factor = max_side / max(picture.size)
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), resample)


@lru_cache(maxsize=1)
def _colors() -> np.ndarray:
    """Return the color of each of 256 heat values, RGBA, shape ``(256, 4)``."""
    from matplotlib import colormaps  # half a second that a run without pictures need not wait

    colors = np.rint(colormaps["plasma"](np.linspace(0.15, 0.9, 256)) * 255).astype(np.uint8)
    colors[:, 3] = np.rint(255 * np.linspace(0, 1, 256) ** 0.7)  # opaque early, so that middle heat keeps its hue
    return colors
