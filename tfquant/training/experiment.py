"""Experiments as data: everything that determines what a run computes, saved with the run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tfquant import models
from tfquant.coding import quality_scale
from tfquant.data import background, crops
from tfquant.entropy.conditional import JOINT_SIGMA_BOUND, POST_SIGMA_BOUND
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH
from tfquant.layers.transforms import STARTS
from tfquant.names import check_known
from tfquant.quantization.plans import (
    MEAN_GRADIENTS,
    PLANS,
    STOP_GRADIENTS,
    QuantizationPlan,
    plan_named,
)
from tfquant.quantization.surrogates import Branch
from tfquant.training import losses, schedules

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      name: name in checkpoints and TensorBoard.
      steps: number of training steps; 0 skips the stage.
      plan: the quantization plan.
      learning_rate: Keras schedule, a function of the stage's step.
      alpha: Keras schedule of the temperature, a function of the stage's step.
      sigma_bound: lower bound of sigma. None keeps the current bound, or restores the bound that an
        earlier stage has lifted.
      loss: term of `tfquant/training/losses.py` -> its weight.
      reported: further terms to measure, without weight.
      frozen: groups of parts (see `tfquant/codec.py`) that keep their weights.
      track_offsets: if true, offsets that get no gradient (the medians of factorized models) follow
        the weights.
      rectified: if true, `g_s` decodes the rectified latent `y_bar`, otherwise the quantized
        `y_hat`. Ignored if there is no rectifier.
      lifts_sigma_bound: if true, `sigma_bound` applies to this stage only. After post-training,
        additive noise needs the larger bound, and rounding then needs the smaller one again.
      features_reach_encoder: if true, the gradient of the feature terms passes through `y` to the
        encoder.
    """

    name: str
    steps: int
    plan: QuantizationPlan
    learning_rate: schedules.Schedule
    alpha: schedules.Schedule
    sigma_bound: float | None
    loss: dict[str, float]
    reported: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    track_offsets: bool = True
    rectified: bool = False
    lifts_sigma_bound: bool = False
    features_reach_encoder: bool = True

    @property
    def trains_rectifier(self) -> bool:
        """True if a term of the loss is a feature distance."""
        return not self.loss.keys().isdisjoint(map(losses.feature_term, losses.FEATURE_DISTANCES))

    @property
    def counts_gain(self) -> bool:
        """True if the stage reports the gain since its start: with a rectifier, or as the
        control without.
        """
        return "rectified_error" in self.reported


# Limit for flags, one for each unit of quality. Runs of earlier versions can have more.
MOST_LEVELS = 100
_BRANCH_HELP = "surrogate:estimator that replaces the plan's {} branch, such as aun:pathwise."


def _field(
    default: Any,
    help: str,
    *,
    choices: Collection[str] = (),
    positive: bool = False,
    least: float | None = None,
) -> Any:
    """Defines a field of `Experiment`: its default, its help text and its limits.

    The flags of `train.py` and the table in the documentation are generated from these.

    Args:
      default: the default value. Its type is the type of the field.
      help: one or more sentences, as `--help` shows them.
      choices: the allowed values of a string, or none to allow any. A registry, such as
        `models.CODECS`, is read when an experiment is created, so entries can be added.
      positive: if true, a number must be above 0.
      least: the smallest allowed number, or None.
    """
    limits = {"choices": choices, "positive": positive, "least": least}
    metadata = {"help": help, **limits}
    return dataclasses.field(default=default, metadata=metadata)


def _stage_fields(what: str) -> dict[str, dict[str, Any]]:
    """Returns the arguments of `_field` for the three fields that every stage has."""
    return {
        "steps": {"help": f"Training steps of stage {what}.", "least": 0},
        "learning_rate": {"help": f"Peak learning rate of stage {what}.", "positive": True},
        "schedule": {
            "help": f"Learning-rate schedule of stage {what}.",
            "choices": schedules.LEARNING_RATES,
        },
    }


