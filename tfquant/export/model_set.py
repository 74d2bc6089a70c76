"""Sets of models: packed exports for several rates in one folder, of which a quality selects one.

    SET/models.json    {"format": 1, "name": ..., "description": ..., "training": ...,
                        "default_quality": ..., "members": [{...}, ...]}
    SET/FOLDER/...     a packed export for each member: see `packed.py`

A member has the name of its `folder`, its `quality`, and in `kodak` the mean `bpp`, `psnr` (dB) and
`ms_ssim` of its files of the 24 Kodak pictures, with one row for each measured `quality`. The
quality of a model with one rate is a number. That of a model for a range of rates is a pair of
numbers, within the model's own range. A set of the user's has in `added` the time of its addition,
in seconds since 1970.

Quality is a number from 0 to 100 with the same meaning in all sets, see `quality.py`.

A listing can be read without TensorFlow, which is imported when a model is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfquant import files, stack
from tfquant.coding import container
from tfquant.export import fitting, manifest_file, model_file
from tfquant.export import quality as scale

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "models.json"
_SHARE_OF_LOWER = 0.3  # both models then lose about the same, see docs/models.md
FORMAT = 1
_ROUNDING = 0.05  # of the qualities in the manifest of a set
_GRID = 10.0  # distance of the qualities of a curve
_ROW = ("quality", "bpp", "psnr", "ms_ssim")


@dataclasses.dataclass(frozen=True)
class Member:
    """A model of a set.

    Attributes:
      path: the packed export.
      low: the lowest quality that it codes with.
      high: the highest quality; equal to `low` for a model with one rate.
      kodak: rows of `quality`, `bpp`, `psnr` and `ms_ssim`; empty if nothing was measured.
      manifest: the manifest of the packed export.
    """

    path: str
    low: float
    high: float
    kodak: tuple
    manifest: manifest_file.Manifest

    def nearest(self, quality: float) -> float:
        """Returns the quality of this model that is nearest to the requested one."""
        return min(max(quality, self.low), self.high)

    def reads(self, quality: float | None) -> bool:
        """Returns true if a file of this model may have a quality; None is a file without one."""
        stored = container.stored_quality(quality)
        least, most = scale.stored_range(self.manifest.qualities)
        return not stored or least <= stored <= most

    def stored(self, quality: float | None) -> float:
        """Returns the quality of this model's file.

        Args:
          quality: the requested quality, or that of a file's header; None if the header has none.
        """
        qualities = self.manifest.qualities
        return self.low if qualities is None else qualities.nearest(quality)

    def widest(self) -> Member:
        """Returns this model with all of its qualities, without regard to its share of a set."""
        qualities = self.manifest.qualities
        if qualities is None:
            return self
        return dataclasses.replace(self, low=qualities.low, high=qualities.high)

    def samples(self) -> list[float]:
        """Returns qualities that represent this model in tables and figures, in ascending order.

        These are the measured ones of a model for a range of rates, or a few at equal distances.
        """
        if self.low == self.high:
            return [self.low]
        measured = sorted(row["quality"] for row in self.kodak)
        if measured:
            return measured
        assert self.manifest.qualities is not None  # it has a range
        return self.manifest.qualities.samples()

    def size(self) -> int:
        """Size of the files in bytes."""
        return sum(map(os.path.getsize, files.below(self.path)))


class ModelSet:
    """Models of one kind for several rates, which convert pictures to .tfq bytes and back.

    `tfquant.load()` returns one. A member is loaded when it is first needed. Threads may share a
    set.

    Attributes:
      name: name of the set.
      path: its folder.
      description: a sentence for users; may be empty.
      training: a sentence on its training; may be empty.
      default_quality: default of `compress` and `evaluate`.
      added: time of its addition by a user, in seconds since 1970; 0 if it is not known.
      members: the `Member`s, from low to high quality.
    """

    def __init__(self, name: str, path: str, members: Sequence[Member], fields: Mapping[str, Any]):
        self.name, self.path = name, path
        self.members = tuple(sorted(members, key=lambda member: (member.low, member.high)))
        self.description = str(fields.get("description", ""))
        self.training = str(fields.get("training", ""))
        middle = self.members[len(self.members) // 2]
        default = fields.get("default_quality", (middle.low + middle.high) / 2)
        self.default_quality = float(default)
        scale.check(self.default_quality)
        self.added = float(fields.get("added", 0))
        if not 0 <= self.added < math.inf:
            raise ValueError(f"added is {self.added}, not a time")
        self._loaded: dict[str, model_file.ExportedModel] = {}
        self._lock = threading.Lock()

    def choose(self, quality: float | None = None) -> Member:
        """Returns the member whose range contains a quality, or whose range is nearest to it.

        Args:
          quality: 0 to 100; None for `default_quality`.

        Raises:
          ValueError: the quality is not from 0 to 100.
        """
        return self.member_for(quality)[0]

    def member_for(self, quality: float | None = None) -> tuple[Member, float]:
        """Returns the member that `choose` returns, and its quality nearest to the requested one.

        The arguments and errors are those of `choose`.
        """
        quality = self.default_quality if quality is None else quality
        scale.check(quality)
        member = min(self.members, key=lambda member: abs(member.nearest(quality) - quality))
        return member, member.nearest(quality)

    def samples(self) -> list[float]:
        """Returns the `Member.samples` of all members, in ascending order."""
        return sorted(quality for member in self.members for quality in member.samples())

    def curve(self) -> list[float]:
        """Returns qualities of a rate-distortion curve over the whole set, in ascending order.

        These are both ends, the multiples of ten between them, and the qualities of models with one
        rate, all without those that no file has.
        """
        low, high = self.members[0].low, max(member.high for member in self.members)
        tens = [_GRID * number for number in range(math.ceil(low / _GRID), int(high / _GRID) + 1)]
        single = [member.low for member in self.members if member.low == member.high]
        wanted = {low, high, *tens, *single}
        if len(wanted) < scale.SAMPLES and low < high and not single:
            wanted = set(scale.spread(low, high))
        return sorted({nearest for _, nearest in map(self.member_for, wanted)})

    def unused(self) -> list[Member]:
        """Returns the members that no quality chooses, because others are as near to each."""
        steps = int(scale.HIGHEST * container.QUALITY_STEPS)
        qualities = {step / container.QUALITY_STEPS for step in range(steps + 1)}
        qualities |= {end for member in self.members for end in (member.low, member.high)}
        used = {id(self.choose(quality)) for quality in qualities}
        return [member for member in self.members if id(member) not in used]

    def find(self, fingerprint: str, quality: float | None = None) -> Member | None:
        """Returns the member that made a file, or None.

        Several members may have a file's fingerprint, because the gains of a model for a range of
        rates are not part of it. Members that have the file's quality come first.

        Args:
          fingerprint: that of the file.
          quality: that of the file, None if it has none.
        """
        found = [m for m in self.members if m.manifest.fingerprint == fingerprint]
        return next((m for m in found if m.reads(quality)), found[0] if found else None)

    def load(self, member: Member) -> model_file.ExportedModel:
        """Loads a member, once.

        Raises:
          ModelError: its files are corrupt, or of another version of tfquant.
          StackError: the installed packages are not compatible.
        """
        with self._lock:
            if member.path not in self._loaded:
                stack.import_tensorflow()
                self._loaded[member.path] = model_file.ExportedModel.load(member.path)
            return self._loaded[member.path]

    def compress(
        self,
        image: np.ndarray,
        quality: float | None = None,
        max_pixels: int | None = None,
        *,
        target_size: float | None = None,
        target_bpp: float | None = None,
    ) -> bytes:
        """Compresses a picture to the bytes of a .tfq file, with the member of the nearest quality.

        Args:
          image: [H, W, 3] uint8.
          quality: 0 to 100, see `quality.py`; None for `default_quality`. A model for a range of
            rates uses it, as long as it is in the range.
          max_pixels: limit of the picture's number of pixels; None for the model's limit.
          target_size: wanted size of the file in bytes, in place of a quality. The file has it
            within 2 %, if the set has files of such a size. Else it has the nearest size, with a
            `UserWarning`.
          target_bpp: the same in bits per pixel.

        Raises:
          ValueError: the quality is not from 0 to 100, a target is not positive, or there are
            several of the three.
          TypeError: the limit is no integer.
          ModelError: as in `ExportedModel.load` and `ExportedModel.compress`.
        """
        if fitting.is_wanted(quality, target_size, target_bpp):
            image = model_file.checked(image)
            return fitting.to_target(self, image, target_size, target_bpp, max_pixels)
        member, quality = self.member_for(quality)
        return self.load(member).compress(image, quality, max_pixels)

    def decompress(self, data: container.Buffer, max_pixels: int | None = None) -> np.ndarray:
        """Decompresses the bytes of a .tfq file to the picture, uint8 [H, W, 3].

        Args:
          data: the bytes, or another object with the buffer protocol.
          max_pixels: limit of the picture's number of pixels; None for the model's limit.

        Raises:
          container.BitstreamError: the data is corrupt, forged, not a .tfq file, or from a model
            that is not in this set.
          TypeError, ValueError: as in `ExportedModel.decompress`.
          ModelError: as in `ExportedModel.load`.
        """
        limit = container.NO_LIMIT if max_pixels is None else max_pixels
        bitstream = container.Bitstream.from_bytes(data, limit)
        member = self.find(bitstream.fingerprint, bitstream.quality)
        if member is None:
            raise container.OtherModelError(
                f"made by model {bitstream.codec} {bitstream.fingerprint}, which is not in the set"
                f" {self.name}"
            )
        return self.load(member).decompress(data, max_pixels)

    def evaluate(self, image: np.ndarray, quality: float | None = None) -> dict[str, Any]:
        """Computes a decoder's result for `image: [H, W, 3]` uint8, like `ExportedModel.evaluate`.

        The arguments and errors are those of `compress`.
        """
        member, quality = self.member_for(quality)
        return self.load(member).evaluate(image, quality)

    def rate_map(self, image: np.ndarray, quality: float | None = None) -> np.ndarray:
        """Returns the bits spent on each pixel of `image: [H, W, 3]` uint8, float32 [H, W].

        Args and errors are those of `compress`.
        """
        member, quality = self.member_for(quality)
        return self.load(member).rate_map(image, quality)


def read(path: str, name: str | None = None) -> ModelSet:
    """Reads a set of models, or an exported model as a set of one.

    Args:
      path: the folder of a set or of an exported model.
      name: name of the set; None for the one in its manifest, or for the path of an exported model.

    Raises:
      ModelError: the folder is neither, or the set is corrupt or of another version.
    """
    path = os.fspath(path)
    manifest = os.path.join(path, MANIFEST)
    if not files.exists(manifest):
        own = manifest_file.read_manifest(path)
        return ModelSet(name or path, path, [Member(path, *_own_range(own), (), own)], {})
    try:
        fields = json.loads(files.read(manifest))
        if not isinstance(fields, dict):
            raise ValueError("it has no fields")
        found = fields["format"]
        if found != FORMAT:
            raise ValueError(f"format {found!r}, this tfquant reads format {FORMAT}")
        members = [_member(path, each) for each in fields["members"]]
        if not members:
            raise ValueError("no members")
        return ModelSet(name or str(fields["name"]), path, members, fields)
    except manifest_file.ModelError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        said = f"no field {error}" if isinstance(error, KeyError) else files.one_line(error)
        raise manifest_file.ModelError(f"{path}: cannot read {MANIFEST}: {said}") from None


def entry(
    folder: str,
    manifest: manifest_file.Manifest,
    kodak: Iterable[Mapping[str, float]] = (),
    ends: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Returns the entry of `members` for a model.

    Args:
      folder: name of the model's folder.
      manifest: the manifest of its export.
      kodak: measured rows.
      ends: its lowest and highest quality in the set; None for the model's own.
    """
    low, high = (round(end, 1) for end in ends or _own_range(manifest))
    quality = low if low == high else [low, high]
    return {"folder": folder, "quality": quality, "kodak": list(kodak)}


