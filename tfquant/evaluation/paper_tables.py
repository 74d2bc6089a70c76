"""The BD-rates that arXiv 2309.17051 prints, for a look beside one's own.

`paper_tables.csv` has Tables III and V to XI as the paper's text has them. Each row is one method
on one codec and one set of pictures:

    table              the paper's number of it
    codec              `--codec`
    family             `--family`: gaussian, mixture or laplacian
    plan               `--plan`
    stop_gradient      yes or no: whether the offset mu is kept from the distortion's gradient
    alpha_max          `--alpha_max`
    joint_sigma_bound  `--joint_sigma_bound`; the one of post-training is always 1e-6
    images             kodak, tecnick, or average: the mean of the two
    joint, post        BD-rate of PSNR against BPG after that stage, in percent

An empty field is one that the table does not name, or that has no meaning for its codec. Tables III
and V to VII are of four low rates, VIII to XI of six rates.

Four readings are this project's:

- Table VII names no codec. Its Gaussian columns are those of MS-hyper-zero in Table V, so that all
  of its columns are taken for that codec.
- Table VII says SUA without estimator; the numbers are near those of `sua_ste` in Table VI.
- The text calls the codec of Table III MS-hyper. Two of its rows have the numbers that Table VI has
  for MS-hyper-zero.
- The stop-gradient of zero-center codecs is in use where a table says nothing (section 6.1.2).

Two things are left out: the methods that did not converge, and Table IV, which compares costs of
codecs and rates that the text does not name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path

from tfquant.quantization.plans import PLANS
from tfquant.training.experiment import Experiment

_FILE = Path(__file__).with_name("paper_tables.csv")
_STAGES = {"joint", "post"}
_POST_SIGMA_BOUND = 1e-6
_MIXTURES = ("cheng_anchor", "cheng_attn")
AVERAGE = "average"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of `paper_tables.csv`; None or an empty string is a field that it leaves open."""

    table: str
    codec: str
    family: str
    plan: str
    stop_gradient: str
    alpha_max: float | None
    joint_sigma_bound: float
    images: str
    joint: float
    post: float

    def describes(self, experiment: Experiment) -> bool:
        """Whether the experiment is this method on this codec, whatever its length and widths."""
        family = "mixture" if experiment.codec in _MIXTURES else "gaussian"
        options = experiment.codec_options
        plan, theirs = experiment.joint_plan(), PLANS[self.plan]
        stops = "no" if plan.stop_gradient == "none" else "yes"
        return (
            experiment.codec == self.codec
            and options.get("family", family) == self.family
            and all(options.get(name, "plain") == "plain" for name in ("g_a", "g_s"))
            and (plan.rate, plan.distortion) == (theirs.rate, theirs.distortion)
            and plan.context_branch == theirs.context_branch
            and self.stop_gradient in ("", stops)
            and self.alpha_max in (None, experiment.alpha_max)
            and experiment.joint_sigma_bound == self.joint_sigma_bound
            and experiment.post_sigma_bound == _POST_SIGMA_BOUND
            and experiment.distortion == "mse"
            and set(experiment.stages) <= _STAGES
        )


@functools.lru_cache(maxsize=1)
def rows() -> tuple:
    """All rows, in the file's order."""
    with open(_FILE, newline="", encoding="utf-8") as file:
        return tuple(
            Published(
                **{
                    **row,
                    "alpha_max": float(row["alpha_max"]) if row["alpha_max"] else None,
                    "joint_sigma_bound": float(row["joint_sigma_bound"]),
                    "joint": float(row["joint"]),
                    "post": float(row["post"]),
                }
            )
            for row in csv.DictReader(file)
        )


def find(experiments) -> list:
    """The rows that describe each of the experiments, which are the points of a curve."""
    experiments = list(experiments)
    return [row for row in rows() if experiments and all(map(row.describes, experiments))]
