"""Training crops whose every bit is a function of (seed, index of the example).

A run that stops at example k and asks for `first_example=k` sees what it would have seen, and so
does one that spreads the batch over devices and hosts: `index` travels with the example, and
nothing else is remembered.

Where pictures come from (`open_source`):

| spec                        | source         | pictures                                        |
|-----------------------------|----------------|-------------------------------------------------|
| `""`, `dead_leaves`         | `DeadLeaves`   | a pool of procedural canvases                   |
| `tfds:NAME`                 | `TfdsImages`   | the train split of a TensorFlow Datasets name   |
| `records:SET or glob`       | `RecordImages` | TFRecord shards, as `tfquant.records` has them  |
| a folder, a glob, or a list | `ImageFiles`   | files, as `tfquant.images` reads them           |

An example's life: the epoch `index // len(source)` orders the pictures anew (each is seen once per
epoch); a picture that cannot be read is replaced by the next one; a window of it is scaled down at
random, which removes the traces of JPEG compression, and mirrored or not. A picture smaller than
the crop is enlarged just enough. Pictures are uint8 throughout.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from tfquant import images, records
from tfquant.dead_leaves import dead_leaves
from tfquant.images import ImageError
from tfquant.threads import ahead

CACHE_MIB = 2048  # Decoded pictures held in memory: some 3,800 of 500x375.

# Each use of the seed has a stream of its own.
_ORDER, _CROP, _VALIDATION = range(3)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    """Random numbers of (seed, stream, counter), each reached without the ones before it."""
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(
        np.random.Philox(key=key, counter=np.array([0, counter, 0, 0], np.uint64))
    )


# --------------------------------------------------------------------------------------------------
# Sources


class ImageSource:
    """A fixed sequence of pictures: `source[i]` is uint8 [H, W, 3] or raises an `ImageError`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> np.ndarray:
        raise NotImplementedError

    def held_out(self, every: int) -> tuple[ImageSource, ImageSource]:
        """(training, validation): every `every`-th picture, or the last, is for the latter."""
        if len(self) < 2:
            raise ImageError("one picture alone cannot be split into training and validation")
        validation = set(range(every - 1, len(self), every)) or {len(self) - 1}
        return (
            Selection(self, [i for i in range(len(self)) if i not in validation]),
            Selection(self, sorted(validation)),
        )


class Selection(ImageSource):
    """Some pictures of another source, whose cache it shares."""

    def __init__(self, source: ImageSource, chosen):
        self.source = source
        self.chosen = np.asarray(chosen, np.int64)

    def __len__(self):
        return len(self.chosen)

    def __getitem__(self, i):
        return self.source[self.chosen[i]]


class DeadLeaves(ImageSource):
    """A pool of canvases from `dead_leaves`, which threads paint: about 0.2 s each on one core.

    Whoever asks for one waits for it; meanwhile the model is built.
    """

    def __init__(self, seed: int, *, count: int = 24, size: int = 512, stream: int = 0):
        self.seed, self.size, self.stream = seed, size, stream
        seeds = [(seed, stream, i) for i in range(count)]
        pool = ThreadPoolExecutor(os.cpu_count())
        self._canvases = [pool.submit(dead_leaves, key, size) for key in seeds]
        pool.shutdown(wait=False)

    def __len__(self):
        return len(self._canvases)

    def __getitem__(self, i):
        return self._canvases[i].result()

    def held_out(self, every):
        """(all canvases, others of the next stream: `len / every` of them, at least 8)."""
        count = max(8, len(self) // every)
        return self, DeadLeaves(self.seed, count=count, size=self.size, stream=self.stream + 1)


class EncodedImages(ImageSource):
    """Pictures in encoded form, decoded once as far as `cache_mib` goes.

    Built, it decodes pictures in their order until the cache is full and probes the rest; what is
    no picture is named and counted in the log, once. Beyond the cache, pictures are decoded
    whenever they are asked for. `len` counts unreadable ones too: the order of training must not
    depend on the size of the cache.

    Raises:
      ImageError: none can be read.
    """

    def __init__(self, spec: str, count: int, *, cache_mib: int = CACHE_MIB):
        self.errors: dict[int, ImageError] = {}
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
                "%s: %d of %d pictures skipped, unreadable", spec, len(self.errors), count
            )

    def _read(self, i: int) -> np.ndarray:
        """Picture i, uint8 [H, W, 3]; an ImageError if it cannot be read."""
        raise NotImplementedError

    def _probe(self, i: int) -> None:
        """Raises an ImageError if picture i plainly is none."""
        raise NotImplementedError

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        i = int(i)
        if i in self.errors:
            raise self.errors[i]
        picture = self._cache.get(i)
        return self._load(i) if picture is None else picture

    def _prepare(self, i):
        try:
            if self._bytes_left > 0:
                self._load(i)
            else:
                self._probe(i)
        except ImageError as error:
            self._skip(i, error)

    def _load(self, i):
        try:
            picture = self._read(i)
        except ImageError as error:
            self._skip(i, error)
            raise
        with self._lock:
            if picture.nbytes > self._bytes_left:
                # Full: smaller ones that might still fit are not worth a search.
                self._bytes_left = 0
            elif i not in self._cache:
                self._bytes_left -= picture.nbytes
                self._cache[i] = picture
        return picture

    def _skip(self, i, error):
        with self._lock:
            if i not in self.errors:
                self.errors[i] = error
                logging.warning("skipped picture %d: %s", len(self.errors), error)