def divided(manifests: Iterable[manifest_file.Manifest]) -> dict[str, tuple[float, float]]:
    """Divides the scale among models for ranges of rates, each around its base quality.

    Between two base qualities, the model of the higher one gets seven tenths: a model loses less
    at a lower quality than its own.

    Args:
      manifests: of the models. Models with one rate get no share.

    Returns:
      Fingerprint -> the lowest and the highest quality of the model.
    """
    ranges = [(m.fingerprint, m.qualities) for m in manifests if m.qualities is not None]
    ranges.sort(key=lambda each: each[1].base)
    bases = [each.base for _, each in ranges]
    inner = [low + _SHARE_OF_LOWER * (high - low) for low, high in zip(bases, bases[1:])]
    edges = [scale.LOWEST, *inner, scale.HIGHEST]
    return {
        fingerprint: (max(low, each.low), min(high, each.high))
        for (fingerprint, each), low, high in zip(ranges, edges, edges[1:])
    }


def write(path: str, name: str, members: Sequence[Mapping[str, Any]], **fields: Any) -> None:
    """Writes the manifest of a set whose members are already in their folders.

    Args:
      path: the set's folder.
      name: name of the set.
      members: results of `entry`.
      **fields: `description`, `training`, `default_quality`, `added`.

    Raises:
      OSError: the file cannot be written.
    """
    content = {"format": FORMAT, "name": name, **fields, "members": members}
    files.write(os.path.join(path, MANIFEST), json.dumps(content, indent=2) + "\n")


