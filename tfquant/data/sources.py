"""Sources of training pictures.

`open_source` opens the source that a flag like `--train_images` names:

| spec                        | source         | pictures                                    |
|-----------------------------|----------------|---------------------------------------------|
| `""`, `dead_leaves`         | `DeadLeaves`   | a pool of procedural canvases               |
| `tfds:NAME`                 | `TfdsImages`   | the train split of a TensorFlow Datasets name |
| `records:SET or glob`       | `RecordImages` | TFRecord shards, see `records.py`           |
| a folder, a glob, or a list | `ImageFiles`   | files, see `images.py`                      |

Pictures are always uint8.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from tfquant import files
from tfquant.data import finding, images, messages, records
from tfquant.data.dead_leaves import dead_leaves
from tfquant.data.images import ImageError
from tfquant.data.prefetch import ahead

CACHE_MIB = 2048  # decoded pictures in memory, about 3,800 with 500x375 pixels


class ImageSource:
    """A fixed sequence of pictures: `source[i]` is uint8 [H, W, 3] or raises an `ImageError`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> np.ndarray:
        raise NotImplementedError

    def held_out(self, every: int) -> tuple[ImageSource, ImageSource]:
        """Splits the source into (training, validation).

        Every `every`-th picture, or the last one, is for validation. If none of these can be read,
        the last picture that can be read takes their place.

        Raises:
          ImageError: fewer than two pictures can be read.
        """
        if len(self) < 2:
            raise ImageError("one picture alone cannot be split into training and validation")
        validation = list(range(every - 1, len(self), every)) or [len(self) - 1]
        training = sorted(set(range(len(self))) - set(validation))
        if self._first_readable(validation) is None:
            moved = self._first_readable(reversed(training))
            training = [i for i in training if i != moved]
            validation = [moved] if moved is not None else []
        elif self._first_readable(training) is None:
            moved = self._first_readable(validation)
            validation = [i for i in validation if i != moved]
            training = [moved] if moved is not None else []
        if not (self._first_readable(training) is None or self._first_readable(validation) is None):
            return Selection(self, training), Selection(self, validation)
        reasons = f"; {next(iter(self.left_out()))}" if self.left_out() else ""
        raise ImageError(
            f"only one of {len(self)} pictures can be read: training needs two, one of them for"
            f" validation{reasons}"
        )

    def _first_readable(self, places: Iterable[int]) -> int | None:
        """Returns the first of these places whose picture can be read, or None."""
        for i in places:
            try:
                self[i]
            except ImageError:
                continue
            return i
        return None

    def left_out(self) -> list[str]:
        """Returns one line for each picture that could not be read so far."""
        return []

    def listing(self) -> dict[str, list[int]]:
        """Maps the name of each file to its size and date, to notice changes; empty if unknown."""
        return {}


class Selection(ImageSource):
    """Some pictures of another source, whose cache it shares."""

    def __init__(self, source: ImageSource, chosen: Sequence[int]):
        self.source = source
        self.chosen = np.asarray(chosen, np.int64)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.source[self.chosen[i]]