class ImageFiles(EncodedImages):
    """The files that `spec` means (`images.find_images`)."""

    def __init__(self, spec: str, *, cache_mib: int = CACHE_MIB):
        self.paths = images.find_images(spec)
        super().__init__(spec, len(self.paths), cache_mib=cache_mib)

    def _read(self, i):
        return images.read_image(self.paths[i])

    def _probe(self, i):
        images.probe_image(self.paths[i])


class RecordImages(EncodedImages):
    """The pictures of TFRecord shards (`records.Records`)."""

    def __init__(self, spec: str, *, cache_mib: int = CACHE_MIB):
        self.records = records.Records(spec)
        super().__init__(f"records:{spec}", len(self.records), cache_mib=cache_mib)

    def _read(self, i):
        name, data = self.records[i]
        return images.read_image(name, data=data)

    def _probe(self, i):
        """Nothing: the pictures of a set have been decoded when it was made.

        Shards of others may hold what is no picture. Beyond the cache it is found, named and
        replaced when training asks for it.
        """


class TfdsImages(ImageSource):
    """The first `cache_mib` of the train split of a TensorFlow Datasets name, held in memory."""

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

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i]


def _tfds_rgb(name, example) -> np.ndarray:
    if "image" not in example:
        raise ImageError(
            f"tfds:{name}: expected a feature 'image', got {', '.join(sorted(example))}"
        )
    picture = np.asarray(example["image"])
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        got = f"{picture.dtype} {list(picture.shape)}"
        raise ImageError(f"tfds:{name}: expected uint8 [H, W, 3] or [H, W, 1], got {got}")
    return np.broadcast_to(picture, picture.shape[:2] + (3,))


def open_source(spec: str, seed: int, min_side: int, *, cache_mib: int = CACHE_MIB) -> ImageSource:
    """Opens what a flag like `--train_images` names (the table above).

    Args:
      spec: the source.
      seed: of the canvases, where there are any.
      min_side: pixels a side that crops take out of a picture, crop / the smallest downscale.
        Canvases are made at least so large; other pictures are what they are.
      cache_mib: memory for decoded pictures.
    """
    spec = spec.strip()
    if spec in ("", "dead_leaves"):
        return DeadLeaves(seed, size=max(512, min_side))
    if spec.startswith("tfds:"):
        return TfdsImages(spec[len("tfds:") :], cache_mib=cache_mib)
    if spec.startswith("records:"):
        return RecordImages(spec[len("records:") :], cache_mib=cache_mib)
    return ImageFiles(spec, cache_mib=cache_mib)


def split(source: ImageSource, every: int = 10) -> tuple[ImageSource, ImageSource]:
    """(training, validation) without a picture in common: every `every`-th is held out of training.

    Dead leaves hold nothing out: validation sees canvases of another seed stream.
    """
    if every < 2:
        raise ValueError(f"every {every}: at least every 2nd picture must stay for training")
    return source.held_out(every)


# --------------------------------------------------------------------------------------------------
# Crops


class _Draws:
    """Counts the batches being drawn, so that the interpreter ends when none is.

    TensorFlow's threads draw ahead by calling Python. One that calls while the interpreter shuts
    down never returns, the dataset's destructor waits for it, and the process hangs after its last
    line. Nobody asks for batches any more by then: the buffers fill, and the calls cease.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._running = 0
        self._last = float("-inf")

    @contextlib.contextmanager
    def one(self):
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._last = time.monotonic()

    def settle(self, quiet_s: float = 0.25, patience_s: float = 60.0):
        """Returns when nothing has been drawn for `quiet_s`, or `patience_s` are over."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if not self._running and time.monotonic() - self._last > quiet_s:
                return
            time.sleep(0.02)


_draws = _Draws()
atexit.register(_draws.settle)


