"""The table of the codecs, `docs/codecs.md`: sizes counted and times measured.

    python benchmarks/zoo.py --write=docs/codecs.md [--codecs=ms_hyper,charm]

Parameters are counted, multiply-adds read off the graph of a forward pass, and both directions of a
768x512 picture timed in turns: the median of `--rounds` calls, on untrained weights whose latents
are brought to a standard deviation of 3, with the bits of an entropy model that does not fit.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import conditions
import measuring
import tensorflow as tf
from absl import app, flags

from tfquant import models

_CODECS = flags.DEFINE_list("codecs", list(models.CODECS), "Which codecs.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls that are timed.", lower_bound=1)
_WRITE = flags.DEFINE_string("write", "", "File to write; empty: the terminal.")


class Facts(NamedTuple):
    """What cannot be measured.

    Attributes:
      paper: where the codec comes from.
      figure: that shows it.
      entropy: what p(y) is conditioned on.
      plans: the plans that arXiv 2309.17051 found best for it, or what goes wrong.
    """

    paper: str
    figure: str
    entropy: str
    plans: str


_BALLE17 = "Ballé 2017, [1611.01704](https://arxiv.org/abs/1611.01704)"
_BALLE18 = "Ballé 2018, [1802.01436](https://arxiv.org/abs/1802.01436)"
_MINNEN18 = "Minnen 2018, [1809.02736](https://arxiv.org/abs/1809.02736)"
_CHENG = "Cheng 2020, [2001.01568](https://arxiv.org/abs/2001.01568)"
_CHARM = "Minnen 2020, [2007.08739](https://arxiv.org/abs/2007.08739)"
_ELIC = "He 2022, [2203.10886](https://arxiv.org/abs/2203.10886)"

FACTS = {
    "factorized": Facts(_BALLE17, "Fig. 2", "channel", "not tested"),
    "scale_hyperprior": Facts(_BALLE18, "Fig. 4", "hyperprior (scale)", "not tested"),
    "ms_hyper": Facts(_MINNEN18, "Fig. 1, no context", "hyperprior", "`sua_ste`, `sua_pge`"),
    "ms_hyper_zero": Facts(_MINNEN18, "Fig. 1, no context", "hyperprior", "`sua_ste`, `sua_pge`"),
    "ms_context": Facts(
        _MINNEN18, "Fig. 1", "hyperprior, serial 5x5", "`sua_pge` and `sua_ste` alike"
    ),
    "cheng_anchor": Facts(
        _CHENG, "Fig. 4, no attention", "hyperprior, serial 5x5, 3 Gaussians",
        "`sua_pge`; `sua_ste` diverges",
    ),
    "cheng_attn": Facts(
        _CHENG, "Fig. 4", "hyperprior, serial 5x5, 3 Gaussians", "`sua_pge`; `sua_ste` diverges"
    ),
    "charm": Facts(_CHARM, "Fig. 1, no LRP", "hyperprior, 10 slices", "`sua_ste`"),
    "charm_zero": Facts(_CHARM, "Fig. 1, no LRP", "hyperprior, 10 slices", "`sua_ste`"),
    "elic_sm_zero": Facts(
        _ELIC, "Fig. 5, small", "hyperprior, 5 groups, checkerboard",
        "`sua_pge`; `mix` a little behind",
    ),
    "elic_zero": Facts(
        _ELIC, "Fig. 5", "hyperprior, 5 groups, checkerboard",
        "`sua_pge`; at high rates with `--alpha_max=2`",
    ),
}  # fmt: skip


def row(name: str) -> str:
    """The codec's line of the table."""
    facts, widths = FACTS[name], models.widths(name)
    codec = models.build(name, **widths)
    parameters = sum(v.shape.num_elements() for v in codec.trainable_variables)
    height, width = conditions.PICTURE
    kilo_multiply_adds = measuring.multiply_adds(codec, height, width) / (height * width) / 1e3
    coded = measuring.code(codec, measuring.picture())
    seconds = measuring.median_seconds(
        {"compress": coded.compress, "decompress": coded.decompress}, _ROUNDS.value
    )
    cells = [
        f"`{name}`", facts.paper, facts.figure, facts.entropy,
        f"{widths['N']}/{widths['M']}", f"{parameters / 1e6:.2f}",
        f"{kilo_multiply_adds:.0f}", f"{seconds['compress']:.2f}",
        f"{seconds['decompress']:.2f}", f"{coded.bpp():.1f}",
        facts.plans,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


_HEADER = """# The codecs

Made by `python benchmarks/zoo.py --write=docs/codecs.md`; do not edit. Widths are those of
arXiv 2309.17051 (of the lower rates, where a codec has two). *Parameters* are trained ones, in
millions; *kMAC* thousands of multiply-adds per pixel of the picture, both transforms and the
entropy model; *compress* and *decompress* seconds for a 768x512 picture in float32, bits to pixels
and back, on an untrained codec whose latents are spread with a standard deviation near 3, hence
the high bpp. *Plans* are what arXiv 2309.17051 found to work best.

| codec | paper | figure | y given | N/M | parameters | kMAC | compress | decompress | bpp | plans |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def main(argv) -> None:
    del argv
    unknown = [name for name in _CODECS.value if name not in models.CODECS]
    if unknown:
        sys.exit(f"zoo.py: unknown codec {unknown[0]!r}; known: {', '.join(models.CODECS)}")
    lines = []
    for name in _CODECS.value:
        lines.append(row(name))
        print(lines[-1], flush=True)
    cpus = len(os.sched_getaffinity(0))
    machine = f"\nMeasured on {cpus} cores, {platform.machine()}, TensorFlow {tf.__version__}.\n"
    if _WRITE.value:
        os.makedirs(os.path.dirname(_WRITE.value) or ".", exist_ok=True)
        with open(_WRITE.value, "w") as f:
            f.write(_HEADER + "\n".join(lines) + "\n" + machine)


if __name__ == "__main__":
    app.run(main)
