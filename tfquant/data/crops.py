"""Training crops as a function of (seed, index of the example) alone.

A run that stops at example k and continues with `first_example=k` sees the same crops as a run that
does not stop. The same holds for a run that distributes its batch over devices and hosts. The
`index` is part of the example, and there is no other state.

The epoch `index // len(source)` determines the order of the pictures. Each picture appears once per
epoch. The next picture replaces one that cannot be read. A window of the picture is scaled down by
a random factor, which removes traces of JPEG compression, and mirrored at random. A picture smaller
than the crop is enlarged to the size of the crop.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from tfquant.data.images import ImageError
from tfquant.data.sources import ImageSource

# Each use of the seed has its own stream.
_ORDER, _CROP, _VALIDATION = range(3)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    """Returns a random generator for (seed, stream, counter), which needs no earlier draws."""
    key = np.array([seed, stream], np.uint64)
    return np.random.Generator(
        np.random.Philox(key=key, counter=np.array([0, counter, 0, 0], np.uint64))
    )


class _Draws:
    """Counter of the batches in progress, so that the interpreter exits only when there are none.

    TensorFlow's threads draw batches ahead by calling Python. A thread that calls during the
    shutdown of the interpreter never returns. The dataset's destructor waits for this thread, and
    the process hangs after its last line. At that time nothing consumes batches any more, so the
    buffers fill and the calls stop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._last = float("-inf")

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._last = time.monotonic()

    def settle(self, quiet_s: float = 0.25, patience_s: float = 60.0) -> None:
        """Waits until nothing has been drawn for `quiet_s` seconds, at most for `patience_s`
        seconds.
        """
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if not self._running and time.monotonic() - self._last > quiet_s:
                return
            time.sleep(0.02)


_draws = _Draws()
atexit.register(_draws.settle)


def training_crops(
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
    """Returns the infinite stream of training batches, beginning with example `first_example`.

    Args:
      source: the pictures.
      seed: at least 0.
      crop: side of a crop in pixels.
      batch_size: B, the number of consecutive examples in a batch.
      first_example: index of the first example.
      stride: distance between the first examples of consecutive batches; None is B. A host that
        draws its share of a larger batch skips the shares of the other hosts.
      downscale: smallest and largest factor on width and height. The factor is uniform between
        them. () does not scale pictures.
      flip: true to mirror crops at random, with a probability of one half.

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

    def draw(first: int) -> tuple[np.ndarray, np.ndarray]:
        with _draws.one():
            indices = np.arange(first, first + batch_size, dtype=np.int64)
            return np.stack([example(int(index)) for index in indices]), indices

    def example(index: int) -> np.ndarray:
        picture = _picture(source, _place(seed, index, len(source)))
        return _crop(picture, _generator(seed, _CROP, index), crop, downscale, flip)

    def batch(first: tf.Tensor) -> dict[str, tf.Tensor]:
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
    """Returns the same `count` crops at every call.

    They are spread over the pictures, scaled, and not mirrored.

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


@contextlib.contextmanager
def picture_errors() -> Iterator[None]:
    """Converts TensorFlow's error for a picture that `training_crops` could not read.

    Raises:
      ImageError: no picture of the source can be read any more.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = re.search(r"ImageError: (.*)", error.message)
        if reason is None:
            raise
        raise ImageError(f"no training picture can be read; last: {reason[1]}") from None


def _check(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} {value}: expected at least {least}")


def check_downscale(downscale: tuple[float, ...]) -> None:
    """Raises a ValueError unless `downscale` is empty or has two valid factors."""
    if downscale and not (len(downscale) == 2 and 0 < downscale[0] <= downscale[1] <= 1):
        raise ValueError(
            f"downscale takes two factors, 0 < smallest <= largest <= 1; got {downscale}"
        )


def _place(seed: int, index: int, length: int) -> int:
    """Returns the picture of example `index`, from the order of its epoch."""
    return _epoch_order(seed, index // length, length)[index % length]


# Batches drawn in parallel may belong to two epochs, of training and of a test.
@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.argsort(_generator(seed, _ORDER, epoch).random(length), kind="stable")


def _picture(source: ImageSource, i: int) -> np.ndarray:
    """Returns source[i], or the next picture that can be read: uint8 [H, W, 3]."""
    for step in range(len(source)):
        try:
            return source[(i + step) % len(source)]
        except ImageError as error:
            last = error
    raise last


def _crop(
    picture: np.ndarray,
    generator: np.random.Generator,
    crop: int,
    downscale: tuple[float, ...],
    flip: bool,
) -> np.ndarray:
    """Returns a random window of `picture: uint8 [H, W, 3]`, scaled to uint8 [crop, crop, 3]."""
    u_scale, u_top, u_left, u_flip = generator.random(4)
    height, width = picture.shape[:2]
    least = crop / min(height, width)  # smallest factor at which the picture is large enough
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


def _resized_window(
    picture: np.ndarray, top: float, left: float, side: float, crop: int
) -> np.ndarray:
    """Returns a window of the picture's antialiased resizing, and computes only this window."""
    # Reach of the bicubic kernel in source pixels, plus one for rounding.
    reach = int(np.ceil(2 * max(1, side / crop))) + 1
    y, x = max(0, int(top) - reach), max(0, int(left) - reach)
    near = picture[y : int(top + side) + reach + 1, x : int(left + side) + reach + 1]
    box = (
        left - x,
        top - y,
        min(left - x + side, near.shape[1]),
        min(top - y + side, near.shape[0]),
    )
    window = Image.fromarray(np.ascontiguousarray(near))
    return np.asarray(window.resize((crop, crop), Image.Resampling.BICUBIC, box=box))