def crops(
    source: ImageSource,
    *,
    seed: int,
    crop: int,
    batch_size: int,
    first_example: int = 0,
    stride: int | None = None,
    downscale: tuple[float, ...] = (),
    flip: bool = True,
) -> tf.data.Dataset:
    """The endless stream of training batches from example `first_example` on.

    Args:
      source: the pictures.
      seed: at least 0.
      crop: pixels a side of a crop.
      batch_size: B, the examples of a batch, which follow one another.
      first_example: index of the first example.
      stride: from the first example of a batch to that of the next; None: B. A host that draws its
        share of a larger batch leaves the others' out.
      downscale: smallest and largest factor on width and height, drawn uniformly between them; ()
        leaves pictures as they are.
      flip: mirrors every second crop, at random.

    Returns:
      A dataset of {"image": uint8 [B, crop, crop, 3], "index": int64 [B]}.
    """
    stride = batch_size if stride is None else stride
    _check(
        seed=(seed, 0),
        crop=(crop, 1),
        batch_size=(batch_size, 1),
        first_example=(first_example, 0),
        stride=(stride, batch_size),
    )
    check_downscale(downscale)

    def draw(first):
        with _draws.one():
            indices = np.arange(first, first + batch_size, dtype=np.int64)
            return np.stack([example(int(index)) for index in indices]), indices

    def example(index):
        picture = _picture(source, _place(seed, index, len(source)))
        return _crop(picture, _generator(seed, _CROP, index), crop, downscale, flip)

    def batch(first):
        image, index = tf.numpy_function(draw, [first], [tf.uint8, tf.int64], stateful=False)
        return {
            "image": tf.ensure_shape(image, [batch_size, crop, crop, 3]),
            "index": tf.ensure_shape(index, [batch_size]),
        }

    firsts = tf.data.Dataset.counter(start=first_example, step=stride, dtype=tf.int64)
    return firsts.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def validation_crops(
    source: ImageSource,
    *,
    seed: int,
    crop: int,
    count: int,
    downscale: tuple[float, ...] = (),
) -> dict[str, np.ndarray]:
    """The same `count` crops at every call: spread over the pictures, scaled, but not mirrored.

    Returns:
      {"image": uint8 [count, crop, crop, 3], "index": int64 [count], 0 to count - 1}.
    """
    _check(seed=(seed, 0), crop=(crop, 1), count=(count, 1))
    check_downscale(downscale)
    pictures, size = max(count, len(source)), len(source)
    drawn = [
        _crop(
            _picture(source, i * pictures // count % size),
            _generator(seed, _VALIDATION, i),
            crop,
            downscale,
            flip=False,
        )
        for i in range(count)
    ]
    return {"image": np.stack(drawn), "index": np.arange(count, dtype=np.int64)}


def _check(**limits):
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} {value}: expected at least {least}")


def check_downscale(downscale: tuple) -> None:
    """Raises a ValueError for what is neither two factors nor `()`, nothing."""
    if downscale and not (len(downscale) == 2 and 0 < downscale[0] <= downscale[1] <= 1):
        raise ValueError(
            f"downscale takes two factors, 0 < smallest <= largest <= 1; got {downscale}"
        )


def _place(seed: int, index: int, length: int) -> int:
    """The picture of example `index`: its place in the order of its epoch."""
    return _epoch_order(seed, index // length, length)[index % length]


# Batches drawn in parallel straddle two epochs, of training and of a test.
@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.argsort(_generator(seed, _ORDER, epoch).random(length), kind="stable")


def _picture(source: ImageSource, i: int) -> np.ndarray:
    """source[i], or the next picture of the source that can be read: uint8 [H, W, 3]."""
    for step in range(len(source)):
        try:
            return source[(i + step) % len(source)]
        except ImageError as error:
            last = error
    raise last


def _crop(picture, generator, crop, downscale, flip) -> np.ndarray:
    """A random window of `picture: uint8 [H, W, 3]`, scaled to uint8 [crop, crop, 3]."""
    u_scale, u_top, u_left, u_flip = generator.random(4)
    height, width = picture.shape[:2]
    least = crop / min(height, width)  # The factor at which the picture is just large enough.
    low, high = downscale or (1.0, 1.0)
    low, high = max(low, least), max(high, least)
    factor = low + u_scale * (high - low)
    if factor == 1:
        top, left = int(u_top * (height - crop + 1)), int(u_left * (width - crop + 1))
        window = picture[top : top + crop, left : left + crop]
    else:
        side = min(crop / factor, height, width)
        window = _resized_window(
            picture, u_top * (height - side), u_left * (width - side), side, crop
        )
    return window[:, ::-1] if flip and u_flip < 0.5 else window


def _resized_window(picture, top: float, left: float, side: float, crop: int) -> np.ndarray:
    """That window of the whole picture's antialiased resizing, at the cost of the window alone."""
    # Of the bicubic kernel, in source pixels, and one to round.
    reach = int(np.ceil(2 * max(1, side / crop))) + 1
    y, x = max(0, int(top) - reach), max(0, int(left) - reach)
    near = picture[y : int(top + side) + reach + 1, x : int(left + side) + reach + 1]
    box = (
        left - x,
        top - y,
        min(left - x + side, near.shape[1]),
        min(top - y + side, near.shape[0]),
    )
    near = Image.fromarray(np.ascontiguousarray(near))
    return np.asarray(near.resize((crop, crop), Image.Resampling.BICUBIC, box=box))