def _own_range(manifest: manifest_file.Manifest) -> tuple[float, float]:
    """Returns the lowest and the highest quality of a model, by its experiment."""
    if manifest.qualities is not None:
        return manifest.qualities.low, manifest.qualities.high
    experiment = manifest.experiment
    try:
        quality = scale.of_lmbda(float(experiment["lmbda"]), experiment.get("distortion", "mse"))
        scale.check(quality)
    except (LookupError, TypeError, ValueError):  # its experiment is not one of ours
        quality = (scale.LOWEST + scale.HIGHEST) / 2
    return quality, quality


def packable(export: str, widened: bool = False) -> manifest_file.Manifest:
    """Reads the manifest of an export that is to be packed.

    Args:
      export: the exported model.
      widened: true if a model with one rate shall get gains.

    Raises:
      ModelError: the folder is no exported model, or it cannot be packed in this way.
    """
    manifest = manifest_file.read_manifest(export)
    if manifest.flavour == manifest_file.STOCK:
        raise manifest_file.ModelError(
            f"{export}: the stock flavour of a model, without range coder; name the folder that"
            " it is in"
        )
    if widened and (manifest.qualities is not None or manifest.file_version == 1):
        found = "a range of rates" if manifest.qualities is not None else "files of version 1"
        raise manifest_file.ModelError(f"{export}: a model with {found} takes no further gains")
    return manifest


