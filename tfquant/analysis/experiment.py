"""What an experiment is: its settings, what it says of itself, and what it hands back."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from typing import Callable

from tfquant.analysis.maps import Method, commutes_with_steps, methods
from tfquant.quantization.surrogates import SURROGATES


class AnalysisError(Exception):
    """Something that the user can put right; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an experiment is asked for, resolved and checked.

    Attributes:
      surrogates: names, in the figure's order.
      alphas: temperatures of the annealed surrogates.
      sigmas: scales of the latent.
      full: finer grids, longer training.
      seed: of everything that is sampled.
      model_dirs: training runs, for what looks at trained codecs.
      images: pictures, likewise.
      dataset: small images to train on, see `small_images`.
    """

    surrogates: tuple = ()
    alphas: tuple = ()
    sigmas: tuple = ()
    full: bool = False
    seed: int = 0
    model_dirs: tuple = ()
    images: str = "sample"
    dataset: str = "digits"

    def __post_init__(self):
        for name in self.surrogates:
            if name not in SURROGATES:
                raise AnalysisError(f"unknown surrogate {name!r}; known: {', '.join(SURROGATES)}")
        for what in ("alphas", "sigmas"):
            for value in getattr(self, what):
                if not (value > 0 and math.isfinite(value)):
                    raise AnalysisError(f"--{what} must be positive numbers; got {value:g}")
        for method in self.methods:
            if not commutes_with_steps(method):
                raise AnalysisError(
                    f"surrogate {method} must commute with whole steps, f(v + 1) = f(v) + 1, to be"
                    " analysed over one of them"
                )
        if self.seed < 0:
            raise AnalysisError(f"--seed must not be negative; got {self.seed}")

    @property
    def methods(self) -> list[Method]:
        """The surrogates, the annealed ones at each temperature."""
        return methods(self.surrogates, self.alphas)


@dataclasses.dataclass
class Result:
    """What an experiment found.

    Attributes:
      columns: the CSV's columns, in order.
      rows: dicts by column; a missing value or None is an empty cell.
      figure: a matplotlib figure.
      notes: Markdown: what to see, and how accurate it is.
    """

    columns: tuple
    rows: list
    figure: object
    notes: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One figure or table of the paper.

    Attributes:
      name: on the command line, and of the files.
      reproduces: the paper's figure or table.
      summary: one line.
      run: `(settings, progress) -> Result`.
      surrogates: those of the paper's figure.
      alphas: likewise.
      sigmas: likewise.
      needs_model: whether it looks at trained runs (`--model_dir`).
    """

    name: str
    reproduces: str
    summary: str
    run: Callable
    surrogates: tuple = ()
    alphas: tuple = ()
    sigmas: tuple = ()
    needs_model: bool = False

    def settings(self, **asked) -> Settings:
        """The settings asked for, with the figure's own where nothing was."""
        own = {k: getattr(self, k) for k in ("surrogates", "alphas", "sigmas")}
        return Settings(**{**own, **{k: v for k, v in asked.items() if v is not None}})


class Progress:
    """Lines like `gradient_risk: sua alpha=5, sigma 0.2 (3 of 16, 4 s)` on standard error."""

    def __init__(self, name: str, stream=None):
        self._name = name
        self._stream = stream
        self._start = time.monotonic()

    def __call__(self, what, done: int | None = None, total: int | None = None) -> None:
        """Says what begins now."""
        seconds = f"{time.monotonic() - self._start:.0f} s"
        place = seconds if done is None else f"{done} of {total}, {seconds}"
        print(f"{self._name}: {what} ({place})", file=self._stream or sys.stderr, flush=True)

    def over(self, items, describe: Callable = str):
        """Goes through `items`, saying which begins."""
        items = list(items)
        for i, item in enumerate(items):
            self(describe(item), i + 1, len(items))
            yield item
