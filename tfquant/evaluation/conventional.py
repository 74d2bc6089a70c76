"""The conventional codecs that Pillow brings, as rate-distortion curves over the same pictures.

Every rate is that of the whole file that the codec wrote, headers included. Measurements are kept
in a cache file, by picture content, codec, setting and Pillow's version, so that a second report
over the same pictures costs little; times are those of the first run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image, features
from PIL import __version__ as PILLOW_VERSION

from tfquant.evaluation import EvaluationError, measure
from tfquant.names import check_known


@dataclasses.dataclass(frozen=True)
class ConventionalCodec:
    """A codec of Pillow and how its rate is swept.

    Attributes:
      label: as plots and tables show it.
      format: Pillow's name of the format.
      feature: Pillow's name of the library it needs; a build may lack it.
      setting: what `settings` are, with their unit.
      settings: the points of its curve, from low to high rate.
      options: setting -> arguments of `Image.save`.
    """

    label: str
    format: str
    feature: str
    setting: str
    settings: tuple[float, ...]
    options: Callable[[float], dict]

    def encode(self, image: np.ndarray, setting: float) -> bytes:
        """`image: uint8 [H, W, 3]` -> the file's bytes."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.format, **self.options(setting))
        return buffer.getvalue()

    def too_large(self, image: np.ndarray) -> str:
        """Describes how `image: uint8 [H, W, 3]` exceeds the codec's limit; "" if it does not."""
        height, width, _ = image.shape
        limit = _MOST_PIXELS_A_SIDE.get(self.format, 0)
        return (
            f"{width}x{height} pixels, more than {limit} a side"
            if max(height, width) > limit > 0
            else ""
        )

    def decode(self, data: bytes) -> np.ndarray:
        """The file's bytes -> uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))


# Pillow's name of a format -> pixels; libjpeg's and libwebp's limits.
_MOST_PIXELS_A_SIDE = {"JPEG": 65500, "WEBP": 16383}


def _jpeg(subsampling: str) -> Callable[[float], dict]:
    # Huffman tables made for the picture: at low rates the default ones cost a fifth of the file.
    return lambda q: {"quality": int(q), "subsampling": subsampling, "optimize": True}


def _jpeg2000(bpp: float) -> dict:
    # A bare codestream with the 9/7 wavelet. OpenJPEG takes a ratio to 24 bits per pixel. Pillow
    # leaves the colour transform off, which would cost JPEG 2000 some 3 dB.
    return {
        "quality_mode": "rates",
        "quality_layers": [24 / bpp],
        "irreversible": True,
        "mct": 1,
        "no_jp2": True,
    }


_JPEG_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90)

CODECS = {
    "jpeg": ConventionalCodec(
        "JPEG 4:2:0", "JPEG", "jpg", "quality", _JPEG_QUALITIES, _jpeg("4:2:0")
    ),
    "jpeg444": ConventionalCodec(
        "JPEG 4:4:4", "JPEG", "jpg", "quality", _JPEG_QUALITIES, _jpeg("4:4:4")
    ),
    "jpeg2000": ConventionalCodec(
        "JPEG 2000",
        "JPEG2000",
        "jpg_2000",
        "target bpp",
        (0.06, 0.12, 0.18, 0.25, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0),
        _jpeg2000,
    ),
    "webp": ConventionalCodec(
        "WebP",
        "WEBP",
        "webp",
        "quality",
        (0, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
        lambda q: {"quality": int(q), "method": 6},
    ),
    "avif": ConventionalCodec(
        "AVIF 4:2:0",
        "AVIF",
        "avif",
        "quality",
        (10, 20, 30, 40, 50, 60, 70, 80),
        lambda q: {"quality": int(q), "subsampling": "4:2:0", "speed": 6},
    ),
}


def is_available(name: str) -> bool:
    """Whether the installed Pillow was built with the codec."""
    codec = CODECS[name]
    # Pillow before 11.3 does not know the word "avif" and would warn.
    return codec.feature in (*features.modules, *features.codecs) and bool(
        features.check(codec.feature)
    )


def choose(names) -> tuple[dict, list]:
    """Names -> (the codecs that this Pillow has, by name; a line for each that it lacks).

    Raises:
      EvaluationError: an unknown name.
    """
    for name in names:
        check_known("--conventional: codec", name, CODECS, EvaluationError)
    missing = [name for name in names if not is_available(name)]
    notes = [f"{CODECS[m].label} is left out: Pillow {PILLOW_VERSION} lacks it" for m in missing]
    return {name: CODECS[name] for name in names if name not in missing}, notes


class Measurer:
    """Measures conventional codecs, each combination of picture, codec and setting once.

    Args:
      cache_path: a JSON file, read now, rewritten by `save`.
    """

    def __init__(self, cache_path: Path):
        self._path = cache_path
        self._cache = {}
        if cache_path.is_file():
            try:
                self._cache = json.loads(cache_path.read_text())
            except ValueError:  # Cut short by a full disk, say: measured again.
                self._cache = {}

    def save(self) -> None:
        self._path.write_text(json.dumps(self._cache))

    def curve(self, codec: ConventionalCodec, pictures, progress, fail=None) -> list:
        """A point per setting, over the pictures that the codec can hold.

        Args:
          codec: the codec.
          pictures: the `Picture`s.
          progress: called after each picture.
          fail: called with (picture, reason) for a picture that the codec cannot hold; None raises
            the codec's error.

        Returns:
          The points; none if it can hold no picture.
        """
        images = {setting: [] for setting in codec.settings}
        for picture in pictures:
            image = picture.read()
            try:
                row = self._row(codec, picture.name, image)
            except Exception as error:  # whatever Pillow raises for what a format cannot hold
                if fail is None:
                    raise
                fail(picture, " ".join(str(error).split()) or type(error).__name__)
            else:
                for setting, measured in row.items():
                    images[setting].append(measured)
            progress()
        self.save()
        return [_point(setting, measured) for setting, measured in images.items() if measured]

    def _row(self, codec: ConventionalCodec, name: str, image: np.ndarray) -> dict:
        """Measures one picture with every setting."""
        reason = codec.too_large(image)
        if reason:  # libjpeg would print on standard error
            raise ValueError(reason)
        return {setting: self.measure(codec, setting, name, image) for setting in codec.settings}

    def nearest_rate(self, codec: ConventionalCodec, pictures, bpp: float) -> dict:
        """The point whose mean rate is nearest to `bpp`, over every integer setting."""
        rates = {}

        def rate(setting: int) -> float:
            if setting not in rates:
                sizes = []
                for image in (picture.read() for picture in pictures):
                    data = codec.encode(image, setting)
                    sizes.append(measure.bits_per_pixel(len(data), image))
                rates[setting] = sum(sizes) / len(sizes)
            return rates[setting]

        low, high = 1, 95
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if rate(middle) < bpp else (low, middle)
        setting = min((low, high), key=lambda s: abs(rate(s) - bpp))
        measured = [self.measure(codec, setting, p.name, p.read()) for p in pictures]
        self.save()
        return _point(setting, measured)

    def measure(self, codec, setting, name: str, image: np.ndarray) -> dict:
        """A measurement of one picture."""
        key = "|".join(
            [
                hashlib.sha256(image.tobytes()).hexdigest(),
                "x".join(map(str, image.shape)),
                codec.format,
                json.dumps(codec.options(setting), sort_keys=True),
                f"Pillow {PILLOW_VERSION}",
            ]
        )
        if key not in self._cache:
            data, encode_s = measure.timed(codec.encode, image, setting)
            decoded, decode_s = measure.timed(codec.decode, data)
            self._cache[key] = {
                "bpp": measure.bits_per_pixel(len(data), image),
                **measure.quality(image, decoded),
                "encode_s": encode_s,
                "decode_s": decode_s,
            }
        return {"name": name, **self._cache[key]}


def _point(setting, measured) -> dict:
    return {"setting": setting, "mean": measure.mean(measured), "images": measured}
