"""Dead leaves: procedural pictures with the statistics of photographs.

The model is that of Lee, Mumford & Huang, "Occlusion models for natural images" (IJCV 2001). Opaque
shapes with radii of density r^-3 occlude one another. The power spectrum falls approximately as
f^-2, as in photographs. This module extends the model by shapes other than discs, textures,
shading, and colours that neighbours share. It also has regions with few small shapes, because
photographs have skies and walls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_OVERSAMPLING = 2  # factor on width and height of the drawing, which is averaged for smooth edges
_VERTICES = 48  # of an outline; a multiple of 3, 4 and 6, enough for the largest disc
_CELLS = 64  # grid of the fields that neighbouring leaves share

# From (lightness, warmth, greenness) to the log-odds of (red, green, blue).
_OPPONENT = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -2.0], [1.0, -1.0, 1.0]])


def dead_leaves(seed: int | Sequence[int], size: int = 512) -> np.ndarray:
    """Returns a canvas of occluding, textured shapes: uint8 [size, size, 3].

    It is a function of the arguments.

    Args:
      seed: an integer or a sequence of integers, at least 0.
      size: side in pixels, at least 64.
    """
    if size < 64:
        raise ValueError(f"size {size}: expected at least 64")
    rng = np.random.default_rng(seed)
    outlines, centre, radius, turn = _leaves(rng, size)
    top_leaf = _paint(outlines, radius, size)
    light = _shade(rng, top_leaf, centre, radius, turn, size)  # uint8 [2 size, 2 size, 3]
    lens = ImageFilter.GaussianBlur(_OVERSAMPLING * rng.uniform(0.15, 0.5))
    picture = Image.fromarray(light).filter(lens).resize((size, size), Image.Resampling.BOX)
    canvas = np.asarray(picture, np.float32)
    sensor_noise = rng.standard_normal(canvas.shape, np.float32) * rng.uniform(0, 1.5)
    canvas = canvas + sensor_noise
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _leaves(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws n leaves. The first one is the farthest and covers the canvas.

    Returns:
      Outlines [n, _VERTICES, 2], centres [n, 2] (x, y), radii [n], turns [n], in pixels and
      radians.
    """
    smallest, largest = np.exp(rng.uniform(np.log(1.0), np.log(4.0))), 0.8 * size
    mean_area = 2 * np.pi * smallest**2 * np.log(largest / smallest)  # of discs with density r^-3
    n = int(3 * size**2 / mean_area)  # three leaves per pixel on average, before the thinning
    radius = _radii(rng, n, smallest, largest)
    radius[0] = 2 * size
    centre = rng.uniform(-radius[:, None], size + radius[:, None], (n, 2))
    centre[0] = size / 2
    # The threshold on the size, in octaves, is a field: some places have no small leaves.
    octave = 0.25 * np.log2(radius * _CELLS / size)
    here = _at(_power_law_field(rng, _CELLS, 3.0), centre, size)
    grows = octave + here + 0.35 * rng.standard_normal(n) > 0
    grows[0] = True
    centre, radius = centre[grows], radius[grows]
    turn = rng.uniform(0, 2 * np.pi, len(radius))
    return _outlines(rng, centre, radius, turn), centre, radius, turn


def _radii(rng: np.random.Generator, n: int, smallest: float, largest: float) -> np.ndarray:
    """Returns n radii with a density proportional to r^-3 between the limits; r^-2 is uniform."""
    return rng.uniform(largest**-2, smallest**-2, n) ** -0.5


