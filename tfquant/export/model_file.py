"""An exported model: the folder that training leaves, and what is done with it.

    MODEL/tfquant.json     {"format": 2, "codec": ..., "fingerprint": ..., "experiment": {...}, ...}
    MODEL/saved_model.pb   the full flavour, over TensorFlow and the coder's operations: functions
    MODEL/variables/       encode, decode and evaluate, and the signatures of `codec_module.py`
    MODEL/tables.npz       the integer coding tables: see `tfquant/coding/table_file.py`
    MODEL/stock/           the stock flavour, over standard operations: see `stock.py`

    image --encode--> streams --Bitstream--> .tfq bytes --Bitstream--> streams --decode--> image

Where the coder's operations are not available, an export has the portable flavour in the place of
the full one: a SavedModel that evaluates, with the same variables. Either flavour loads on every
platform. With the operations, the full SavedModel is used. Without them, the codec is built again
from the manifest, the variables and the tables. An export of tfquant 0.1 has no file of tables. It
is built again only where the tables come out the same.

The manifest can be read without TensorFlow, which is imported when a model is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any

from tfquant import files, stack
from tfquant.coding import container

MANIFEST = "tfquant.json"
# 1: decode took no checksum. 2: real arithmetic, for files of version 1. 3: exact arithmetic.
FORMAT_OF_VERSION_1, FORMAT = FORMATS = (2, 3)
FOLDER = "export"  # in the folder of a training run
# The flavours. STOCK is the name of that flavour's folder as well.
FULL, PORTABLE, STOCK = "full", "portable", "stock"


class ModelError(ValueError):
    """A folder that is not an exported model of ours; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `tfquant.json` says.

    Attributes:
      codec: the codec's name, at most 16 ASCII characters.
      fingerprint: 16 hexadecimal digits, of what gives a file's bits their meaning.
      experiment: the resolved experiment that trained the model, its stages those that it went
        through.
      version: of the tfquant that exported it.
      precision: of the transforms; entropy models compute in float32.
      flavour: FULL, PORTABLE or STOCK.
      metrics: the last validation's, a record of the run's history; empty where there is none.
      format: of the folder, one of FORMATS.
      max_pixels: of a picture that the model writes or reads, unless the caller says otherwise.
    """

    codec: str
    fingerprint: str
    experiment: dict
    version: str
    precision: str = "float32"
    flavour: str = FULL
    metrics: dict = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    max_pixels: int = container.MAX_PIXELS

    @property
    def file_version(self) -> int:
        """The version of the files that the model writes."""
        return 1 if self.format == FORMAT_OF_VERSION_1 else container.VERSION


def read_manifest(path: str) -> Manifest:
    """Reads MODEL/tfquant.json.

    Raises:
      ModelError: the folder is missing, or not an exported model of a known format.
    """
    path = os.fspath(path)
    if not files.isdir(path):
        raise ModelError(f"{path}: no such folder; MODEL is the folder that training exported")
    manifest = os.path.join(path, MANIFEST)
    if not files.exists(manifest):
        raise ModelError(
            f"{path}: not an exported model, it has no {MANIFEST}; training exports to RUN/{FOLDER}"
        )
    try:
        fields = json.loads(files.read(manifest))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot read {MANIFEST}: {_one_line(error)}") from None
    if not isinstance(fields, dict) or fields.get("format") not in FORMATS:
        found = fields.get("format") if isinstance(fields, dict) else fields
        newer = isinstance(found, int) and found > FORMAT
        raise ModelError(
            f"{path}: {MANIFEST} has format {found!r}, this tfquant reads formats"
            f" {' and '.join(map(str, FORMATS))}: "
            + ("update tfquant" if newer else "export the model again (tfquant export)")
        )
    missing = [name for name in ("codec", "fingerprint", "experiment", "version")
               if name not in fields]  # fmt: skip
    if missing:
        raise ModelError(f"{path}: {MANIFEST} lacks {', '.join(missing)}; export the model again")
    limit = fields.get("max_pixels", container.MAX_PIXELS)
    if not isinstance(limit, int) or limit < 1:
        raise ModelError(f"{path}: {MANIFEST} has max_pixels {limit!r}; export the model again")
    if not isinstance(fields["experiment"], dict):
        raise ModelError(f"{path}: {MANIFEST} has no object as experiment; export the model again")
    try:
        container.check_identity(fields["codec"], fields["fingerprint"])
    except ValueError as error:
        raise ModelError(f"{path}: {MANIFEST} has {error}; export the model again") from None
    known = (f.name for f in dataclasses.fields(Manifest))
    return Manifest(**{name: fields[name] for name in known if name in fields})


class ExportedModel:
    """A loaded model: pictures to .tfq bytes and back.

    Use `ExportedModel.load(path)`.
    """

    def __init__(self, manifest: Manifest, functions: Any):
        self.manifest = manifest
        self._functions = functions

    @classmethod
    def load(cls, path: str) -> ExportedModel:
        """Loads MODEL.

        Raises:
          ModelError: not an exported model, one without range coder, or one that this TensorFlow
            cannot load.
          StackError: the installed packages do not go together.
        """
        manifest = read_manifest(path)
        if manifest.flavour == STOCK:
            raise ModelError(
                f"{path}: the stock flavour of a model, without range coder; name the folder that"
                " it is in"
            )
        if manifest.flavour not in (FULL, PORTABLE):
            raise ModelError(
                f"{path}: unknown flavour {manifest.flavour!r}; known: {FULL}, {PORTABLE}:"
                " update tfquant"
            )
        if manifest.flavour == FULL and stack.coder().kind == stack.OPERATIONS:
            return cls(manifest, _saved_functions(path))
        from tfquant.export import rebuilding

        return cls(manifest, rebuilding.rebuilt(path, manifest))

    @property
    def codec(self) -> str:
        return self.manifest.codec

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def experiment(self) -> dict:
        return self.manifest.experiment

    def compress(self, image, max_pixels: int | None = None) -> bytes:
        """Picture `image: [H, W, 3]` uint8 to the bytes of a .tfq file.

        Args:
          image: the picture.
          max_pixels: the most that it may have; None for the model's limit. The limit for reading
            is the same, so that what was written can be read.

        Raises:
          ModelError: the picture is too large, the model's latents cannot be coded, or it needs
            more memory than there is.
        """
        import tensorflow as tf

        height, width, _ = image.shape
        limit = self.manifest.max_pixels if max_pixels is None else max_pixels
        if height * width > limit:
            values = {"height": height, "width": width, "pixels": height * width}
            raise ModelError(container.TOO_LARGE_TO_WRITE.format(**values, max_pixels=limit))
        try:
            coded = self._functions.encode(tf.constant(image))
        except tf.errors.OpError as error:
            raise ModelError(f"cannot encode {width}x{height} pixels: {_cause(error)}") from None
        return container.Bitstream(
            codec=self.codec,
            fingerprint=self.fingerprint,
            height=height,
            width=width,
            symbols_crc=int(coded["symbols_crc"]),
            streams=tuple(coded["streams"].numpy()),
            version=self.manifest.file_version,
        ).to_bytes()

    def decompress(self, data: bytes, max_pixels: int | None = None):
        """The bytes of a .tfq file to the picture, uint8 [H, W, 3].

        Args:
          data: the file.
          max_pixels: the most that its picture may have; None for the model's limit.

        Raises:
          container.BitstreamError: damaged, foreign or forged files, and those of other models.
        """
        import tensorflow as tf

        limit = self.manifest.max_pixels if max_pixels is None else max_pixels
        bitstream = container.Bitstream.from_bytes(data, limit)
        bitstream.check_model(self.codec, self.fingerprint)
        try:
            decoded = self._functions.decode(
                tf.constant(bitstream.streams, tf.string),
                tf.constant(bitstream.height, tf.int32),
                tf.constant(bitstream.width, tf.int32),
                tf.constant(bitstream.symbols_crc, tf.int64),
            )
        except tf.errors.ResourceExhaustedError:
            raise container.FieldError(
                f"not enough memory for {bitstream.width}x{bitstream.height} pixels"
            ) from None
        except tf.errors.OpError as error:
            raise container.SymbolsError(f"cannot be decoded: {_cause(error)}") from None
        return decoded["image"].numpy()

    def evaluate(self, image) -> dict:
        """What a decoder would give for `image: [H, W, 3]` uint8, without coding.

        Returns:
          image: uint8 [H, W, 3]; bits: float, the model's; y, y_hat, y_bar: float32 [1, h, w, M],
          the latent before quantization, after it, and rectified.
        """
        import tensorflow as tf

        result = self._functions.evaluate(tf.constant(image))
        values = {name: value.numpy() for name, value in result.items()}
        return {**values, "bits": float(values["bits"])}


def _saved_functions(path: str):
    """The functions of the full SavedModel."""
    import tensorflow as tf

    stack.load_operations()  # registers the coder's operations
    try:
        functions = tf.saved_model.load(os.fspath(path))
    except (OSError, ValueError, IndexError, tf.errors.OpError) as error:  # of damaged files
        raise ModelError(f"{path}: cannot load the SavedModel: {_one_line(error)}") from None
    for name in ("encode", "decode", "evaluate"):
        if not hasattr(functions, name):
            raise ModelError(f"{path}: the SavedModel has no function {name}; export it again")
    return functions


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _cause(error) -> str:
    """What failed: of a TensorFlow error's lines the last one that does not say where."""
    lines = [line for line in error.message.splitlines() if line and not line.startswith("\t")]
    cause = lines[-1] if lines else type(error).__name__
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", cause)
