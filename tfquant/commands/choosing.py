"""Paths and options of `compress` and `decompress`, and the models that they select.

    tfquant compress [options] PICTURE [FILE]          the default model, or that of --model
    tfquant compress [options] MODEL PICTURE FILE      the folder of an exported model

The second form applies to three paths, and to two paths if the first one is the folder of an
exported model or of a set of models, or the name of a set and of no file. If the output is omitted,
its name is that of the input with another extension, or `-` (standard output) if the input is `-`
(standard input).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tfquant import files, startup
from tfquant.coding import container
from tfquant.commands import outputs
from tfquant.export import fitting, model_set, registry
from tfquant.export import quality as scale

if TYPE_CHECKING:
    import numpy as np


_UNSEEN = 0.05  # difference of qualities that needs no note: sets round theirs to 0.1
MODEL_CODE = "tfquant.export.rebuilding"  # the module that imports what a model needs


class UsageError(ValueError):
    """Error: the command line is invalid. The message is one line."""


def add_paths(parser: argparse.ArgumentParser, source: str, target: str) -> None:
    """Adds the positional arguments and `--model` to a command.

    Args:
      parser: of the command.
      source, target: help for the input and for the output.
    """
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="[MODEL] INPUT [OUTPUT]",
        help=f"INPUT: {source}. OUTPUT: {target}; by default INPUT with another extension. MODEL:"
        " in place of --model",
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="NAME",
        help="a name that 'tfquant models' lists, such as default; one model of a set, such as"
        " default/q38; or the folder of an exported model",
    )


def add_quality(parser: argparse.ArgumentParser) -> None:
    """Adds `--quality` to a command, and the options that take its place."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-q",
        "--quality",
        type=_quality,
        metavar="Q",
        help="0 to 100; 15 more double the weight of the quality against the size; the nearest"
        " quality that the model has is used (default: that of the set; 50 for the pretrained"
        " models)",
    )
    group.add_argument(
        "--target_size",
        type=_positive,
        metavar="BYTES",
        help="find the quality that gives a file of about this size; in a folder, each file gets"
        " this size",
    )
    group.add_argument(
        "--target_bpp",
        type=_positive,
        metavar="BPP",
        help="the same in bits per pixel",
    )


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def _quality(text: str) -> float:
    low, high = scale.LOWEST, scale.HIGHEST
    with contextlib.suppress(ValueError):
        if low <= float(text) <= high:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a quality from {low:.0f} to {high:.0f}")


def split_paths(arguments: argparse.Namespace, source: str, target: str, extension: str) -> None:
    """Sets `arguments.model` and the attributes for input and output from the paths.

    Args:
      arguments: the command's arguments; reads `paths` and `model`.
      source: name of the attribute for the input.
      target: name of the attribute for the output.
      extension: extension of an omitted output.

    Raises:
      UsageError: there are too many paths, an empty path, or two models; or the output is omitted,
        and the input is a folder or has a scheme such as gs://.
    """
    paths, model = [files.expanded(path) for path in arguments.paths], arguments.model
    if "" in paths:
        raise UsageError("an empty path; name a file or a folder")
    if len(paths) > 1 and (len(paths) == 3 or _is_model(paths[0])):
        if model is not None:
            raise UsageError(f"two models: {paths[0]} and --model={model}")
        model = paths.pop(0)
    if len(paths) > 2:
        raise UsageError(f"{len(arguments.paths)} paths; name a model, an input and an output")
    paths = [outputs.standard_name(path) for path in paths]
    if paths == [outputs.STANDARD]:
        paths.append(outputs.STANDARD)
    if len(paths) == 1:
        if files.isdir(paths[0]):
            raise UsageError(f"{paths[0]}: a folder of inputs needs a folder of outputs, name one")
        if not files.is_local(paths[0]):
            raise UsageError(f"{paths[0]}: name the output")
        paths.append(os.path.splitext(paths[0])[0] + extension)
    arguments.model = model
    setattr(arguments, source, paths[0])
    setattr(arguments, target, paths[1])


def _is_model(path: str) -> bool:
    if registry.has_model(path):
        return True
    installed = registry.set_folder(path) or registry.member_folder(path)
    return installed is not None and not files.exists(path)


def find_set(name: str | None) -> model_set.ModelSet:
    """Returns the set that `--model` names, or the default set.

    Raises:
      ModelError: there is no such set.
    """
    return registry.find(registry.DEFAULT if name is None else name)


