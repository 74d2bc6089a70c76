"""An exported model: the folder that training writes, and its functions.

    MODEL/tfquant.json     the manifest: see `manifest_file.py`
    MODEL/saved_model.pb   the full flavour, with TensorFlow's and the coder's operations: functions
    MODEL/variables/       encode, decode and evaluate, and the signatures of `codec_module.py`
    MODEL/tables.npz       the integer coding tables: see `tfquant/coding/table_file.py`
    MODEL/integers.npz     the exponents of the exact networks: see `tfquant/exact.py`
    MODEL/stock/           the stock flavour, with only standard operations: see `stock.py`

    image --encode--> streams --Bitstream--> .tfq bytes --Bitstream--> streams --decode--> image

If the coder's operations are not available, an export has the portable flavour instead of the full
one: a SavedModel with `evaluate` only and the same variables. Either flavour loads on every
platform. With the operations, the full SavedModel is used. Without them, the codec is rebuilt from
the manifest, the variables and the tables. An export of tfquant 0.1 has no file of tables. It is
rebuilt only if the recomputed tables are the same.

A packed export has neither SavedModel nor variables: see `tfquant/export/packed.py`. The codec is
built again everywhere.

    MODEL/tfquant.json     with the SHA-256 of the other files
    MODEL/weights.tfqw     see `tfquant/export/weight_file.py`
    MODEL/tables.npz
    MODEL/integers.npz     see `tfquant/exact.py`

This module does not import TensorFlow until a model is loaded.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from tfquant import files, stack
from tfquant.coding import container
from tfquant.export import fitting
from tfquant.export import quality as scale
from tfquant.export.manifest_file import (
    FULL,
    PACKED,
    PORTABLE,
    STOCK,
    Manifest,
    ModelError,
    first_line,
    read_manifest,
)

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf


class PictureMemoryError(ModelError, container.FieldError, MemoryError):
    """Error: there is not enough memory to code a picture. The message is one line."""


class ExportedModel:
    """A loaded model, which converts pictures to .tfq bytes and back.

    Use `ExportedModel.load(path)`.
    """

    def __init__(self, manifest: Manifest, functions: Any, path: str = ""):
        self.manifest = manifest
        self._functions = functions
        self._path = path

    @classmethod
    def load(cls, path: str) -> ExportedModel:
        """Loads an exported model.

        Raises:
          ModelError: the folder is not an exported model, has no range coder, or cannot be loaded
            with this TensorFlow.
          StackError: the installed packages are not compatible.
        """
        manifest = read_manifest(path)
        if manifest.flavour == STOCK:
            raise ModelError(
                f"{path}: this is the stock flavour of a model, without range coder; give the"
                " folder that contains it"
            )
        if manifest.flavour not in (FULL, PORTABLE, PACKED):
            raise ModelError(
                f"{path}: unknown flavour {manifest.flavour!r}; known: {FULL}, {PORTABLE},"
                f" {PACKED}: update tfquant"
            )
        if manifest.flavour == FULL and stack.coder().kind == stack.OPERATIONS:
            return cls(manifest, _saved_functions(path), path)
        from tfquant.export import rebuilding

        return cls(manifest, rebuilding.rebuilt(path, manifest), path)

    @property
    def codec(self) -> str:
        """The codec's name."""
        return self.manifest.codec

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint, 16 hexadecimal digits."""
        return self.manifest.fingerprint

    @property
    def experiment(self) -> dict:
        """The experiment that trained the model, as a dictionary."""
        return self.manifest.experiment

    @property
    def qualities(self) -> scale.QualityRange | None:
        """The qualities of a model for a range of rates; None for a model with one rate."""
        return self.manifest.qualities

    def compress(
        self,
        image: np.ndarray,
        quality: float | None = None,
        max_pixels: int | None = None,
        *,
        target_size: float | None = None,
        target_bpp: float | None = None,
    ) -> bytes:
        """Compresses a picture to the bytes of a .tfq file.

        Args:
          image: [H, W, 3] uint8.
          quality: 0 to 100, see `quality.py`; the nearest quality of the model is used, so a model
            with one rate takes any. None for the base quality of the model's range.
          max_pixels: limit of the picture's number of pixels; None for the model's limit. The limit
            for reading is the same, so that every file that was written can be read.
          target_size, target_bpp: wanted size in place of a quality, as in `ModelSet.compress`. A
            model with one rate makes one file of a picture, whatever its wanted size.

        Raises:
          ValueError: the quality or the limit is out of range, a target is not positive, there are
            several of the three, or the picture has another type or shape.
          TypeError: the limit is no integer.
          ModelError: the picture is too large, or the latents cannot be coded.
          PictureMemoryError: there is not enough memory.
        """
        import tensorflow as tf

        image = checked(image)
        if fitting.is_wanted(quality, target_size, target_bpp):
            known = self.qualities
            ends = (0.0, 0.0) if known is None else (known.low, known.high)
            own = fitting.OneModel(self._path or self.codec, self, *ends)
            return fitting.to_target(own, image, target_size, target_bpp, max_pixels)
        stored = self._stored(quality)
        height, width, _ = image.shape
        too_large = container.excess(height, width, self._limit(max_pixels))
        if too_large:
            raise ModelError(too_large)
        try:
            coded = self._functions.encode(tf.constant(image), *_quality_input(stored))
        except tf.errors.ResourceExhaustedError:
            raise _no_memory(height, width) from None
        except tf.errors.OpError as error:
            raise ModelError(f"cannot encode {width}x{height} pixels: {_cause(error)}") from None
        return container.Bitstream(
            codec=self.codec,
            fingerprint=self.fingerprint,
            height=height,
            width=width,
            symbols_crc=int(coded["symbols_crc"]),
            streams=tuple(coded["streams"].numpy()),
            quality=stored,
            version=self.manifest.file_version,
        ).to_bytes()

    def decompress(self, data: container.Buffer, max_pixels: int | None = None) -> np.ndarray:
        """Decompresses the bytes of a .tfq file.

        Args:
          data: the bytes, or another object with the buffer protocol.
          max_pixels: limit of the picture's number of pixels; None for the model's limit.

        Returns:
          The picture, uint8 [H, W, 3].

        Raises:
          TypeError: the data are no bytes, or the limit is no integer.
          ValueError: the limit is below 1.
          container.BitstreamError: the data is corrupt, forged, not a .tfq file, or from another
            model.
          PictureMemoryError: there is not enough memory.
        """
        import tensorflow as tf

        bitstream = container.Bitstream.from_bytes(data, self._limit(max_pixels))
        steps, version = scale.stored_range(self.qualities), self.manifest.file_version
        bitstream.check_model(self.codec, self.fingerprint, steps, version)
        try:
            decoded = self._functions.decode(
                tf.constant(bitstream.streams, tf.string),
                tf.constant(bitstream.height, tf.int32),
                tf.constant(bitstream.width, tf.int32),
                tf.constant(bitstream.symbols_crc, tf.int64),
                *_quality_input(self._quality_of(bitstream)),
            )
        except tf.errors.ResourceExhaustedError:
            raise _no_memory(bitstream.height, bitstream.width) from None
        except tf.errors.OpError as error:
            raise container.SymbolsError(f"cannot be decoded: {_cause(error)}") from None
        return decoded["image"].numpy()

    def evaluate(self, image: np.ndarray, quality: float | None = None) -> dict[str, Any]:
        """Computes a decoder's result without coding.

        Args:
          image: [H, W, 3] uint8.
          quality: as in `compress`.

        Returns:
          A dictionary. image: uint8 [H, W, 3], the decoded picture. bits: float, the model's
            estimate of the bits. y, y_hat, y_bar: float32 [1, h, w, M], the latent before
            quantization, after it, and rectified. A model for a range of rates quantizes the
            scaled latent.

        Raises:
          ValueError: the quality is not from 0 to 100, or the picture has another type or shape.
        """
        import tensorflow as tf

        image, inputs = checked(image), _quality_input(self._stored(quality))
        result = self._functions.evaluate(tf.constant(image), *inputs)
        values = {name: value.numpy() for name, value in result.items()}
        return {**values, "bits": float(values["bits"])}

    def rate_map(self, image: np.ndarray, quality: float | None = None) -> np.ndarray:
        """Returns the bits spent on each pixel of `image: [H, W, 3]` uint8, float32 [H, W].

        Args and errors are those of `evaluate`.
        """
        image, inputs = checked(image), _quality_input(self._stored(quality))
        return self._mapping.rate_map(image, *inputs).numpy()

    @functools.cached_property
    def _mapping(self) -> Any:
        """The functions with a rate map. Those of a SavedModel have none: the codec is rebuilt."""
        if hasattr(self._functions, "rate_map"):
            return self._functions
        from tfquant.export import rebuilding

        return rebuilding.rebuilt(self._path, self.manifest)

    def _limit(self, max_pixels: int | None) -> int:
        """Returns the limit of pixels; the model's own for None."""
        return container.checked_limit(
            self.manifest.max_pixels if max_pixels is None else max_pixels
        )

    def _quality_of(self, file: container.Bitstream) -> float | None:
        """Returns the quality with which a file is decoded; None for a model with one rate."""
        if self.qualities is None:
            return None
        return self.qualities.base if file.quality is None else file.quality

    def _stored(self, quality: float | None) -> float | None:
        """Returns the quality for the header of a file; None for a model with one rate."""
        if quality is not None:
            scale.check(quality)
        return None if self.qualities is None else self.qualities.nearest(quality)


