"""`tfquant view`: writes a page that compares a model with conventional codecs on pictures.

    tfquant view pictures/ --out=view.html

The page is one HTML file. It needs neither a server nor a network.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfquant import files, startup
from tfquant.coding import container
from tfquant.commands import choosing, outputs
from tfquant.commands.outcome import BadInput, CommandError, fail
from tfquant.names import first_few
from tfquant.progress import ProgressBar

if TYPE_CHECKING:
    import numpy as np

    from tfquant.evaluation.comparison import Comparison
    from tfquant.evaluation.pictures import Picture
    from tfquant.export.model_set import ModelSet

_CODECS = ("webp", "jpeg", "avif")
_NAMED = 3  # number of pictures that a note lists by name
# Errors that concern one picture. ValueError includes ModelError. Pillow raises a RuntimeError for
# pictures that AVIF does not allow.
_BLAMED = (
    BadInput, container.BitstreamError, MemoryError, OSError, RuntimeError, ValueError,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("pictures", help="a folder, a glob, a picture, or 'sample'")
    parser.add_argument(
        "-m", "--model", metavar="NAME",
        help="a name that 'tfquant models' lists, or the folder of an exported model",
    )  # fmt: skip
    parser.add_argument(
        "--out", default="view.html", metavar="FILE",
        help="the page to write; - is standard output (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=int, default=8, metavar="N",
        help="number of pictures in the page, the worst ones first; each takes 2 to 3 MB at 768x512"
        " (default: %(default)s)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Writes the page.

    A picture that cannot be read or compared is named, and the page has the others.

    Raises:
      CommandError: there are no pictures, the page cannot be written, or, raised at the end, some
        pictures are not in it.
      ModelError: the model cannot be loaded.
    """
    if arguments.most < 1:
        raise CommandError(f"--most must be at least 1; got {arguments.most}")
    out = outputs.standard_name(files.expanded(arguments.out))
    spec = files.expanded(arguments.pictures)
    outputs.check(out, spec, arguments.overwrite)
    models = choosing.find_set(arguments.model)
    unreadable = _unreadable_folders(spec)
    startup.import_tensorflow(choosing.MODEL_CODE)
    from tfquant.data import images
    from tfquant.evaluation import pictures, view

    name = files.shown(models.name)
    note = f"{name}: {files.shown(models.description) or 'a model without description'}."
    with tempfile.TemporaryDirectory(prefix="tfquant-") as samples:
        try:
            found = pictures.find_pictures(spec, Path(samples))
        except images.ImageError as error:
            raise CommandError(error) from None
        work = _Work(models, found.pictures, arguments)
        page = view.page(
            f"{name} and other codecs", note, work.comparisons(), work.rate_maps, arguments.most,
            work.left_out,
        )  # fmt: skip
    outputs.write(out, page.encode())
    stream = sys.stderr if out == outputs.STANDARD else sys.stdout
    all_of, missing = len(found.pictures), len(found.pictures) - work.shown
    where = f"{files.shown(out)}: {work.shown} pictures, {len(page) / 1e6:.1f} MB"
    print(f"{where}; open it in a browser", *work.notes(), *found.notes, sep="\n", file=stream)
    if missing:
        raise CommandError(f"{missing} of {all_of} pictures are not in the page")
    if unreadable:
        raise CommandError(f"{len(unreadable)} folder(s) cannot be read")


def _unreadable_folders(spec: str) -> list[str]:
    """Returns the folders of `spec` that cannot be read.

    Raises:
      CommandError: `spec` leads to no picture.
    """
    from tfquant.data import finding

    if spec == finding.SAMPLE:
        return []
    try:
        return finding.search(spec).unreadable
    except finding.ImageError as error:
        raise CommandError(error) from None


class _Work:
    """The comparisons of all pictures, which are read and compressed one after the other.

    Attributes:
      shown: number of pictures that have been compared.
      rate_maps: (picture's name, quality) -> map of the last picture, see `view.page`.
      left_out: lines about pictures that are not in the page. It is complete after the last
        comparison.
    """

    def __init__(self, models: ModelSet, found: list[Picture], arguments: argparse.Namespace):
        self._models, self._found, self._arguments = models, found, arguments
        self._qualities = models.samples()
        self._bar = ProgressBar(len(found) * len(self._qualities), sys.stderr)
        self.rate_maps: dict[tuple[str, float], np.ndarray] = {}
        self.left_out: list[str] = []
        self.shown = self._unreadable = 0
        self._notes: dict[str, list[str]] = collections.defaultdict(list)

    def notes(self) -> list[str]:
        """Returns lines about conversions of pictures."""
        return [f"{first_few(names, _NAMED)}: {note}" for note, names in self._notes.items()]

    def comparisons(self) -> Iterator[Comparison]:
        """Yields the comparisons of all pictures at all qualities.

        Raises:
          CommandError: no picture can be compared.
          ModelError: the model cannot be loaded.
        """
        import numpy as np

        blank = np.zeros((64, 64, 3), np.uint8)
        for quality in self._qualities:  # a corrupt model is an error before the first picture
            self._models.compress(blank, quality)
            self._models.rate_map(blank, quality)
        for picture in self._found:
            compared = self._of_picture(picture)
            self.shown += bool(compared)
            yield from compared
            del compared  # frees the pixels
        self._bar.clear()
        if self._unreadable:
            self.left_out.append(f"{self._unreadable} files that cannot be read")
        if not self.shown:
            raise CommandError(f"none of {len(self._found)} pictures can be compared")

    def _of_picture(self, picture: Picture) -> list[Comparison]:
        """Returns the comparisons of a picture, or [] if one of them cannot be made."""
        import tensorflow as tf

        from tfquant.data import images
        from tfquant.evaluation import comparison

        arguments = self._arguments
        self.rate_maps.clear()
        compared = []
        try:
            decoded = images.read(picture.path, arguments.background, page=arguments.page)
            for note in decoded.notes:
                self._notes[note].append(picture.name)
            reason = _too_large(decoded.pixels)
            if reason:
                raise BadInput(reason)
            for quality in self._qualities:
                made = comparison.compare(
                    self._models, quality, picture.name, decoded.pixels, _CODECS
                )
                compared.append(made)
                self.rate_maps[made.name, quality] = self._models.rate_map(made.original, quality)
                self._bar.add()
        except images.ImageError as error:
            self._unreadable += 1
            line = str(error)  # it names the file
        except (*_BLAMED, tf.errors.OpError) as error:
            reason = files.reason(error)
            self.left_out.append(f"{picture.name}: {reason}")
            line = f"{files.shown(picture.path)}: {reason}"
        else:
            return compared
        self._bar.clear()
        fail(line)
        return []


def _too_large(image: np.ndarray) -> str:
    """Returns a line about the first codec that cannot encode a picture, or ""."""
    from tfquant.evaluation import conventional

    for name in filter(conventional.is_available, _CODECS):
        reason = conventional.CODECS[name].too_large(image)
        if reason:
            return f"{conventional.CODECS[name].label} cannot encode it: {reason}"
    return ""