def _member(path: str, fields: dict) -> Member:
    """Returns a member. A ValueError says which field of its entry is invalid."""
    folder = fields["folder"]
    folder = folder.rstrip("/") if isinstance(folder, str) else folder
    if not isinstance(folder, str) or os.path.basename(folder) != folder or not folder.strip("."):
        raise ValueError(f"the folder of a member is {folder!r}, not a name")
    quality = fields["quality"]
    ends = quality if isinstance(quality, list) else [quality, quality]
    if len(ends) != 2 or not all(map(_is_number, ends)) or not ends[0] <= ends[1]:
        raise ValueError(f"{folder}: the quality is {quality!r}, not a number or a growing pair")
    low, high = map(float, ends)
    manifest = manifest_file.read_manifest(os.path.join(path, folder))
    own = _own_range(manifest) if low < high else (scale.LOWEST, scale.HIGHEST)
    if not (own[0] - _ROUNDING <= low and high <= own[1] + _ROUNDING):
        raise ValueError(
            f"{folder}: the quality is {quality!r}, but the model has {own[0]:.4g} to {own[1]:.4g}"
        )
    kodak = tuple({name: row[name] for name in _ROW} for row in fields.get("kodak", ()))
    if not all(_is_number(value) for row in kodak for value in row.values()):
        raise ValueError(f"{folder}: a row of kodak has a value that is no number")
    return Member(os.path.join(path, folder), low, high, kodak, manifest)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
