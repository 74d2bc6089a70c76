"""The command `records`, which writes pictures to TFRecord shards."""

from __future__ import annotations

import argparse
import collections
import sys
from typing import TYPE_CHECKING

from tfquant import files, startup
from tfquant.commands import outputs
from tfquant.commands.compressing import check_complete, say_left_out, some_names
from tfquant.commands.outcome import CommandError, fail
from tfquant.progress import ProgressBar

if TYPE_CHECKING:
    from tfquant.data import images

SHARDS = 16


def records(arguments: argparse.Namespace) -> None:
    """Runs `tfquant records`."""
    from tfquant.data import finding, images

    outputs.check_new(arguments.set, arguments.overwrite)
    try:
        found = finding.search(arguments.pictures)
    except images.ImageError as error:
        raise CommandError(error) from None
    startup.import_tensorflow()
    import tensorflow as tf

    from tfquant.data import records

    bar = ProgressBar(len(found.paths), sys.stderr)
    notes = collections.defaultdict(list)

    def skip(error: images.ImageError) -> None:
        bar.clear()
        fail(error)

    try:
        kept, shards = records.write(
            found.paths,
            arguments.set,
            arguments.shards or min(SHARDS, len(found.paths)),
            jobs=arguments.jobs,
            skip=skip,
            done=bar.add,
            background=arguments.background,
            page=arguments.page,
            note=lambda path, text: notes[text].append(path),
        )
    except (images.ImageError, tf.errors.OpError, UnicodeError) as error:
        raise CommandError(error) from None
    finally:
        bar.clear()
    total = len(found.paths)
    print(f"{files.shown(arguments.set)}: {kept} of {total} pictures in {shards} shards")
    for text, paths in notes.items():
        print(f"{some_names(paths)}: {text}")
    say_left_out(arguments.pictures, found)
    if kept < total:
        raise CommandError(f"{total - kept} of {total} pictures are not in the set")
    check_complete(found)