def _outlines(
    rng: np.random.Generator, centre: np.ndarray, radius: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """Returns stretched and turned discs, regular polygons and blobs: [n, _VERTICES, 2]."""
    n = len(radius)
    t = np.arange(_VERTICES) * (2 * np.pi / _VERTICES)
    rho = np.ones((n, _VERTICES))
    kind = rng.choice(["disc", "disc", "disc", "4", "4", "3", "6", "blob"], n)
    for corners in (3, 4, 6):
        polygon = np.cos(np.pi / corners) / np.cos(t % (2 * np.pi / corners) - np.pi / corners)
        rho[kind == str(corners)] = polygon
    waves = np.zeros((n, _VERTICES))
    for k in (2, 3, 5):
        height = 0.35 / k * rng.standard_normal((n, 1))
        waves += height * np.cos(k * t + rng.uniform(0, 2 * np.pi, (n, 1)))
    rho = np.where((kind == "blob")[:, None], np.maximum(1 + waves, 0.2), rho)
    stretch = np.exp(0.35 * np.abs(rng.standard_normal((n, 1))))
    t = t + np.pi / 4  # so that stretching 4 corners gives a rectangle, not a rhombus
    u = rho * radius[:, None] * stretch * np.cos(t)
    v = rho * radius[:, None] / stretch * np.sin(t)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return centre[:, None] + np.stack([cos * u - sin * v, sin * u + cos * v], axis=-1)


def _paint(outlines: np.ndarray, radius: np.ndarray, size: int) -> np.ndarray:
    """Returns the number of the top leaf at each pixel: int32 [2 size, 2 size]."""
    canvas = Image.new("I", (_OVERSAMPLING * size,) * 2)
    draw = ImageDraw.Draw(canvas)
    for number in range(1, len(radius)):  # leaf 0 is the lowest and covers the canvas
        outline = outlines[number] if radius[number] > 12 else outlines[number, ::4]
        draw.polygon((outline * _OVERSAMPLING).ravel().tolist(), fill=number)
    return np.asarray(canvas)


def _shade(
    rng: np.random.Generator,
    top_leaf: np.ndarray,
    centre: np.ndarray,
    radius: np.ndarray,
    turn: np.ndarray,
    size: int,
) -> np.ndarray:
    """Returns colours, shades and textures: uint8 [_OVERSAMPLING size, _OVERSAMPLING size, 3].

    The log-odds of a channel's value at a pixel p of a leaf are the sum of

        colour + slope . p + contrast sin(wave . p + phase + warp noise(p)) + grain fine_noise(p)

    and daylight(p). The three fields vary with p, everything else is constant in a leaf.
    """
    n = len(radius)

    def some(share: float) -> np.ndarray:
        return rng.random(n) < share

    def direction(angle: np.ndarray, length: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1) * length[:, None]

    colour = _colours(rng, centre, size) @ _OPPONENT
    slope = direction(rng.uniform(0, 2 * np.pi, n), rng.exponential(0.5, n) / radius)
    period = np.exp(rng.uniform(np.log(3), np.log(np.maximum(radius, 4))))  # Pixels.
    wave = direction(turn + 0.3 * rng.standard_normal(n), 2 * np.pi / period)
    contrast = some(0.35) * rng.exponential(0.25, n)
    warp = some(0.6) * rng.exponential(2.0, n)
    grain = np.where(some(0.3), 2.2, 0.6) * rng.exponential(0.1, n)
    phase = rng.uniform(0, 2 * np.pi, n)
    # Each leaf reads the noise at a different place.
    shift = rng.integers(0, size, (n, 2), dtype=np.int32)

    def of(values: np.ndarray) -> np.ndarray:
        return np.take(values.astype(np.float32), top_leaf)

    def dot(vectors: np.ndarray) -> np.ndarray:
        return of(vectors[:, 0]) * x + of(vectors[:, 1]) * x.T - of((vectors * centre).sum(axis=-1))

    pixel = np.arange(_OVERSAMPLING * size, dtype=np.int32)[None] // _OVERSAMPLING
    x = (np.arange(_OVERSAMPLING * size, dtype=np.float32)[None] + 0.5) / _OVERSAMPLING
    noise_row = (pixel.T + np.take(shift[:, 1], top_leaf)) % size
    noise_place = noise_row * size + (pixel + np.take(shift[:, 0], top_leaf)) % size
    noise = np.take(_power_law_field(rng, size, 2.0), noise_place)
    fine_noise = np.take(_power_law_field(rng, size, rng.uniform(0.6, 2.0)), noise_place)
    daylight = 0.25 * _power_law_field(rng, size, 3.0)

    shade = dot(slope)
    shade += of(contrast) * np.sin(dot(wave) + of(phase) + of(warp) * noise)
    shade += of(grain) * fine_noise
    shade += daylight.repeat(_OVERSAMPLING, axis=0).repeat(_OVERSAMPLING, axis=1)
    channels = [255 / (1 + np.exp(-(shade + of(colour[:, c])))) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _colours(rng: np.random.Generator, centre: np.ndarray, size: int) -> np.ndarray:
    """Returns (lightness, warmth, greenness) [n, 3]. Neighbours mostly share one of six themes."""
    n = len(centre)
    themes = rng.standard_normal((6, 3)) * [0.8, 0.22, 0.07]
    themes += [0.3 * rng.standard_normal() - 0.5, 0.05, 0]
    region = _at(_power_law_field(rng, _CELLS, 3.0), centre, size)
    theme = np.clip(3 + 1.5 * region, 0, 5).astype(int)
    theme = np.where(rng.random(n) < 0.1, rng.integers(6, size=n), theme)
    return themes[theme] + rng.standard_normal((n, 3)) * [0.4, 0.06, 0.03]


def _at(field: np.ndarray, centre: np.ndarray, size: int) -> np.ndarray:
    """Returns the values [n] of `field: [_CELLS, _CELLS]` at `centre: [n, 2]` in pixels."""
    cell = np.clip(centre * (_CELLS / size), 0, _CELLS - 1).astype(int)
    return field[cell[:, 1], cell[:, 0]]


def _power_law_field(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
    """Returns periodic Gaussian noise of unit variance with power spectrum f^-slope.

    Its shape is [size, size], float32.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    white = rng.standard_normal((size, size), np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) / frequency ** (slope / 2), s=(size, size))
    return (field / field.std()).astype(np.float32)
