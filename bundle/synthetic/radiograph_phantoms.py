# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic frontal chest radiographs: a body of simple shapes, seen in projection. They stand for no patient."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bundle.synthetic.inserted_lesions import insert_lesion

__all__ = ["RADIOGRAPH_SPACING", "make_radiograph"]

RADIOGRAPH_SPACING = 0.06  # cm per pixel on the detector: 576 columns are a 35 cm plate
_SHAPE = (704, 576)
_RIBS = 10


def make_radiograph(rng: np.random.Generator, lesion: str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Return a synthetic upright posteroanterior chest radiograph, white is dense.

    Attenuation is added up along parallel rays through air, soft tissue and bone, lengths in cm, then compressed as a
    film does. Position, build, heart, diaphragm, vessels, exposure and noise vary.

    Args:
        rng: everything random comes from it alone.
        lesion: ``None`` for a normal image, or one of :py:data:`bundle.synthetic.inserted_lesions.INSERTED_KINDS`.

    Returns:
        display values 0..1, float32, shape ``(704, 576)``; and the lesion's box as left, upper, right, lower edge in
        pixels, shape ``(4,)``, or ``None``.

    Raises:
        ValueError: When ``lesion`` is unknown.
    """
    x, y = _patient_grid(rng)
    tissue = _body(x, y, rng)
    air = np.minimum(_lung_air(x, y, rng), 0.8 * tissue)
    bone = _ribs(x, y, rng) + 0.6 * _spine(x, y) + _shoulders(x, y)
    vessels = _vessels(rng, x, y) * np.clip(air / 6, 0, 1)
    attenuation = 0.16 * (tissue - 0.92 * air + 3 * vessels) + 0.36 * bone
    # the plate's automatic exposure brings every patient to about the same range
    low, high = np.quantile(attenuation[::4, ::4], (0.02, 0.985)).tolist()
    film = np.clip((attenuation - low) / (high - low), 0, 1.2) ** rng.uniform(0.95, 1.1)
    # plates are developed with the fine structures lifted against the coarse ones
    film = 0.06 + 0.72 * film + 0.7 * (film - ndimage.uniform_filter(ndimage.uniform_filter(film, 51), 51))
    film += (
        ndimage.gaussian_filter(rng.standard_normal(_SHAPE, np.float32), 0.6) * 0.015 * np.exp(0.75 * film)
    )  # few rays get through
    image = np.clip(ndimage.gaussian_filter(film, 0.6), 0, 1).astype(np.float32)
    if lesion is None:
        return image, None
    return insert_lesion(image, lesion, rng, lungs=air > 4)


def _patient_grid(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return every pixel's place in the patient: cm from the midline to the image's right, and cm from the top."""
    rows, columns = np.mgrid[: _SHAPE[0], : _SHAPE[1]].astype(np.float32) * RADIOGRAPH_SPACING
    x, y = columns - columns.mean(), rows - rows.mean()
    angle, scale = np.deg2rad(rng.normal(0, 0.7)), rng.uniform(0.95, 1.05)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))  # a NumPy scalar would turn the arrays to float64
    x, y = x * cosine + y * sine, y * cosine - x * sine
    x, y = (x - rng.normal(0, 0.3)) / (scale * rng.uniform(0.96, 1.04)), (y - rng.normal(0, 0.4)) / scale
    y = y + rows.mean()
    # nobody is quite symmetric
    x = x + 0.15 * np.sin(y / rng.uniform(6, 9) + rng.uniform(0, 6))
    return x, y + 0.15 * np.sin(x / rng.uniform(4, 6) + rng.uniform(0, 6))


def _inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return 1 where the distance to an edge is well above 0, 0 well below; ``softness`` in the same unit."""
    return 1 / (1 + np.exp(-np.clip(distance / softness, -30, 30)))


def _ellipse(x: np.ndarray, y: np.ndarray, center: tuple, radii: tuple, angle: float = 0.0) -> np.ndarray:
    """Return the approximate distance to an ellipse's edge in cm, positive inside."""
    dx, dy = x - center[0], y - center[1]
    cosine, sine = float(np.cos(np.deg2rad(angle))), float(np.sin(np.deg2rad(angle)))
    u, v = (dx * cosine + dy * sine) / radii[0], (dy * cosine - dx * sine) / radii[1]
    norm = np.hypot(u, v) + 1e-6
    return (1 - norm) * norm / (np.hypot(u / radii[0], v / radii[1]) + 1e-6)


