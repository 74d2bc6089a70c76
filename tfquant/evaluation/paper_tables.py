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

An empty field is one that the table does not specify, or that has no meaning for its codec.

A number stands beside a cell of a sweep only if the cell agrees with everything that the paper
fixes for the number: the fields above, the recipe of section 6.1.2 (`_RECIPE`), the widths of
section 6.1.1 (`_WIDTHS`), the rates and the pictures. Tables III and V to VII cover the four lowest
rates, Tables VIII to XI cover all six. A set of pictures is recognized by its name. The training
pictures are not checked. The paper leaves open: their order and split, `start`, `hyper_aun`,
`seed`, and further points of `docs/paper_deviations.md`.

Five interpretations are this project's:

- Table VII does not name a codec. Its Gaussian columns equal those of MS-hyper-zero in Table V, so
  all of its columns are assigned to that codec.
- Table VII says SUA without estimator. Its numbers are close to those of `sua_ste` in Table VI.
- The text calls the codec of Table III MS-hyper. Two of its rows have the numbers of MS-hyper-zero
  in Table VI.
- The stop-gradient of zero-center codecs is assumed to be in use if a table does not say (section
  6.1.2).
- Stop-gradient means the literal reading of section 5.3, `--stop_gradient=both`.

The methods that did not converge are not included. Table IV is not included either, because it
compares costs of codecs at rates that the text does not name.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfquant import models
from tfquant.quantization.plans import PLANS
from tfquant.training.experiment import Experiment

_FILE = Path(__file__).with_name("paper_tables.csv")
_STAGES = {"joint", "post"}
_MIXTURES = ("cheng_anchor", "cheng_attn")
AVERAGE = "average"
SETS = ("kodak", "tecnick")  # the paper's pictures

# The paper's values of lmbda, and the tables with only the first four.
_RATES = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483)
_LOW_RATES = _RATES[:4]
_OF_LOW_RATES = ("III", "V", "VI", "VII")

# Codec -> (N, M) at the four low rates, and at the two high ones. Section 6.1.1.
_HYPERPRIOR = ((128, 192), (192, 320))
_CHENG = ((128, 128), (192, 192))
_SLICED = ((192, 320), (192, 320))
_WIDTHS = {
    "ms_hyper": _HYPERPRIOR,
    "ms_hyper_zero": _HYPERPRIOR,
    "ms_context": ((192, 192), (192, 320)),
    "cheng_anchor": _CHENG,
    "cheng_attn": _CHENG,
    "charm": _SLICED,
    "charm_zero": _SLICED,
    "elic_sm_zero": _SLICED,
    "elic_zero": _SLICED,
}
_OPTIONS = {"g_a": "plain", "g_s": "plain", "slices": 10}

# Section 6.1.2. The steps are 450 and 100 epochs of 20,000 pictures in batches of 8.
_RECIPE = {
    "lmbda_range": (),
    "distortion": "mse",
    "mean_gradient": "sampled",
    "init_from": "",
    "post_sigma_bound": 1e-6,
    "clip_norm": 0.0,
    "joint_steps": 1_125_000,
    "post_steps": 250_000,
    "joint_learning_rate": 1e-4,
    "post_learning_rate": 1e-4,
    "joint_schedule": "paper_joint",
    "post_schedule": "paper_post",
    "batch_size": 8,
    "crop": 256,
    "downscale": (),
    "precision": "float32",
}


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

    @property
    def rates(self) -> tuple[float, ...]:
        """The values of lmbda that the row covers."""
        return _LOW_RATES if self.table in _OF_LOW_RATES else _RATES

    def is_method_of(self, experiment: Experiment) -> bool:
        """Returns true if the experiment has this method and this codec, with any settings."""
        family = "mixture" if experiment.codec in _MIXTURES else "gaussian"
        plan, theirs = experiment.joint_plan(), PLANS[self.plan]
        return (
            experiment.codec == self.codec
            and experiment.codec_options.get("family", family) == self.family
            and (plan.rate, plan.distortion) == (theirs.rate, theirs.distortion)
        )

    def describes(self, experiment: Experiment) -> bool:
        """Returns true if the experiment agrees with everything that the paper fixes for it."""
        return self.is_method_of(experiment) and not self.differences(experiment)

    def differences(self, experiment: Experiment) -> list[str]:
        """Returns the flags of train.py in which an experiment with this method differs from it."""
        plan, options = experiment.joint_plan(), experiment.codec_options
        fixed = {**_RECIPE, "joint_sigma_bound": self.joint_sigma_bound}
        if self.alpha_max is not None:
            fixed["alpha_max"] = self.alpha_max
        if self.stop_gradient:
            fixed["stop_gradient"] = "both" if self.stop_gradient == "yes" else "none"
        if plan.annealed:
            fixed["alpha_min"] = 1.0
        own = models.widths(self.codec, options.get("N"), options.get("M"))
        N, M = _WIDTHS[self.codec][experiment.lmbda > _LOW_RATES[-1]]
        wrong = {
            "lmbda": experiment.lmbda not in self.rates,
            "stages": not set(experiment.stages) <= _STAGES,
            "context_branch": plan.context_branch != PLANS[self.plan].context_branch,
            **{name: getattr(experiment, name) != value for name, value in fixed.items()},
            **{name: options.get(name, value) != value for name, value in _OPTIONS.items()},
            "N": own["N"] != N,
            "M": own["M"] != M,
        }
        return [name for name, differs in wrong.items() if differs]


class Beside(NamedTuple):
    """Numbers to print beside a cell of a sweep.

    Attributes:
      rows: the rows with which the cell agrees.
      differing: if there are none, the settings in which the cell differs from the nearest row of
        its method; empty if the paper does not have the method. `images` stands for the pictures.
    """

    rows: list[Published]
    differing: list[str]


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


def beside(
    experiments: Sequence[Experiment], rates: Iterable[float], images: Collection[str]
) -> Beside:
    """Returns the rows with which a curve may be compared, or what is not as in the paper.

    Args:
      experiments: those of the curve's points.
      rates: the values of lmbda of the curve. A row covers certain ones.
      images: names of the sets of pictures with which the curve's pictures agree. An empty name
        stands for a table that does not name its pictures.
    """
    asked = set(rates)
    agreeing = [
        row for row in find(experiments) if asked == set(row.rates) and row.images in images
    ]
    if agreeing:
        return Beside(agreeing, [])
    candidates = []
    for row in rows():
        if experiments and all(map(row.is_method_of, experiments)):
            found = dict.fromkeys(name for each in experiments for name in row.differences(each))
            found.update({"lmbda": None} if asked != set(row.rates) else {})
            found.update({"images": None} if row.images not in images else {})
            candidates.append(list(found))
    # The stop-gradient belongs to the method. A row that differs elsewhere is nearer.
    nearest = min(candidates, key=lambda names: (len(names), "stop_gradient" in names), default=[])
    return Beside([], nearest)
