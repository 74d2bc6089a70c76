"""Probabilities as integers: the rows of coding tables (NumPy, float64, at export time).

A row gives one integer frequency to each symbol of a window `first ... first + count - 1`, and one
to the *escape*, which represents every integer outside the window. An escaped value is coded as its
side and magnitude class, with one of the fixed rows `ESCAPE_CDFS`, and then the bits of the class
(`range_coder.py`).

All frequencies are at least 1 and add up to 2**PRECISION, so that no symbol is impossible. Under
these constraints, they minimize the expected code length.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PRECISION = 16  # bits; the maximum of TFC's coder
TOTAL = 1 << PRECISION

# An escaped value is `excess >= 0` steps beyond its side of the window. Class k contains the
# excesses 2**k - 1 ... 2**(k+1) - 2. MAX_EXCESS is the first excess without a class. The limit
# keeps `excess + 1` exact in float32, with which `range_coder.log2` computes classes. If a window
# and a symbol are both within +-MAX_SYMBOL, the excess has a class.
CLASSES = 24
MAX_EXCESS = (1 << CLASSES) - 1
MAX_SYMBOL = (1 << (CLASSES - 1)) - 1

# Candidates for the probability outside a row's window; the cheapest one is used.
_TAIL_MASSES = 2.0 ** -np.arange(6, 19)


def quantize_pmf(pmf: np.ndarray, precision: int = PRECISION) -> np.ndarray:
    """Returns an integer CDF with minimal expected code length.

    Minimizes `-sum_i p_i log q_i` over integers `q_i >= 1` with `sum_i q_i = 2**precision`. The
    objective is separable and convex, so a point is optimal if moving a single unit does not
    improve it. Starting from proportional frequencies, only a few units have to move.

    Args:
      pmf: [n] float, non-negative, not all zero; need not add up to one.
      precision: binary logarithm of the total.

    Returns:
      [n + 1] int32: 0, ..., 2**precision, strictly increasing.

    Raises:
      ValueError: the pmf has another shape or too many symbols, or its values are invalid.
    """
    p = np.asarray(pmf, np.float64)
    total = 1 << precision
    if p.ndim != 1 or not 1 <= p.size <= total:
        raise ValueError(
            f"pmf has shape {p.shape}; a row has one axis and 1 to {total} symbols at {precision} "
            "bits"
        )
    if not np.all(np.isfinite(p)) or np.any(p < 0) or p.sum() <= 0:
        raise ValueError("pmf must be finite, non-negative and not all zero")
    p = p / p.sum()

    # Proportional start: symbols with the minimum frequency take it from the others' total.
    scale = float(total)
    for _ in range(8):
        small = p * scale < 1.0
        if small.all():
            break
        scale = max(total - np.count_nonzero(small), 1) / p[~small].sum()
    q = np.maximum(np.floor(p * scale + 0.5), 1.0)

    gain = p * np.log1p(1.0 / q)  # of one additional unit
    loss = np.full_like(p, np.inf)  # of removing one unit
    loss[q > 1] = -p[q > 1] * np.log1p(-1.0 / q[q > 1])

    def move(i: int, step: int) -> None:
        q[i] += step
        gain[i] = p[i] * np.log1p(1.0 / q[i])
        loss[i] = -p[i] * np.log1p(-1.0 / q[i]) if q[i] > 1 else np.inf

    spare = total - int(q.sum())
    for _ in range(abs(spare)):
        if spare > 0:
            move(int(np.argmax(gain)), 1)
        else:
            move(int(np.argmin(loss)), -1)
    while True:
        up, down = int(np.argmax(gain)), int(np.argmin(loss))
        if not gain[up] > loss[down] * (1 + 1e-12):
            break
        move(up, 1)
        move(down, -1)
    return np.concatenate([[0], np.cumsum(q)]).astype(np.int32)


def class_of(excess: np.ndarray) -> np.ndarray:
    """Returns the magnitude class of an escaped value, `floor(log2(excess + 1))`."""
    return np.frexp(np.asarray(excess, np.float64) + 1.0)[1] - 1


def _class_pmf(below: float, near: bool) -> np.ndarray:
    """Returns probabilities of (class, side) pairs, with side 0 below: index `2 * class + side`."""
    classes = 2.0 ** (-np.arange(CLASSES) / 4.0)
    classes /= classes.sum()
    if near:
        classes *= _NEAR_REST
        classes[0] += 1.0 - _NEAR_REST
    return np.outer(classes, [below, 1.0 - below]).reshape(-1)


# Rows of (class, side) pairs for coding an escape. The first decays slowly over the classes. The
# others are for small scales, where nearly all escapes are next to the window (class 0), with odds
# of the two sides from 2**-12 to 2**12 in steps of 2**0.5.
_NEAR_REST = 2.0**-10  # probability of all classes except 0
ESCAPE_CDFS = (
    quantize_pmf(_class_pmf(0.5, near=False)),
    *(
        quantize_pmf(_class_pmf(1.0 / (1.0 + 2.0 ** (steps / 2.0)), near=True))
        for steps in range(-24, 25)
    ),
)
# Bits of each pair in each row: [rows, 2 * CLASSES].
PAIR_BITS = PRECISION - np.log2([np.diff(cdf) for cdf in ESCAPE_CDFS])


def escape_bits(excess: np.ndarray, side: np.ndarray | int, row: int) -> np.ndarray:
    """Returns the bits for side and magnitude of escaped values, without the escape symbol itself.

    Args:
      excess: [...] int, steps beyond the window, from 0.
      side: 0 below the window, 1 above it (broadcasts).
      row: index into ESCAPE_CDFS.

    Returns:
      [...] float64.
    """
    k = class_of(excess)
    return PAIR_BITS[row][2 * k + side] + k


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      first: first symbol of its window.
      cdf: [count + 2] int32, over the window's symbols and, last, the escape.
      escape: index into ESCAPE_CDFS of the row that codes escaped values.
    """

    first: int
    cdf: np.ndarray
    escape: int

    @property
    def count(self) -> int:
        """Number of symbols in the window."""
        return len(self.cdf) - 2

    def bits(self, symbols: np.ndarray) -> np.ndarray:
        """Returns the bits of `symbols`, [...] int, inside or outside the window: [...] float64."""
        symbols = np.asarray(symbols)
        below = self.first - 1 - symbols
        above = symbols - (self.first + self.count)
        excess = np.maximum(below, above)
        lengths = PRECISION - np.log2(np.diff(self.cdf))
        inside = lengths[np.clip(symbols - self.first, 0, self.count - 1)]
        side = (above >= 0).astype(int)
        outside = lengths[-1] + escape_bits(np.maximum(excess, 0), side, self.escape)
        return np.where(excess < 0, inside, outside)