class DeadLeaves(ImageSource):
    """A pool of canvases from `dead_leaves`, painted by threads in about 0.2 s each on one core.

    Access to a canvas waits until it is ready. The model is built in the meantime.
    """

    def __init__(self, seed: int, *, count: int = 24, size: int = 512, stream: int = 0):
        self.seed, self.size, self.stream = seed, size, stream
        seeds = [(seed, stream, i) for i in range(count)]
        pool = ThreadPoolExecutor(os.cpu_count())
        self._canvases = [pool.submit(dead_leaves, key, size) for key in seeds]
        pool.shutdown(wait=False)

    def __len__(self) -> int:
        return len(self._canvases)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._canvases[i].result()

    def held_out(self, every: int) -> tuple[ImageSource, ImageSource]:
        """Returns (all canvases, `len / every` canvases of the next stream, at least 8)."""
        count = max(8, len(self) // every)
        return self, DeadLeaves(self.seed, count=count, size=self.size, stream=self.stream + 1)


class EncodedImages(ImageSource):
    """Pictures in encoded form. The first `cache_mib` MiB of them stay decoded in memory.

    The constructor decodes pictures in order until the cache is full, and probes the rest. Files
    that are not pictures are named and counted in the log, once. Pictures outside the cache are
    decoded at each access. `len` also counts unreadable pictures, so the order of training does not
    depend on the size of the cache.

    Raises:
      ImageError: no picture can be read.
    """

    def __init__(
        self,
        spec: str,
        count: int,
        *,
        cache_mib: int = CACHE_MIB,
        background: Sequence[float] | None = None,
    ):
        self.errors: dict[int, ImageError] = {}
        self._background = background
        self._notes: dict[str, set] = {}
        self._count = count
        self._cache: dict[int, np.ndarray] = {}
        self._bytes_left = cache_mib * 2**20
        self._lock = threading.Lock()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for wait in ahead(pool, self._prepare, range(count), 64):
                wait()
        if len(self.errors) == count:
            raise ImageError(
                f"{spec}: none of {count} pictures can be read; first: {self.errors[0]}"
            )
        if self.errors:
            logging.warning(
                "%s: %d of %d pictures skipped: unreadable",
                files.shown(spec),
                len(self.errors),
                count,
            )
        for note, places in sorted(self._notes.items()):
            logging.info("%s: %d pictures: %s", files.shown(spec), len(places), note)

    def left_out(self) -> list[str]:
        return [str(self.errors[i]) for i in sorted(self.errors)]

    def _read(self, i: int) -> np.ndarray:
        """Reads picture i, uint8 [H, W, 3]. Raises an ImageError if it cannot be read."""
        raise NotImplementedError

    def _note(self, i: int, note: str) -> None:
        """Records a conversion of picture i."""
        with self._lock:
            self._notes.setdefault(note, set()).add(i)

    def _probe(self, i: int) -> None:
        """Raises an ImageError if picture i is obviously not a picture."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> np.ndarray:
        i = int(i)
        if i in self.errors:
            raise self.errors[i]
        picture = self._cache.get(i)
        return self._load(i) if picture is None else picture

    def _prepare(self, i: int) -> None:
        try:
            if self._bytes_left > 0:
                self._load(i)
            else:
                self._probe(i)
        except ImageError as error:
            self._skip(i, error)

    def _load(self, i: int) -> np.ndarray:
        try:
            picture = self._read(i)
        except ImageError as error:
            self._skip(i, error)
            raise
        with self._lock:
            if picture.nbytes > self._bytes_left:
                # The cache is full. Smaller pictures that might still fit are not searched.
                self._bytes_left = 0
            elif i not in self._cache:
                self._bytes_left -= picture.nbytes
                self._cache[i] = picture
        return picture

    def _skip(self, i: int, error: ImageError) -> None:
        with self._lock:
            if i in self.errors:
                return
            self.errors[i] = error
            number = len(self.errors)
        with messages.STDERR:  # so that the line is not captured as libtiff's
            logging.warning("skipped picture %d: %s", number, files.shown(str(error)))


class ImageFiles(EncodedImages):
    """The files of `spec`, see `finding.search`."""

    def __init__(
        self, spec: str, *, cache_mib: int = CACHE_MIB, background: Sequence[float] | None = None
    ):
        found = finding.search(spec)
        self.paths = found.paths
        if found.left_out():
            logging.info("%s: skipped: %s", files.shown(spec), found.left_out())
        super().__init__(spec, len(self.paths), cache_mib=cache_mib, background=background)

    def _read(self, i: int) -> np.ndarray:
        return images.read_image(
            self.paths[i], self._background, note=functools.partial(self._note, i)
        )

    def _probe(self, i: int) -> None:
        images.probe_image(self.paths[i])

    def listing(self) -> dict[str, list[int]]:
        return _listing(self.paths)


class RecordImages(EncodedImages):
    """The pictures of TFRecord shards, see `records.Records`."""

    def __init__(
        self, spec: str, *, cache_mib: int = CACHE_MIB, background: Sequence[float] | None = None
    ):
        self.records = records.Records(spec)
        super().__init__(
            f"records:{spec}", len(self.records), cache_mib=cache_mib, background=background
        )

    def _read(self, i: int) -> np.ndarray:
        name, data = self.records[i]
        return images.read_image(
            name, self._background, data, note=functools.partial(self._note, i)
        )

    def listing(self) -> dict[str, list[int]]:
        return _listing(self.records.paths)

    def _probe(self, i: int) -> None:
        """Does nothing, because the pictures of a set were decoded when it was written.

        Shards from elsewhere may have records that are not pictures. Outside the cache, training
        finds, names and replaces them.
        """


def _listing(paths: list[str]) -> dict[str, list[int]]:
    """Maps each path relative to the common folder to [bytes, date in ns]; empty for remote
    files.
    """
    if not all(files.is_local(path) for path in paths):
        return {}
    above = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            name = os.path.relpath(path, above)
            found[name] = [status.st_size, status.st_mtime_ns]
    return found


class TfdsImages(ImageSource):
    """The first `cache_mib` MiB of the train split of a TensorFlow Datasets name, held in
    memory.
    """

    def __init__(self, name: str, *, cache_mib: int = CACHE_MIB):
        try:
            import tensorflow_datasets as tfds
        except ImportError:
            raise ImageError(
                f"tfds:{name} needs tensorflow_datasets: pip install -c constraints.txt"
                " -e '.[tfds]'"
            ) from None
        self.pictures: list[np.ndarray] = []
        bytes_left = cache_mib * 2**20
        for example in tfds.as_numpy(tfds.load(name, split="train", shuffle_files=False)):
            picture = _tfds_rgb(name, example)
            if picture.nbytes > bytes_left:
                logging.warning(
                    "tfds:%s: the first %d pictures fill the cache", name, len(self.pictures)
                )
                break
            bytes_left -= picture.nbytes
            self.pictures.append(picture)
        if not self.pictures:
            raise ImageError(f"tfds:{name}: no picture fits {cache_mib} MiB")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.pictures[i]


def _tfds_rgb(name: str, example: Mapping[str, np.ndarray]) -> np.ndarray:
    if "image" not in example:
        raise ImageError(
            f"tfds:{name}: expected a feature 'image', got {', '.join(sorted(example))}"
        )
    picture = np.asarray(example["image"])
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        got = f"{picture.dtype} {list(picture.shape)}"
        raise ImageError(f"tfds:{name}: expected uint8 [H, W, 3] or [H, W, 1], got {got}")
    return np.broadcast_to(picture, picture.shape[:2] + (3,))


def open_source(
    spec: str,
    seed: int,
    min_side: int,
    *,
    cache_mib: int = CACHE_MIB,
    background: Sequence[float] | None = None,
) -> ImageSource:
    """Opens the source that a flag like `--train_images` names, see the table above.

    Args:
      spec: the source.
      seed: seed of the canvases, if there are any.
      min_side: side in pixels that a crop takes from a picture: crop / the smallest downscale.
        Canvases have at least this size. Other pictures are used as they are.
      cache_mib: memory for decoded pictures in MiB.
      background: (red, green, blue) behind transparent pixels. None skips such pictures.
    """
    kind, name = _kind(spec)
    if kind == "dead_leaves":
        return DeadLeaves(seed, size=max(512, min_side))
    if kind == "tfds":
        return TfdsImages(name, cache_mib=cache_mib)
    source = RecordImages if kind == "records" else ImageFiles
    return source(name, cache_mib=cache_mib, background=background)


def _kind(spec: str) -> tuple[str, str]:
    """Splits a spec into its kind and the rest: a name, a set, or files."""
    if spec.strip() in ("", "dead_leaves"):
        return "dead_leaves", ""
    kind, colon, rest = spec.strip().partition(":")
    if colon and kind in ("tfds", "records"):
        return kind, rest
    return "files", spec


def may_be_transparent(spec: str) -> bool:
    """Returns true if pictures of a source can have transparent pixels."""
    return _kind(spec)[0] in ("files", "records")


def canonical(spec: str) -> str:
    """Returns a text that is the same for all spellings of the same source.

    `ds/r`, `ds/r/` and a link to it are the same folder, as are `~/r` and its full path.
    """
    kind, name = _kind(spec)
    if kind in ("dead_leaves", "tfds"):
        return f"{kind}:{name}"
    parts = [
        os.path.realpath(part) if files.is_local(part) else part.rstrip("/")
        for part in finding.parts(name)
    ]
    return f"{kind}:{','.join(sorted(parts))}"


def split(source: ImageSource, every: int = 10) -> tuple[ImageSource, ImageSource]:
    """Returns (training, validation) without common pictures. Validation has every `every`-th one.

    Dead leaves do not reduce the training set, because validation uses canvases of another seed
    stream.
    """
    if every < 2:
        raise ValueError(f"every {every}: at least every 2nd picture must stay for training")
    return source.held_out(every)
