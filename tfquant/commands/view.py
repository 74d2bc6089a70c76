"""`tfquant view`: writes a page that compares a model with conventional codecs on pictures.

    tfquant view pictures/ --out=view.html

The page is one HTML file. It needs neither a server nor a network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfquant import files, startup
from tfquant.commands import choosing, outputs
from tfquant.commands.outcome import CommandError, fail
from tfquant.progress import ProgressBar

if TYPE_CHECKING:
    import numpy as np

_CODECS = ("webp", "jpeg", "avif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("pictures", help="a folder, a glob, a picture, or 'sample'")
    parser.add_argument(
        "-m", "--model", metavar="NAME",
        help="a name that 'tfquant models' lists, or the folder of an exported model",
    )  # fmt: skip
    parser.add_argument(
        "--out", default="view.html", metavar="FILE",
        help="the page to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=int, default=8, metavar="N",
        help="number of pictures in the page, the worst ones first; each takes 2 to 3 MB at 768x512"
        " (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")


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
    out = files.expanded(arguments.out)
    outputs.check(out, arguments.pictures, arguments.overwrite)
    models = choosing.find_set(arguments.model)
    startup.import_tensorflow(choosing.MODEL_CODE)
    from tfquant.data import images
    from tfquant.evaluation import comparison, pictures, view

    try:
        spec = files.expanded(arguments.pictures)
        found = pictures.find_pictures(spec, Path(out).parent / "sample pictures").pictures
        qualities = models.samples()
        kept, _, _ = pictures.readable(found, fail)
        bar = ProgressBar(len(kept) * len(qualities), sys.stderr)
        compared, maps, shown = [], {}, 0
        for picture in kept:
            image = picture.read()
            reason = _too_large(image)
            if reason:
                bar.clear()
                fail(f"{picture.path}: {reason}")
                continue
            shown += 1
            for quality in qualities:
                compared.append(
                    comparison.compare(models, quality, picture.name, image, list(_CODECS))
                )
                maps[picture.name, quality] = models.rate_map(image, quality)
                bar.add()
        bar.clear()
    except images.ImageError as error:
        raise CommandError(error) from None
    if not shown:
        raise CommandError(f"none of {len(found)} pictures can be compared")
    title = f"{shown} pictures through {models.name}"
    note = f"{models.name}: {models.description or 'a model without description'}."
    page = view.page(title, note, compared, maps, arguments.most)
    outputs.write(out, page.encode())
    print(f"{files.shown(out)}: {shown} pictures, {len(page) / 1e6:.1f} MB; open it in a browser")
    if shown < len(found):
        raise CommandError(f"{len(found) - shown} of {len(found)} pictures are not in the page")


def _too_large(image: np.ndarray) -> str:
    """Returns a line about the first codec that cannot encode a picture, or ""."""
    from tfquant.evaluation import conventional

    for codec in (conventional.CODECS[name] for name in _CODECS):
        reason = codec.too_large(image)
        if reason:
            return f"{codec.label} cannot encode it: {reason}"
    return ""