def _tube(distance: np.ndarray, radius: float) -> np.ndarray:
    """Return the thickness of a hollow bone at a distance from its axis in cm: bright edges, a paler middle."""
    outer = np.sqrt(np.clip(radius**2 - distance**2, 0, None))
    inner = np.sqrt(np.clip((0.8 * radius) ** 2 - distance**2, 0, None))
    return 2 * (outer - 0.75 * inner)


def _cage(y: np.ndarray | float) -> np.ndarray:
    """Return the half width of the rib cage in cm at a height: a dome that is widest at the diaphragm."""
    up = np.clip((27 - np.asarray(y)) / 22.3, 0, 1)
    return 13.4 * np.sqrt(1 - up**3)


def _body(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the thickness of neck, trunk and arms in cm, lungs counted as tissue."""
    side, depth = np.abs(x), rng.uniform(19, 23)
    slope = 5.2 + 0.35 * y + 13 * _inside(y - 4.8, 0.55)  # neck, then shoulders
    trunk = np.minimum(slope, rng.uniform(15.2, 16.0) + 0.02 * (y - 20) + 8 * _inside(13 - y, 1.0))
    thick = depth * np.clip(1 - (side / trunk) ** 4, 0, None) ** 0.5 * (0.55 + 0.45 * _inside(y - 8, 2))
    arm = 9 * np.sqrt(np.clip(1 - ((side - 17.8 - 0.12 * (y - 10)) / 3.3) ** 2, 0, None)) * _inside(y - 7, 0.6)
    belly = 3 * _inside(y - 30, 2) * np.clip(1 - (side / 14) ** 4, 0, None)
    return np.maximum(thick, arm) + belly


def _lung_air(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the length of air in cm: both lungs, the trachea and a bubble in the stomach."""
    side = np.abs(x)
    cage = _cage(y)
    depth = 17 * np.sqrt(np.clip(1 - (side / np.maximum(cage, 0.1)) ** 2, 0, None))
    lift, heart = rng.normal(0, 0.7), rng.uniform(0.92, 1.08)
    right = 29.3 + lift + 0.05 * (x + 6) ** 2  # the patient's right is on the image's left, where the liver is
    left = 30.7 + lift + rng.normal(0, 0.3) + 0.05 * (x - 6.5) ** 2
    above = _inside(np.where(x < 0, right, left) - y, 0.12)
    behind = 0.10 * _inside(np.where(x < 0, right, left) + 3 - y, 0.8)  # lung behind the dome shines through
    middle = np.where(x < 0, 2.7 + 0.25 * np.cos(y / 2.5), 2.9 + 0.2 * np.cos(y / 2))
    free = _inside(side - middle, 0.15)
    for center, radii, angle in (
        ((2.8, 25.5), (7.8 * heart, 5.2 * heart), 40),  # left ventricle
        ((-0.9, 24.5), (3.6 * heart, 5.6), 0),  # right atrium
        ((3.0, 30.0), (5.0, 3.0), 0),  # where the heart rests on the diaphragm
        ((2.1, 13.2), (1.9, 1.8), 0),  # aortic knob
        ((2.4, 17.0), (1.9, 2.2), 0),  # pulmonary trunk
    ):
        free = free * (1 - 0.92 * _inside(_ellipse(x, y, center, radii, angle), 0.14))
    lungs = depth * free * np.maximum(above, behind) * _inside(cage - side, 0.1)
    windpipe = np.minimum(np.abs(x + 0.1), 9) + 9 * (y > 14.6)
    bronchi = np.abs(side - 0.85 * (y - 14.3)) / 1.3 + 9 * ((y < 14.3) | (side > 3.2))
    tube = np.clip(1 - (np.minimum(windpipe / 0.95, bronchi / 0.75)) ** 2, 0, None) ** 0.5
    bubble = _ellipse(x, y, (6 + rng.normal(0, 0.6), 34.2 + lift), (rng.uniform(1.2, 2.6), rng.uniform(0.7, 1.4)))
    return lungs + 2.6 * tube + 5 * np.sqrt(np.clip(bubble, 0, None)) * _inside(bubble, 0.1)


def _ribs(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the thickness of rib bone in cm: tilted hoops, whose front ends in cartilage that is not seen."""
    side = np.abs(x)
    bone = np.zeros_like(x)
    gap, tilt = rng.uniform(2.25, 2.45), rng.uniform(0.9, 1.1)
    for number in range(_RIBS):
        drop = tilt * min(3.6 + 1.0 * number, 10.5)  # from the spine to the front end
        top = 5.6 + gap * number
        middle = top + drop / 2
        width = float(_cage(middle)) + 0.15
        distance = np.abs(_ellipse(side, y, (0, middle), (width, drop / 2)))
        front = _inside(y - middle, 0.4)
        seen = np.where(side > 1.6, 1.0, 0.0) * (1 - front * _inside(0.55 * width - side, 0.35))
        bone += _tube(distance, 0.5) * seen * (1 - 0.35 * front)
    return bone


def _spine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the thickness of vertebral bone in cm: bodies between darker discs, rings of pedicles."""
    phase = (y / 2.4) % 1
    body = _inside(1.75 - np.abs(x) - 0.2 * np.cos(2 * np.pi * phase), 0.12)
    disc = np.exp(-(((phase - 0.5) / 0.07) ** 2))
    ring = np.exp(-(((np.hypot(np.abs(x) - 1.15, (phase - 0.9) * 2.4) - 0.35) / 0.12) ** 2))
    return body * (2.4 - 0.9 * disc) + 0.8 * ring


def _shoulders(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the thickness of collar bones, shoulder blades and upper arm bones in cm."""
    side = np.abs(x)
    along = np.clip((side - 1.4) / 13.6, 0, 1)
    collar = y - (8.6 - 3.0 * along + 0.8 * np.sin(2 * np.pi * along))
    bone = _tube(collar * 0.95, 0.62) * _inside(side - 1.5, 0.1) * _inside(15.2 - side, 0.1)
    inner, outer = 10.2 + 0.25 * (y - 7), 15.6 - 0.28 * (y - 8)  # borders of the shoulder blade
    blade = _inside(side - inner, 0.1) * _inside(outer - side, 0.1) * _inside(y - 7, 0.2)
    edge = np.exp(-(((side - outer) / 0.22) ** 2)) * _inside(y - 8.5, 0.4) * _inside(outer - inner + 0.3, 0.2)
    bone += 0.4 * blade + 1.0 * edge
    head = _ellipse(side, y, (16.6, 8.6), (2.2, 2.3))
    shaft = _tube(side - (17.6 + 0.12 * (y - 10)), 1.1) * _inside(y - 9.5, 0.3)
    return bone + 1.6 * _inside(head, 0.1) + shaft


def _vessels(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the thickness of lung vessels in cm: trees that grow thinner from the hila outwards."""
    width = np.zeros(_SHAPE, np.float32)
    for side in (-1, 1):
        origin = (side * 3.6, 17.2 if side < 0 else 16.4)
        for angle in np.linspace(-75, 80, 9):
            _branch(width, x, y, origin, np.deg2rad(angle + rng.normal(0, 6)), side, 0.42, 5, rng)
    return ndimage.gaussian_filter(width, 0.8)


def _branch(
    width: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    start: tuple[float, float],
    angle: float,
    side: int,
    radius: float,
    depth: int,
    rng: np.random.Generator,
) -> None:
    """Draw one vessel and its two branches; ``angle`` is measured from the outward horizontal, downwards."""
    length = rng.uniform(1.2, 2.4)
    end = (start[0] + side * length * np.cos(angle), start[1] + length * np.sin(angle))
    # only the pixels around: the grid is nearly regular
    top, left = (round(v / RADIOGRAPH_SPACING) for v in (min(start[1], end[1]) - 2, min(start[0], end[0]) + 15.5))
    bottom, right = (round(v / RADIOGRAPH_SPACING) for v in (max(start[1], end[1]) + 2, max(start[0], end[0]) + 19.5))
    box = np.s_[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    dx, dy = x[box] - start[0], y[box] - start[1]
    ux, uy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    along = np.clip(dx * ux + dy * uy, 0, length)
    distance = np.hypot(dx - along * ux, dy - along * uy)
    thick = radius * (1 - 0.25 * along / length)
    width[box] = np.maximum(width[box], 2 * np.sqrt(np.clip(thick**2 - distance**2, 0, None)))
    if depth > 1:
        for turn in (-0.35, 0.3):
            _branch(width, x, y, end, angle + turn + rng.normal(0, 0.15), side, 0.72 * radius, depth - 1, rng)
