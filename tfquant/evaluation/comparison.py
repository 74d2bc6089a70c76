"""Comparison of codecs on a picture at about the same number of bytes: a table and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfquant import markdown, plotting
from tfquant.evaluation import conventional, measure, report, same_size
from tfquant.evaluation.same_size import Version
from tfquant.export.model_set import ModelSet

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle

_CROP = 0.3  # share of each side of the picture


class Comparison(NamedTuple):
    """A picture and its versions.

    Attributes:
      name: name of the picture.
      original: uint8 [H, W, 3].
      quality: quality of the model that made the first version.
      versions: the version of the model, then those of conventional codecs, see
        `same_size.of_size`.
    """

    name: str
    original: np.ndarray
    quality: float
    versions: tuple[Version, ...]

    def size(self) -> int:
        """Returns the number of bytes of the model's file."""
        return len(self.versions[0].data)


def compare(
    models: ModelSet, quality: float, name: str, original: np.ndarray, codecs: Iterable[str]
) -> Comparison:
    """Compresses a picture with a model, and with conventional codecs to about the same size.

    Args:
      models: the set of models.
      quality: one of `ModelSet.samples`.
      name: name of the picture.
      original: uint8 [H, W, 3].
      codecs: keys of `conventional.CODECS`; those that Pillow lacks are skipped.

    Raises:
      ModelError: the model cannot be loaded.
    """
    data = models.compress(original, quality)
    own = same_size.version("tfquant", data, models.decompress(data), original)
    others = [same_size.of_size(codec, original, len(data)) for codec in codecs
              if conventional.is_available(codec)]  # fmt: skip
    return Comparison(name, original, quality, (own, *others))


def heads(labels: Sequence[str]) -> list[str]:
    """Returns the heads of the columns of `cells`.

    Args:
      labels: labels of the versions, the model's first.
    """
    return ["picture", "quality", "bytes", "bpp", *(f"{label} bytes" for label in labels[1:]),
            *(f"{label} PSNR" for label in labels),
            *(f"{label} MS-SSIM" for label in labels)]  # fmt: skip


def cells(comparison: Comparison) -> list[str]:
    """Returns a row of a table: sizes, PSNR in dB and MS-SSIM of all versions.

    Sizes that do not count as the same have their difference from the model's in percent.
    """
    own, *others = comparison.versions
    bpp = measure.bits_per_pixel(len(own.data), comparison.original)
    row = [comparison.name, f"{comparison.quality:g}", str(len(own.data)), f"{bpp:.3f}"]
    row += [same_size.size_text(version, len(own.data)) for version in others]
    row += [_psnr(version) for version in comparison.versions]
    row += [report.number(version.quality.ms_ssim, 4) for version in comparison.versions]
    return row


def table(comparisons: Sequence[Comparison]) -> str:
    """Returns a Markdown table with a row for each picture and quality, see `cells`."""
    labels = [version.label for version in comparisons[0].versions]
    return markdown.table(heads(labels), map(cells, comparisons))


def _psnr(version: Version, unit: str = "") -> str:
    psnr = version.quality.psnr
    return "lossless" if psnr is None else f"{psnr:.2f}{unit}"


def draw(comparisons: Sequence[Comparison], path: str) -> None:
    """Writes a PNG with two rows for each picture: all versions, and a detail of each.

    The detail is the part in which the versions differ most.

    Args:
      comparisons: with equal numbers of versions.
      path: path of the PNG.
    """
    columns = 1 + len(comparisons[0].versions)
    heights = []
    for each in comparisons:
        heights += [each.original.shape[0] / each.original.shape[1]] * 2
    width = 3.1
    figure, axes = plotting.new_figure(
        (width * columns, width * sum(heights) + 0.45 * len(comparisons)), columns,
        2 * len(comparisons), gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for row, each in enumerate(comparisons):
        top, left, high, wide = _busiest(each)
        titles = [
            f"{each.name}, original",
            *(_title(version, each.size()) for version in each.versions),
        ]
        pictures = [each.original, *(version.image for version in each.versions)]
        for column, (title, picture) in enumerate(zip(titles, pictures)):
            whole, part = axes[2 * row, column], axes[2 * row + 1, column]
            whole.imshow(picture)
            outline = ((left, top), wide, high)
            whole.add_patch(_rectangle(*outline))
            whole.set_title(title, fontsize=9)
            part.imshow(picture[top : top + high, left : left + wide], interpolation="nearest")
    for each in axes.flat:
        each.set_axis_off()
    figure.savefig(path)


def _title(version: Version, size: int) -> str:
    ms_ssim = version.quality.ms_ssim
    similarity = "" if ms_ssim is None else f", MS-SSIM {ms_ssim:.4f}"
    first = f"{version.label}: {same_size.size_text(version, size, ' bytes')}"
    return f"{first}\n{_psnr(version, ' dB')}{similarity}"


def _rectangle(corner: tuple, width: int, height: int) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=1.2)


def _busiest(comparison: Comparison) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of the part where the versions' errors differ most."""
    errors = [
        np.mean(np.square(version.image.astype(np.float64) - comparison.original), axis=-1)
        for version in comparison.versions
    ]
    spread = np.std(errors, axis=0)
    rows, columns = spread.shape
    high, wide = max(int(_CROP * rows), 1), max(int(_CROP * columns), 1)
    sums = np.pad(np.cumsum(np.cumsum(spread, axis=0), axis=1), ((1, 0), (1, 0)))
    window = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = np.unravel_index(np.argmax(window), window.shape)
    return int(top), int(left), high, wide
