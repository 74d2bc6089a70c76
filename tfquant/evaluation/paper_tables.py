"""BD-rates that arXiv 2309.17051 prints, for comparison with own results.

`paper_tables.csv` has Tables III and V to XI as in the paper's text. Each row is one method on one
codec and one set of pictures:

    table              the paper's number of the table
    codec              `--codec`
    family             `--family`: gaussian, mixture or laplacian
    plan               `--plan`
    stop_gradient      yes if the distortion's gradient does not reach the offset mu, else no
    alpha_max          `--alpha_max`
    joint_sigma_bound  `--joint_sigma_bound`; the bound of post-training is always 1e-6
    images             kodak, tecnick, or average: the mean of the two
    joint, post        BD-rate of PSNR against BPG after that stage, in percent

An empty field is one that the table does not specify, or that has no meaning for its codec. Tables
III and V to VII cover four low rates, Tables VIII to XI cover six rates.

Four interpretations are this project's:

- Table VII does not name a codec. Its Gaussian columns equal those of MS-hyper-zero in Table V, so
  all of its columns are assigned to that codec.
- Table VII says SUA without estimator. Its numbers are close to those of `sua_ste` in Table VI.
- The text calls the codec of Table III MS-hyper. Two of its rows have the numbers of MS-hyper-zero
  in Table VI.
- The stop-gradient of zero-center codecs is assumed to be in use if a table does not say (section
  6.1.2).

The methods that did not converge are not included. Table IV is not included either, because it
compares costs of codecs at rates that the text does not name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfquant.quantization.plans import PLANS
from tfquant.training.experiment import Experiment

_FILE = Path(__file__).with_name("paper_tables.csv")
_STAGES = {"joint", "post"}
_POST_SIGMA_BOUND = 1e-6
_MIXTURES = ("cheng_anchor", "cheng_attn")
AVERAGE = "average"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of `paper_tables.csv`.

    A field that the row does not specify is None or an empty string.
    """

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
        """Returns true if the experiment is this method on this codec, at any length and any
        widths.
        """
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
def rows() -> tuple[Published, ...]:
    """Returns all rows in the file's order."""
    with open(_FILE, newline="", encoding="utf-8") as file:
        return tuple(map(_published, csv.DictReader(file)))


def _published(row: dict[str, Any]) -> Published:
    numbers = {name: float(row[name]) for name in ("joint_sigma_bound", "joint", "post")}
    alpha_max = float(row["alpha_max"]) if row["alpha_max"] else None
    return Published(**{**row, **numbers, "alpha_max": alpha_max})


def find(experiments: Iterable[Experiment]) -> list[Published]:
    """Returns the rows that describe all of the experiments, which are the points of a curve."""
    experiments = list(experiments)
    return [row for row in rows() if experiments and all(map(row.describes, experiments))]