_JOINT, _POST, _QR_SOFT, _QR_PREDICTIVE = map(
    _stage_fields, ("joint", "post", "qr_soft", "qr_predictive")
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The hyperparameters of a run: everything that determines what the run computes.

    Every field is a flag of `train.py`, and its help text explains it. `codec_options` are the
    codec's own arguments (`models.OPTIONS`), such as N and M. Omitted options have the codec's own
    defaults.

    Units: lmbda weights `255^2 MSE` or `1 - MS-SSIM` against bpp. `qr_weight` weights the feature
    distance, a mean over elements of `y`, against bpp.

    Raises:
      ValueError: a field has a value that cannot be trained. The message names the field and the
        possible values.
    """

    codec: str = _field("ms_hyper_zero", "The codec.", choices=models.CODECS)
    codec_options: dict = dataclasses.field(default_factory=dict)
    start: str = _field(
        "klt",
        "Initial weights of g_a and g_s. klt: near the Karhunen-Loeve transform of a model of"
        " pictures. glorot: random, as in the papers (Glorot's kernels, biases 0, GDN's gamma"
        " 0.1).",
        choices=STARTS,
    )
    lmbda: float = _field(0.0067, "Weight of the distortion against bits per pixel.", positive=True)
    lmbda_range: tuple[float, ...] = _field(
        (),
        "Two numbers, such as .0018,.0483: train one model for all rates between these values of"
        " lmbda. Every picture of a batch draws its quality, which determines its lmbda. --lmbda"
        " is then the rate at which the gains start as 1.",
    )
    quality_levels: int = _field(
        6,
        f"With --lmbda_range: number of levels with separate gains, at most {MOST_LEVELS}.",
        least=2,
    )
    distortion: str = _field(
        "mse", "Training distortion: 255^2 MSE, or 1 - MS-SSIM.", choices=losses.DISTORTIONS
    )
    plan: str = _field("sua_ste", "Named quantization plan of the joint stage.", choices=PLANS)
    rate_branch: str = _field("", _BRANCH_HELP.format("rate"))
    distortion_branch: str = _field("", _BRANCH_HELP.format("distortion"))
    context_branch: str = _field("", _BRANCH_HELP.format("context"))
    stop_gradient: str = _field(
        "both",
        "Zero-center: the branches whose offset mu gets no gradient. both is the literal reading of"
        " arXiv 2309.17051, section 5.3. With distortion, mu gets the negative gradient of the rate"
        " to y.",
        choices=STOP_GRADIENTS,
    )
    mean_gradient: str = _field(
        "sampled",
        "Gradient of the rate to mu with --stop_gradient=both. sampled: that of the sample."
        " expected: its expectation in closed form, for a Gaussian or a Laplacian and a rate branch"
        " of aun, uq_s, uq_i, sua_n, sr or sra.",
        choices=MEAN_GRADIENTS,
    )
    hyper_aun: bool = _field(False, "Use additive uniform noise for z, regardless of the plan.")
    stages: tuple[str, ...] = _field(
        ("joint", "post"), "Stages to run, in order: joint, post, qr_soft, qr_predictive."
    )
    init_from: str = _field(
        "",
        "Folder of a run of the same codec, whose weights initialize this run. A rectifier is"
        " added.",
    )
    joint_steps: int = _field(10000, **_JOINT["steps"])
    post_steps: int = _field(2000, **_POST["steps"])
    qr_soft_steps: int = _field(10000, **_QR_SOFT["steps"])
    qr_predictive_steps: int = _field(2000, **_QR_PREDICTIVE["steps"])
    joint_learning_rate: float = _field(1e-3, **_JOINT["learning_rate"])
    post_learning_rate: float = _field(3e-4, **_POST["learning_rate"])
    qr_soft_learning_rate: float = _field(1e-3, **_QR_SOFT["learning_rate"])
    qr_predictive_learning_rate: float = _field(3e-4, **_QR_PREDICTIVE["learning_rate"])
    joint_schedule: str = _field("cosine", **_JOINT["schedule"])
    post_schedule: str = _field("cosine", **_POST["schedule"])
    qr_soft_schedule: str = _field("cosine", **_QR_SOFT["schedule"])
    qr_predictive_schedule: str = _field("cosine", **_QR_PREDICTIVE["schedule"])
    rectifier_width: int = _field(
        LIGHT_WIDTH,
        "Hidden channels of the rectifier. 0: no rectifier; the stages then train only the codec,"
        " for comparison.",
        least=0,
    )
    rectifier_depth: int = _field(
        LIGHT_DEPTH, "Number of residual blocks of the rectifier.", least=0
    )
    qr_distance: str = _field(
        "l2",
        "Feature distance d(y, y_bar) that trains the rectifier, a mean over elements.",
        choices=losses.FEATURE_DISTANCES,
    )
    qr_weight: float = _field(
        0.1,
        "Weight a_qr of the feature distance. For ms_ssim, use a tenth of the weight for mse.",
        least=0,
    )
    qr_stop_gradient: bool = _field(
        False, "Stage qr_soft: stop the gradient of the feature distance before the encoder."
    )
    alpha_min: float = _field(1.0, "Temperature at the start of annealing.", positive=True)
    alpha_max: float = _field(12.0, "Temperature at the end of annealing.", positive=True)
    joint_sigma_bound: float = _field(
        JOINT_SIGMA_BOUND, "Lower bound of sigma in joint training.", positive=True
    )
    post_sigma_bound: float = _field(
        POST_SIGMA_BOUND, "Lower bound of sigma in post-training.", positive=True
    )
    clip_norm: float = _field(
        1.0,
        "Global norm to which gradients are clipped; 0: no clipping. The default is this project's"
        " own: arXiv 2309.17051 does not mention clipping, and configs/paper_*.flags turn it off."
        " Clipping hides differences in variance between gradient estimators. A step with a"
        " non-finite loss or gradient is always skipped.",
        least=0,
    )
    batch_size: int = _field(8, "Global batch size, over all devices and hosts.", positive=True)
    crop: int = _field(256, "Side of the training crops, a multiple of 64.", positive=True)
    train_images: str = _field(
        "",
        "Folder, glob or comma-separated list of training pictures, records:SET as made by `tfquant"
        " records`, or tfds:NAME. Empty: generated dead-leaves pictures.",
    )
    background: str = _field(
        "",
        "Background colour for transparent training pictures: #rrggbb, R,G,B, black or white."
        " Empty: skip transparent pictures.",
    )
    downscale: tuple[float, ...] = _field(
        (),
        "Range of random downscaling before cropping, as two numbers. 0.6,0.95 is usual for"
        " pictures that were JPEGs.",
    )
    validation_images: int = _field(16, "Number of crops for validation.", positive=True)
    seed: int = _field(1, "Seed of all random numbers.", least=0)
    precision: str = _field(
        "float32",
        "Arithmetic of the networks. Quantization and likelihoods always use float32.",
        choices=models.PRECISIONS,
    )

    def __post_init__(self) -> None:
        """Checks all fields before anything is built."""
        for field in dataclasses.fields(self):
            if field.metadata:
                _check(field.name, getattr(self, field.name), field.metadata)
        if self.background:
            background.parse(self.background)
        for name in self.stages:
            check_known("stage", name, STAGES)
        if self.seed >= _SEEDS:
            raise ValueError(f"seed must be below {_SEEDS}; got {self.seed}")
        if self.alpha_max < self.alpha_min:
            raise ValueError(
                f"alpha_max must not be below alpha_min={self.alpha_min}; got {self.alpha_max}"
            )
        if self.crop % 64:
            raise ValueError(f"crop must be a multiple of 64; got {self.crop}")
        crops.check_downscale(self.downscale)
        if self.lmbda_range and not (
            len(self.lmbda_range) == 2 and 0 < self.lmbda_range[0] < self.lmbda_range[1] < math.inf
        ):
            raise ValueError(
                "lmbda_range takes two positive numbers, the smaller one first; got"
                f" {self.lmbda_range}"
            )
        if self.lmbda_range and self.distortion in quality_scale.DISTORTIONS:
            self._check_qualities()
        if self.rectifier_width == 1:
            raise ValueError("rectifier_width must be at least 2, or 0 for no rectifier; got 1")
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"each stage may occur at most once; got {', '.join(self.stages)}")
        stages = [stage for stage in self.all_stages() if stage.steps]
        if not stages:
            steps = ", ".join(f"{name}_steps=0" for name in self.stages) or "no stage"
            raise ValueError(f"nothing to train: {steps}")
        for before, after in zip(stages, stages[1:]):
            if self.rectified and before.rectified and not after.rectified:
                raise ValueError(
                    f"stage {after.name!r} would train the decoder without the rectifier, which"
                    f" {before.name!r} has inserted before it"
                )
        if stages[0].frozen and not self.init_from:
            raise ValueError(
                f"stage {stages[0].name!r} does not train the {' and '.join(stages[0].frozen)}:"
                " it needs an earlier stage, or a trained run to start from (init_from)"
            )

    def _check_qualities(self) -> None:
        """Raises a ValueError unless the range of lmbda has several qualities from 0 to 100."""
        low, high = (quality_scale.steps_of(each, self.distortion) for each in self.lmbda_range)
        if low == high:
            ends = (quality_scale.to_lmbda(q, self.distortion) for q in quality_scale.ENDS)
            raise ValueError(
                "lmbda_range must contain several qualities from 0 to 100, which are lmbdas from"
                f" {' to '.join(f'{end:.3g}' for end in ends)}; got {self.lmbda_range}"
            )

    def joint_plan(self) -> QuantizationPlan:
        """Returns the named plan with the branches that flags replace."""
        plan = plan_named(self.plan)
        changes = {
            name: getattr(self, name) for name in ("stop_gradient", "mean_gradient", "hyper_aun")
        }
        for role in ("rate", "distortion", "context"):
            text = getattr(self, f"{role}_branch")
            if text:
                changes[role] = Branch.parse(text)
        return dataclasses.replace(plan, **changes)

    def lmbda_at(self, quality: tf.Tensor | float) -> tf.Tensor | float:
        """Returns the distortion's weight at a quality from 0 to 1, geometric between the ends."""
        low, high = self.lmbda_range
        return low * (high / low) ** quality

    @property
    def middle_quality(self) -> float | None:
        """The quality in the middle of a range of rates, or None for a single rate."""
        return 0.5 if self.lmbda_range else None

    @property
    def middle_lmbda(self) -> float:
        """The weight of the distortion: lmbda, or the middle of a range of rates."""
        quality = self.middle_quality
        return self.lmbda if quality is None else self.lmbda_at(quality)

    def gains(self) -> list[float]:
        """Returns the initial gain of each level of a range of rates, proportional to sqrt(lmbda).

        At high rates, the distortion of uniform quantization grows with the square of the step, so
        the best step is proportional to `lmbda ** -0.5`.
        """
        qualities = [level / (self.quality_levels - 1) for level in range(self.quality_levels)]
        return [math.sqrt(self.lmbda_at(quality) / self.lmbda) for quality in qualities]

    def distortion_loss(self) -> dict[str, float]:
        """Returns the loss term of the distortion and its weight."""
        if self.lmbda_range:
            return {f"weighted_{self.distortion}": 1.0}
        return {self.distortion: self.lmbda}

    def all_stages(self) -> list[Stage]:
        """Returns the stages, in order."""
        return [STAGES[name](self) for name in self.stages]

    @property
    def rectified(self) -> bool:
        """True if the codec has a rectifier: a stage trains it, and its width is not 0.

        With width 0, such a stage trains the codec in the same way but without a feature distance.
        It is the control experiment.
        """
        return any(stage.trains_rectifier for stage in self.all_stages())

    def to_json(self) -> str:
        """Returns the fields as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """Reads the text of `to_json`, also from earlier versions of tfquant.

        Raises:
          ValueError: the text has unknown fields, or the experiment is invalid.
        """
        values = current_values(json.loads(text))
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(
                "an experiment of another tfquant version: unknown fields"
                f" {', '.join(sorted(unknown))}"
            )
        for field in dataclasses.fields(cls):
            if isinstance(values.get(field.name), list):
                values[field.name] = tuple(values[field.name])
        return cls(**values)


def current_values(values: dict[str, Any]) -> dict[str, Any]:
    """Converts the values that any version of tfquant recorded to the names of this version."""
    if isinstance(values.get("stop_gradient"), bool):  # a switch in 0.1
        return {**values, "stop_gradient": "both" if values["stop_gradient"] else "none"}
    return values


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raises a ValueError if the value of a field is outside its limits."""
    if limits["choices"]:
        check_known(name, value, limits["choices"])
    if limits["positive"] and not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number; got {value}")
    if limits["least"] is not None and not limits["least"] <= value < math.inf:
        raise ValueError(f"{name} must be a number of at least {limits['least']}; got {value}")


_SEEDS = 1 << 32  # NumPy's limit


def _stage(e: Experiment, name: str, **fields: Any) -> Stage:
    """Returns a stage whose length and learning rate are the experiment's fields with its name."""
    steps = getattr(e, f"{name}_steps")
    rate = schedules.learning_rate(
        getattr(e, f"{name}_schedule"), getattr(e, f"{name}_learning_rate"), steps
    )
    return Stage(name=name, steps=steps, learning_rate=rate, **fields)


def _joint(e: Experiment) -> Stage:
    return _stage(
        e,
        "joint",
        plan=e.joint_plan(),
        alpha=schedules.annealing(e.alpha_min, e.alpha_max, e.joint_steps),
        sigma_bound=e.joint_sigma_bound,
        loss={"bpp": 1.0, **e.distortion_loss()},
    )


def _post(e: Experiment) -> Stage:
    return _stage(
        e,
        "post",
        plan=PLANS["round"],
        alpha=schedules.annealing(e.alpha_max, e.alpha_max, e.post_steps),
        sigma_bound=e.post_sigma_bound,
        loss={"bpp": 1.0, **e.distortion_loss()},
        frozen=("encoder",),
        track_offsets=False,
    )


_ERRORS = ("quantization_error", "rectified_error")


def _feature_loss(e: Experiment) -> dict:
    """Returns the loss term that trains the rectifier, if there is one."""
    return {losses.feature_term(e.qr_distance): e.qr_weight} if e.rectifier_width else {}


def _qr_soft(e: Experiment) -> Stage:
    return _stage(
        e,
        "qr_soft",
        plan=PLANS["aun"],
        alpha=schedules.annealing(e.alpha_max, e.alpha_max, e.qr_soft_steps),
        sigma_bound=e.joint_sigma_bound,
        lifts_sigma_bound=True,
        loss={"bpp": 1.0, **e.distortion_loss(), **_feature_loss(e)},
        reported=_ERRORS,
        features_reach_encoder=not e.qr_stop_gradient,
    )


def _qr_predictive(e: Experiment) -> Stage:
    return _stage(
        e,
        "qr_predictive",
        plan=PLANS["round"],
        alpha=schedules.annealing(e.alpha_max, e.alpha_max, e.qr_predictive_steps),
        sigma_bound=None,
        loss={**e.distortion_loss(), **_feature_loss(e)},
        reported=_ERRORS,
        frozen=("encoder", "entropy"),
        track_offsets=False,
        rectified=True,
    )


STAGES = {
    # arXiv 2309.17051, sections 4 and 5.2: joint training on surrogates, then only the decoder, on
    # rounded latents.
    "joint": _joint,
    "post": _post,
    # Soft-to-predictive training of Luo and Chen (2023): everything under additive noise, with the
    # rectifier next to the decoder; then only the decoder and the rectifier, on rounded latents.
    "qr_soft": _qr_soft,
    "qr_predictive": _qr_predictive,
}
