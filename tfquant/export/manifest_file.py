"""The manifest of an exported model, which can be read without TensorFlow.

    MODEL/tfquant.json     {"format": 3, "codec": ..., "fingerprint": ..., "experiment": {...}, ...}

`model_file.py` describes the other files of the folder.
"""

from __future__ import annotations

import dataclasses
import json
import os

from tfquant import files
from tfquant.coding import container
from tfquant.export import quality as scale

MANIFEST = "tfquant.json"
# 1: decode had no checksum. 2: real arithmetic, for files of version 1. 3: exact arithmetic.
FORMAT_OF_VERSION_1, FORMAT = FORMATS = (2, 3)
FOLDER = "export"  # in the folder of a training run
# The flavours. STOCK is also the name of that flavour's folder.
FULL, PORTABLE, STOCK, PACKED = "full", "portable", "stock", "packed"


class ModelError(ValueError):
    """Error: a folder is not a valid exported model. The message is one line."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `tfquant.json`.

    Attributes:
      codec: the codec's name, at most 16 ASCII characters.
      fingerprint: 16 hexadecimal digits that identify everything on which the meaning of a file's
        bits depends.
      experiment: the resolved experiment that trained the model, with the stages that it has
        reached.
      init_from: the record of the run that gave the first weights, see
        `tfquant/training/folder.py`. None if there was none, or if it is unknown.
      version: the version of tfquant that exported the model.
      precision: arithmetic of the transforms; entropy models compute in float32.
      flavour: FULL, PORTABLE, STOCK or PACKED.
      metrics: results of the last validation, a record of the run's history; empty if there is
        none, or if it used another bound of sigma than the model.
      files: maps the name of each other file of a packed export to its SHA-256, hexadecimal.
      format: format of the folder, one of FORMATS.
      max_pixels: limit of the pictures that the model writes or reads, unless the caller gives
        another one.
    """

    codec: str
    fingerprint: str
    experiment: dict
    version: str
    precision: str = "float32"
    flavour: str = FULL
    metrics: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    max_pixels: int = container.MAX_PIXELS
    init_from: dict | None = None

    @property
    def file_version(self) -> int:
        """The version of the files that the model writes."""
        return 1 if self.format == FORMAT_OF_VERSION_1 else container.VERSION

    @property
    def qualities(self) -> scale.QualityRange | None:
        """The qualities of a model for a range of rates; None for a model with one rate."""
        return scale.range_of(self.experiment)


def read_manifest(path: str) -> Manifest:
    """Reads MODEL/tfquant.json.

    Raises:
      ModelError: the folder is missing, or not an exported model of a known format.
    """
    path = os.fspath(path)
    if not files.isdir(path):
        raise ModelError(f"{path}: no such folder; give the folder that training exported")
    manifest = os.path.join(path, MANIFEST)
    if not files.exists(manifest):
        raise ModelError(
            f"{path}: not an exported model, it has no {MANIFEST}; training exports to RUN/{FOLDER}"
        )
    try:
        fields = json.loads(files.read(manifest))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot read {MANIFEST}: {first_line(error)}") from None
    if not isinstance(fields, dict) or fields.get("format") not in FORMATS:
        found = fields.get("format") if isinstance(fields, dict) else fields
        newer = isinstance(found, int) and found > FORMAT
        raise ModelError(
            f"{path}: {MANIFEST} has format {found!r}, but this tfquant reads formats"
            f" {' and '.join(map(str, FORMATS))}: "
            + ("update tfquant" if newer else "export the model again (tfquant export)")
        )
    missing = [name for name in ("codec", "fingerprint", "experiment", "version")
               if name not in fields]  # fmt: skip
    if missing:
        raise ModelError(f"{path}: {MANIFEST} lacks {', '.join(missing)}; export the model again")
    try:
        limit = fields.get("max_pixels", container.MAX_PIXELS)
        fields["max_pixels"] = container.checked_limit(limit)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: {MANIFEST}: {error}; export the model again") from None
    if not isinstance(fields["experiment"], dict):
        raise ModelError(f"{path}: {MANIFEST} has no valid experiment; export the model again")
    start = fields.get("init_from")
    while start is not None:
        if not (isinstance(start, dict) and isinstance(start.get("experiment"), dict)):
            raise ModelError(f"{path}: {MANIFEST} has no valid init_from; export the model again")
        start = start.get("init_from")
    try:
        scale.range_of(fields["experiment"])
    except (TypeError, ValueError):
        raise ModelError(
            f"{path}: {MANIFEST} has no valid lmbda_range; export the model again"
        ) from None
    try:
        container.check_identity(fields["codec"], fields["fingerprint"])
    except ValueError as error:
        raise ModelError(f"{path}: {MANIFEST} has {error}; export the model again") from None
    known = (f.name for f in dataclasses.fields(Manifest))
    return Manifest(**{name: fields[name] for name in known if name in fields})


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
