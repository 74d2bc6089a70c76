"""Measures the pretrained models on generated pictures that are unlike photographs.

    python benchmarks/model_card.py --out=card

It prints a Markdown table with PSNR of the models, and of WebP and JPEG in files of about the
same size. `card/` then has the pictures side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import app, flags

from tfquant import stack

_OUT = flags.DEFINE_string("out", "card", "Folder to write.")
_SIDES = (384, 512)


def text_page() -> np.ndarray:
    """Black text on white, in small letters."""
    words = [
        "a",
        "learned",
        "codec",
        "maps",
        "pictures",
        "to",
        "latents,",
        "rounds",
        "and",
        "codes",
    ]
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(words, 11)) for _ in range(24)]

    def draw(axes):
        for row, line in enumerate(lines):
            axes.text(0.02, 0.96 - row / len(lines), line, fontsize=9, transform=axes.transAxes)

    return _drawn(draw)


def line_drawing() -> np.ndarray:
    """A plot: thin coloured lines, axes and numbers on white."""
    x = np.linspace(0, 10, 400)

    def draw(axes):
        for k in range(1, 6):
            axes.plot(x, np.sin(k * x) / k, linewidth=0.9)
        axes.grid(linewidth=0.4)

    return _drawn(draw, axis=True)


def flat_areas() -> np.ndarray:
    """Rectangles and discs of saturated colours with sharp edges, as in icons and cartoons."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: _SIDES[0], : _SIDES[1]]
    image = np.full((*_SIDES, 3), 255, np.uint8)
    for _ in range(25):
        row, column, size = rng.integers((0, 0, 15), (*_SIDES, 80))
        colour = rng.choice((0, 128, 255), 3)
        disc = np.hypot(rows - row, columns - column) < size
        box = (np.abs(rows - row) < size) & (np.abs(columns - column) < size)
        image[disc if rng.random() < 0.5 else box] = colour
    return image


def noise() -> np.ndarray:
    """Independent noise of each pixel and colour around grey."""
    values = np.random.default_rng(2).normal(128, 40, (*_SIDES, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def gradient() -> np.ndarray:
    """A smooth blend of colours, as in skies and backgrounds."""
    rows, columns = (np.linspace(0, 1, side) for side in _SIDES)
    blend = np.stack(np.broadcast_arrays(rows[:, None], columns, 1 - rows[:, None]), axis=-1)
    return np.rint(40 + 170 * blend).astype(np.uint8)


def checkerboard() -> np.ndarray:
    """Squares of one pixel, black and white: the finest texture there is."""
    squares = np.indices(_SIDES).sum(axis=0) % 2 * 255
    return np.repeat(squares[..., None], 3, axis=-1).astype(np.uint8)


PICTURES = {
    "text": text_page,
    "plot": line_drawing,
    "flat areas": flat_areas,
    "noise": noise,
    "gradient": gradient,
    "checkerboard": checkerboard,
}


def _drawn(draw, axis: bool = False) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIDES[1] / 100, _SIDES[0] / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.08, 0.08, 0.9, 0.9) if axis else (0, 0, 1, 1))
    if not axis:
        axes.set_axis_off()
    draw(axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def main(argv) -> None:
    del argv
    stack.import_tensorflow()
    from tfquant.evaluation import comparison
    from tfquant.export import loading

    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    models, compared = loading.load(), []
    for name, make in PICTURES.items():
        picture = make()
        of_picture = [comparison.compare(models, quality, name, picture, ["webp", "jpeg"])
                      for quality in models.samples()]  # fmt: skip
        comparison.draw(of_picture[1:2], str(out / f"{name.replace(' ', '_')}.png"))
        compared += of_picture
    print(comparison.table(compared))


if __name__ == "__main__":
    app.run(main)
