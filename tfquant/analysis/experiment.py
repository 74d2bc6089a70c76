"""Parts of an experiment: its settings, its description and its result."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Callable, TextIO, TypeVar

from matplotlib.figure import Figure

from tfquant.analysis.maps import Method, commutes_with_steps, methods
from tfquant.names import check_known
from tfquant.quantization.surrogates import SURROGATES

Rows = list[dict[str, Any]]  # of a table: column -> value
_Item = TypeVar("_Item")


class AnalysisError(Exception):
    """An error that the user can correct; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of an experiment, with defaults filled in, and checked.

    Attributes:
      surrogates: names, in the figure's order.
      alphas: temperatures of the annealed surrogates.
      sigmas: scales of the latent.
      full: if true, uses finer grids and longer training.
      seed: seed of all samples.
      model_dirs: training runs, for experiments on trained codecs.
      images: pictures for these runs.
      dataset: small images for training, see `small_images`.

    Raises:
      AnalysisError: a value is unknown or out of range, or a surrogate does not commute with whole
        steps.
    """

    surrogates: tuple = ()
    alphas: tuple = ()
    sigmas: tuple = ()
    full: bool = False
    seed: int = 0
    model_dirs: tuple = ()
    images: str = "sample"
    dataset: str = "digits"

    def __post_init__(self) -> None:
        for name in self.surrogates:
            check_known("surrogate", name, SURROGATES, AnalysisError)
        for what in ("alphas", "sigmas"):
            for value in getattr(self, what):
                if not (value > 0 and math.isfinite(value)):
                    raise AnalysisError(f"--{what} must be positive numbers; got {value:g}")
        for method in self.methods:
            if not commutes_with_steps(method):
                raise AnalysisError(
                    f"surrogate {method} does not commute with whole steps, f(v + 1) = f(v) + 1;"
                    " the analyses need this, because they cover only one step"
                )
        if self.seed < 0:
            raise AnalysisError(f"--seed must not be negative; got {self.seed}")

    @property
    def methods(self) -> list[Method]:
        """The surrogates; annealed ones occur once for each temperature."""
        return methods(self.surrogates, self.alphas)


@dataclasses.dataclass
class Result:
    """The result of an experiment.

    Attributes:
      columns: the CSV's columns, in order.
      rows: one dictionary per row, by column; a missing value or None gives an empty cell.
      figure: a matplotlib figure.
      notes: Markdown text on the result and its accuracy.
    """

    columns: tuple
    rows: list
    figure: Figure
    notes: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One figure or table of the paper.

    Attributes:
      name: name on the command line and of the files.
      reproduces: the paper's figure or table.
      summary: one line of text.
      run: `(settings, progress) -> Result`.
      surrogates: default surrogates, those of the paper's figure.
      alphas: default temperatures, likewise.
      sigmas: default scales, likewise.
      needs_model: if true, the experiment analyses trained runs (`--model_dir`).
    """

    name: str
    reproduces: str
    summary: str
    run: Callable
    surrogates: tuple = ()
    alphas: tuple = ()
    sigmas: tuple = ()
    needs_model: bool = False

    def settings(self, **asked: Any) -> Settings:
        """Returns the given settings; the figure's own values replace missing ones and None."""
        own = {k: getattr(self, k) for k in ("surrogates", "alphas", "sigmas")}
        return Settings(**{**own, **{k: v for k, v in asked.items() if v is not None}})


class Progress:
    """Prints lines like `gradient_risk: sua alpha=5, sigma 0.2 (3 of 16, 4 s)` on standard
    error.
    """

    def __init__(self, name: str, stream: TextIO | None = None):
        self._name = name
        self._stream = stream
        self._start = time.monotonic()

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Prints the task that starts now."""
        seconds = f"{time.monotonic() - self._start:.0f} s"
        place = seconds if done is None else f"{done} of {total}, {seconds}"
        print(f"{self._name}: {what} ({place})", file=self._stream or sys.stderr, flush=True)

    def over(
        self, items: Iterable[_Item], describe: Callable[[_Item], str] = str
    ) -> Iterator[_Item]:
        """Iterates over `items` and prints each one before it starts."""
        items = list(items)
        for i, item in enumerate(items):
            self(describe(item), i + 1, len(items))
            yield item
