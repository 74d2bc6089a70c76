"""Conventional codecs of Pillow, measured as rate-distortion curves on the same pictures.

A rate counts the whole file, headers included. A cache file keeps the measurements, by the
picture's content, the codec, the setting and Pillow's version. A second report on the same pictures
is therefore cheap. Its times are those of the first run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
from PIL import Image, features
from PIL import __version__ as PILLOW_VERSION

from tfquant import files
from tfquant.evaluation import EvaluationError, measure
from tfquant.evaluation.pictures import Picture
from tfquant.evaluation.results import MeasuredSetting, Measurement
from tfquant.names import check_known


@dataclasses.dataclass(frozen=True)
class ConventionalCodec:
    """A codec of Pillow and the settings of its curve.

    Attributes:
      label: label in plots and tables.
      format: Pillow's name of the format.
      feature: Pillow's name of the library that the codec needs. A build may lack it.
      setting: meaning and unit of `settings`.
      settings: settings of the curve's points, from low to high rate.
      options: function from a setting to the arguments of `Image.save`.
    """

    label: str
    format: str
    feature: str
    setting: str
    settings: tuple[float, ...]
    options: Callable[[float], dict[str, Any]]

    def encode(self, image: np.ndarray, setting: float) -> bytes:
        """Encodes `image: uint8 [H, W, 3]` and returns the file's bytes."""
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
        """Decodes a file's bytes to uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))


# Limits of libjpeg and libwebp in pixels, by Pillow's name of the format.
_MOST_PIXELS_A_SIDE = {"JPEG": 65500, "WEBP": 16383}


def _jpeg(subsampling: str) -> Callable[[float], dict[str, Any]]:
    # Optimized Huffman tables. At low rates, the default tables take a fifth of the file.
    return lambda q: {"quality": int(q), "subsampling": subsampling, "optimize": True}


def _jpeg2000(bpp: float) -> dict[str, Any]:
    # A bare codestream with the 9/7 wavelet. OpenJPEG's rate is a ratio to 24 bpp. Pillow
    # does not use the colour transform by default, which would cost JPEG 2000 about 3 dB.
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
        lambda q: {"quality": q, "method": 6},
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
    """Returns true if the installed Pillow was built with the codec."""
    codec = CODECS[name]
    # Pillow before 11.3 does not know the word "avif" and would warn.
    return codec.feature in (*features.modules, *features.codecs) and bool(
        features.check(codec.feature)
    )


def choose(names: Sequence[str]) -> tuple[dict[str, ConventionalCodec], list[str]]:
    """Selects codecs by name.

    Args:
      names: keys of `CODECS`.

    Returns:
      (available codecs by name, a line for each codec that the installed Pillow lacks).

    Raises:
      EvaluationError: unknown name.
    """
    for name in names:
        check_known("--conventional: codec", name, CODECS, EvaluationError)
    missing = [name for name in names if not is_available(name)]
    notes = [f"{CODECS[m].label} is skipped: Pillow {PILLOW_VERSION} lacks it" for m in missing]
    return {name: CODECS[name] for name in names if name not in missing}, notes


class Swept(NamedTuple):
    """A codec at all of its settings.

    Attributes:
      points: the settings; empty if the codec can encode no picture.
      refused: map from the name of a picture that the codec cannot encode to the reason.
    """

    points: list[MeasuredSetting]
    refused: dict[str, str]


class Measurer:
    """Measures conventional codecs, and each combination of picture, codec and setting only once.

    Args:
      cache_path: a JSON file. It is read now and rewritten by `save`.
    """

    def __init__(self, cache_path: Path):
        self._path = cache_path
        self._cache: dict[str, dict[str, Any]] = {}
        if cache_path.is_file():
            try:
                self._cache = json.loads(cache_path.read_text())
            except ValueError:  # for example truncated by a full disk: measure again
                self._cache = {}

    def save(self) -> None:
        """Writes the measurements to the cache file."""
        self._path.write_text(json.dumps(self._cache))

    def curve(
        self, codec: ConventionalCodec, pictures: Iterable[Picture], progress: Callable[[], object]
    ) -> Swept:
        """Measures a point for each setting on the pictures that the codec can encode.

        Args:
          codec: the codec.
          pictures: the `Picture`s.
          progress: function that is called after each picture.
        """
        images: dict[float, list[Measurement]] = {setting: [] for setting in codec.settings}
        refused = {}
        for picture in pictures:
            image = picture.read()
            try:
                row = self._row(codec, picture.name, image)
            except Exception as error:  # Pillow raises various errors for unsuitable pictures
                refused[picture.name] = files.reason(error)
            else:
                for setting, measured in row.items():
                    images[setting].append(measured)
            progress()
        self.save()
        points = [_point(setting, measured) for setting, measured in images.items() if measured]
        return Swept(points, refused)

    def _row(
        self, codec: ConventionalCodec, name: str, image: np.ndarray
    ) -> dict[float, Measurement]:
        """Measures one picture with every setting."""
        excess = codec.too_large(image)
        if excess:  # libjpeg would print on standard error
            raise ValueError(excess)
        return {setting: self.measure(codec, setting, name, image) for setting in codec.settings}

    def nearest_rate(
        self, codec: ConventionalCodec, pictures: Sequence[Picture], bpp: float
    ) -> MeasuredSetting:
        """Returns the point with the mean rate nearest to `bpp`, among all integer settings."""
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

    def measure(
        self, codec: ConventionalCodec, setting: float, name: str, image: np.ndarray
    ) -> Measurement:
        """Returns the measurement of a picture."""
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
                **measure.quality(image, decoded)._asdict(),
                "encode_s": encode_s,
                "decode_s": decode_s,
            }
        return Measurement(name, **self._cache[key])


def _point(setting: float, measured: Sequence[Measurement]) -> MeasuredSetting:
    return MeasuredSetting(setting, measure.mean(measured), tuple(measured))
