"""The flag that selects a codec of `--anchor`, for eval.py and sweep.py."""

from __future__ import annotations

from absl import flags

from tfquant.commands.program import Flag
from tfquant.evaluation import EvaluationError

CODEC = Flag("anchor_codec", str, "BPG 4:4:4", "Codec to read from --anchor.")


def check(values: flags.FlagValues) -> None:
    """Raises an EvaluationError if `--anchor_codec` is given without `--anchor`."""
    if values["anchor_codec"].present and not values.anchor:
        raise EvaluationError("--anchor_codec: expected --anchor with the file to read it from")
