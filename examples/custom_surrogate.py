"""A surrogate of one's own in every figure of the analyses.

    python examples/custom_surrogate.py gradient_risk
    python examples/custom_surrogate.py all --out=analyses/half_noise

A surrogate is a row of the table: its forward map, the estimators that have a meaning for it, and
its noise. The analyses find out the rest by themselves.
"""

import sys

from tfquant.analysis import cli
from tfquant.ops import random
from tfquant.quantization.surrogates import SURROGATES, Surrogate

SURROGATES["half_noise"] = Surrogate(
    "half_noise", "v + u / 2",
    lambda v, alpha, u: v + 0.5 * u,
    ("pathwise",),
    random.uniform,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(cli.main(["--surrogates=round,aun,half_noise", *(sys.argv[1:] or ["all"])]))