def checked(image: np.ndarray) -> np.ndarray:
    """Returns a picture, or raises a ValueError if it is not uint8 [H, W, 3]."""
    import numpy as np

    from tfquant.data.images import is_picture

    try:
        found = np.asarray(image)
        is_array = found.dtype.kind in "biufc"
    except ValueError:  # rows of different lengths
        is_array = False
    if not is_array or not is_picture(found):
        got = f"{found.dtype} {list(found.shape)}" if is_array else type(image).__name__
        raise ValueError(f"a picture must be uint8 [H, W, 3] with at least one pixel, got {got}")
    return found


def _no_memory(height: int, width: int) -> PictureMemoryError:
    return PictureMemoryError(f"not enough memory for {width}x{height} pixels")


def _quality_input(stored: float | None) -> tuple[tf.Tensor, ...]:
    """Returns the last argument of a model's functions; empty for a model with one rate."""
    import tensorflow as tf

    return () if stored is None else (tf.constant(stored, tf.float32),)


def _saved_functions(path: str) -> Any:
    """Loads the functions of the full SavedModel."""
    import tensorflow as tf

    stack.load_operations()  # registers the coder's operations
    try:
        functions = tf.saved_model.load(files.for_tensorflow(path))
    except (OSError, ValueError, IndexError, tf.errors.OpError) as error:  # corrupt files
        raise ModelError(f"{path}: cannot load the SavedModel: {first_line(error)}") from None
    for name in ("encode", "decode", "evaluate"):
        if not hasattr(functions, name):
            raise ModelError(f"{path}: the SavedModel has no function {name}; export it again")
    return functions


def _cause(error: Any) -> str:
    """Returns the reason in an error of TensorFlow, in one line. If there is none, returns the name
    of the error's type.

    TensorFlow puts the name of an eager operation before and after the reason. In the error of a
    graph, the reason is the last line that is not a source location.
    """
    if error.message.startswith("{{function_node __wrapped__"):
        return files.reason_of(error) or type(error).__name__
    lines = [line for line in error.message.splitlines() if line and not line.startswith("\t")]
    cause = re.sub(r"^\{\{.*?\}\} ", "", lines[-1]) if lines else type(error).__name__
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", cause)