@dataclasses.dataclass(frozen=True)
class Aim:
    """The wanted quality or size of a file.

    At most one attribute is set. If none is, the set's default quality applies.

    Attributes:
      quality: 0 to 100, or None.
      size: bytes, or None.
      bpp: size in bits per pixel, or None.
    """

    quality: float | None = None
    size: float | None = None
    bpp: float | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Aim:
        """Returns the aim of a command with the options of `add_quality`."""
        return cls(arguments.quality, arguments.target_size, arguments.target_bpp)

    @property
    def wants_size(self) -> bool:
        """True if a size is wanted, which any model of a set may have."""
        return self.size is not None or self.bpp is not None

    def bytes_for(self, height: int, width: int) -> int | None:
        """Returns the wanted size of a picture's file in bytes, or None if a quality is wanted."""
        return fitting.bytes_for(self.size, self.bpp, height, width)


class Compressed(NamedTuple):
    """The result of `Compressor.compress`.

    Attributes:
      data: the bytes of the .tfq file.
      model: name of the set, with the quality if the set has more than one. If the set has another
        model for this quality, it is the name of the set's model.
      note: a line for the user; empty if the file has the quality or the size that was wanted.
      deviation: relative difference from the wanted size, if it is the reason of the note.
    """

    data: bytes
    model: str
    note: str
    deviation: float | None = None


class Compressor:
    """The models that `compress` uses, and the wanted quality or size of its files.

    Threads may share one.

    Attributes:
      set: the set of models.
    """

    def __init__(self, name: str | None, aim: Aim | None = None):
        """Reads the manifests.

        Args:
          name: of a set, or a folder; None for the default set.
          aim: the wanted quality or size; None for the set's default quality.

        Raises:
          ModelError: there is no such model.
        """
        self.set = find_set(name)
        self._aim = aim or Aim()
        self._member, self._quality = self.set.member_for(self._aim.quality)

    def limit(self, max_pixels: int | None) -> int:
        """Returns the limit of a picture's number of pixels before its model is known.

        Args:
          max_pixels: the wanted limit; None for that of the models.
        """
        if max_pixels is not None:
            return max_pixels
        members = self.set.members if self._aim.wants_size else [self._member]
        return max(member.manifest.max_pixels for member in members)

    def load(self) -> None:
        """Loads TensorFlow and the model for the wanted quality.

        Errors then occur before the first picture is read.

        Raises:
          ModelError: the model is corrupt.
          StackError: the installed packages are not compatible.
        """
        startup.import_tensorflow(MODEL_CODE)
        self.set.load(self._member)

    def compress(self, image: np.ndarray, max_pixels: int | None) -> Compressed:
        """Compresses a picture.

        Args:
          image: [H, W, 3] uint8.
          max_pixels: limit of the picture's number of pixels; None for the model's limit.

        Raises:
          ModelError: as in `ExportedModel.compress`.
          StackError: the installed packages are not compatible.
        """
        startup.import_tensorflow(MODEL_CODE)
        height, width, _ = image.shape
        size = self._aim.bytes_for(height, width)
        if size is None:
            data = self.set.load(self._member).compress(image, self._quality, max_pixels)
            return Compressed(data, self._describe(self._member, self._quality), self._note())
        fitted = fitting.compress_to(self.set, image, size, max_pixels)
        model = self._describe(fitted.member, fitted.quality)
        if fitted.fits:
            return Compressed(fitted.data, model, "")
        note = fitted.difference(self.set.name, size)
        return Compressed(fitted.data, model, note, fitted.deviation)

    def note_of(self, deviations: Sequence[float]) -> str:
        """Returns one line for files whose sizes differ from the wanted ones.

        Args:
          deviations: those of the `Compressed` files, the largest first.
        """
        most, least = (f"{100 * end:+.0f} %" for end in (deviations[0], deviations[-1]))
        wanted = f"{self._aim.size:g} bytes" if self._aim.bpp is None else f"{self._aim.bpp:g} bpp"
        differ = f"differs by {most}" if least == most else f"differ by {most} to {least}"
        size = "size" if least == most else "sizes"
        name = files.shown(self.set.name)
        return f"{wanted} were asked for; the nearest {size} of {name} {differ}"

    def difference(
        self,
        file: container.Bitstream,
        file_size: int,
        picture: Callable[[], np.ndarray],
        max_pixels: int | None,
    ) -> str:
        """Compares an existing file of a picture with the one that `compress` would make.

        Args:
          file: the existing file.
          file_size: its size in bytes.
          picture: reads the picture. It is called only if the file may have the nearest size
            although it does not have the wanted one.
          max_pixels: as in `compress`.

        Returns:
          A clause that says what differs, such as "it has quality 50", or "" if nothing does.

        Raises:
          ModelError: as in `compress`.
        """
        size = self._aim.bytes_for(file.height, file.width)
        member = self.set.find(file.fingerprint, file.quality)
        if member is None or file.codec != member.manifest.codec or not member.reads(file.quality):
            return f"another model made it, {file.codec} {file.fingerprint}"
        found = member, member.stored(file.quality)
        if size is None:
            if member != self._member:
                name = os.path.basename(member.path)
                return f"the model {name} made it, with quality {found[1]:.4g}"
            same = found[1] == member.stored(self._quality)
            return "" if same else f"it has quality {found[1]:.4g}"
        lowest, highest = self.set.members[0], self.set.members[-1]
        end = (lowest, lowest.low) if file_size > size else (highest, highest.high)
        reached_end = found == (end[0], end[0].stored(end[1]))
        if reached_end or abs(file_size / size - 1) <= fitting.TOLERANCE:
            return ""
        startup.import_tensorflow(MODEL_CODE)
        # Models with one rate, and small pictures, may have no size that is nearer.
        fitted = fitting.compress_to(self.set, picture(), size, max_pixels)
        if not fitted.fits and found == (fitted.member, fitted.member.stored(fitted.quality)):
            return ""
        return f"it has {file_size} bytes, not about {size}"

    def _describe(self, member: model_set.Member, quality: float) -> str:
        """Returns the name with which, and with the quality, the same file can be made again."""
        if len(self.set.members) == 1 and member.low == member.high:
            return self.set.name
        stored = member.stored(quality)
        name = self.set.name
        if self.set.choose(stored) is not member:
            registered = registry.set_folder(name) == self.set.path
            own = os.path.basename(member.path)
            name = f"{name}/{own}" if registered else member.path
        return f"{name}, quality {scale.shown(stored)}"

    def _note(self) -> str:
        """Returns a line if the models do not have the wanted quality, else ""."""
        asked = self._aim.quality
        if asked is None or abs(asked - self._quality) <= _UNSEEN:
            return ""
        nearest = f"the nearest quality of {files.shown(self.set.name)}"
        return f"quality {asked:g} was asked for; {nearest} is {scale.shown(self._quality)}"