def make_row(pmf: np.ndarray, first: int, start: int, stop: int) -> Row:
    """Returns the row with window `start ... stop - 1` that codes `pmf` most cheaply.

    Args:
      pmf: [n] float, probabilities of `first`, `first + 1`, ... The probability outside of them
        must be below 2**-PRECISION.
      first: the symbol of pmf[0].
      start: first symbol of the window, at least `first`.
      stop: last symbol of the window, plus 1, at most `first + n`.
    """
    p = np.asarray(pmf, np.float64)
    low, high = start - first, stop - first
    cdf = quantize_pmf(np.append(p[low:high], p[:low].sum() + p[high:].sum()))
    # Expected bits of each escape row: the mass of (class, side) pairs times their code lengths.
    pairs = np.zeros(2 * CLASSES)
    np.add.at(pairs, 2 * class_of(np.arange(low)[::-1]), p[:low])
    np.add.at(pairs, 2 * class_of(np.arange(p.size - high)) + 1, p[high:])
    return Row(start, cdf, escape=int(np.argmin(PAIR_BITS @ pairs)))


def fit_row(pmf: np.ndarray, first: int) -> Row:
    """Returns the row and window that code `pmf` most cheaply; the arguments are those of
    `make_row`.

    A wide window spends a frequency of 1 on each improbable symbol. A narrow window spends bits on
    escapes. Windows with several tail masses, half on each side, are therefore compared. A window
    with only the most probable symbol is compared too. If nearly all mass is in that symbol, one
    more symbol on either side, with a frequency of 1 each, would cost several percent.
    """
    p = np.asarray(pmf, np.float64)
    p = p / p.sum()
    below, above = np.cumsum(p), np.cumsum(p[::-1])
    windows = {(first + int(np.argmax(p)), first + int(np.argmax(p)) + 1)}
    for tail in _TAIL_MASSES:
        low = int(np.searchsorted(below, tail / 2, side="right"))
        high = p.size - int(np.searchsorted(above, tail / 2, side="right"))
        windows.add((first + low, first + high))
    symbols = first + np.arange(p.size)
    rows = [make_row(p, first, start, stop) for start, stop in sorted(windows) if start < stop]
    return min(rows, key=lambda row: p @ row.bits(symbols))