class Decompressor:
    """The models that `decompress` uses: a given one, or for each file the model that made it."""

    def __init__(self, name: str | None):
        """Reads the manifests of a given model.

        Args:
          name: of a set, or a folder; None for all installed sets.

        Raises:
          ModelError: there is no such model.
        """
        self._given = None if name is None else registry.find(name)

    def check(self, file: container.Bitstream, max_pixels: int | None) -> None:
        """Finds the model of a file without loading it, and compares the header with its manifest.

        Args:
          file: the file.
          max_pixels: limit of the picture's number of pixels; None for the model's limit.

        Raises:
          OtherModelError: the given model is another one.
          FieldError: the picture is too large, or no file of the model has this header.
          ModelError: no installed model made the file.
        """
        own_limit = self._find(file)[1].manifest.max_pixels
        file.check_limit(own_limit if max_pixels is None else max_pixels)

    def load(self) -> Decompressor:
        """Imports everything that the models need. A model is loaded for its first file."""
        startup.import_tensorflow(MODEL_CODE)
        return self

    def decompress(self, data: bytes, max_pixels: int | None) -> np.ndarray:
        """Decompresses the bytes of a .tfq file, like `ExportedModel.decompress`."""
        own, member = self._find(container.Bitstream.from_bytes(data, container.NO_LIMIT))
        return own.load(member).decompress(data, max_pixels)

    def _find(self, file: container.Bitstream) -> tuple[model_set.ModelSet, model_set.Member]:
        if self._given is None:
            found, member = registry.of_file(file.codec, file.fingerprint, file.quality)
        else:
            found = self._given
            member = found.find(file.fingerprint, file.quality) or found.members[0]
        known = member.manifest
        steps = scale.stored_range(known.qualities)
        file.check_model(known.codec, known.fingerprint, steps, known.file_version)
        return found, member
