"""An experiment as data: everything that decides what a run computes, saved with the run."""

from __future__ import annotations

import dataclasses
import json
import math

from tfquant.data import crops
from tfquant.entropy.conditional import JOINT_SIGMA_BOUND, POST_SIGMA_BOUND
from tfquant.layers.rectifier import LIGHT_DEPTH, LIGHT_WIDTH
from tfquant.layers.transforms import STARTS
from tfquant.quantization.plans import PLANS, QuantizationPlan, plan_named
from tfquant.quantization.surrogates import Branch
from tfquant.training import losses, schedules


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      name: as checkpoints and TensorBoard show it.
      steps: training steps; may be 0 (the stage is passed over).
      plan: the quantization plan.
      learning_rate: Keras schedule of the stage's step.
      alpha: Keras schedule of the stage's step: the temperature.
      sigma_bound: lower bound of sigma; None keeps the one before, or brings back the one that a
        stage before has lifted.
      loss: term of `tfquant/training/losses.py` -> its weight.
      reported: further terms to measure, without weight.
      frozen: groups of parts (see `tfquant/codec.py`) that keep their weights.
      track_offsets: whether offsets that no gradient reaches follow the weights (the medians of
        factorized models).
      rectified: whether the picture is decoded from the rectified latent; otherwise from the
        quantized one, a rectifier being beside it. No matter without rectifier.
      lifts_sigma_bound: whether `sigma_bound` is for this stage alone. After post-training,
        additive noise needs the larger bound, and rounding the smaller one again.
      features_reach_encoder: whether the feature terms' gradient passes `y` on its way back.
    """

    name: str
    steps: int
    plan: QuantizationPlan
    learning_rate: object
    alpha: object
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
        """Whether a term of the loss is a feature distance."""
        return not self.loss.keys().isdisjoint(map(losses.feature_term, losses.FEATURE_DISTANCES))

    @property
    def counts_gain(self) -> bool:
        """Whether what matters is the gain since it began: with a rectifier, or as its control."""
        return "rectified_error" in self.reported


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Resolved hyperparameters.

    Units: lmbda weighs `255^2 MSE` or `1 - MS-SSIM` against bpp; `qr_weight` weighs the feature
    distance, a mean over elements of `y`, against bpp.
    """

    codec: str = "ms_hyper_zero"
    codec_options: dict = dataclasses.field(default_factory=dict)
    start: str = "klt"
    lmbda: float = 0.0067
    distortion: str = "mse"
    plan: str = "sua_ste"
    rate_branch: str = ""
    distortion_branch: str = ""
    context_branch: str = ""
    stop_gradient: str = "both"
    mean_gradient: str = "sampled"
    hyper_aun: bool = False
    stages: tuple[str, ...] = ("joint", "post")
    init_from: str = ""
    joint_steps: int = 10000
    post_steps: int = 2000
    qr_soft_steps: int = 10000
    qr_predictive_steps: int = 2000
    joint_learning_rate: float = 1e-3
    post_learning_rate: float = 3e-4
    qr_soft_learning_rate: float = 1e-3
    qr_predictive_learning_rate: float = 3e-4
    joint_schedule: str = "cosine"
    post_schedule: str = "cosine"
    qr_soft_schedule: str = "cosine"
    qr_predictive_schedule: str = "cosine"
    rectifier_width: int = LIGHT_WIDTH
    rectifier_depth: int = LIGHT_DEPTH
    qr_distance: str = "l2"
    qr_weight: float = 0.1
    qr_stop_gradient: bool = False
    alpha_min: float = 1.0
    alpha_max: float = 12.0
    joint_sigma_bound: float = JOINT_SIGMA_BOUND
    post_sigma_bound: float = POST_SIGMA_BOUND
    clip_norm: float = 1.0
    batch_size: int = 8
    crop: int = 256
    train_images: str = ""
    downscale: tuple[float, ...] = ()
    validation_images: int = 16
    seed: int = 1
    precision: str = "float32"

    def __post_init__(self):
        """Refuses what cannot run, before anything is built."""
        losses.distortion(self.distortion)
        losses.feature_term(self.qr_distance)
        if self.start not in STARTS:
            raise ValueError(f"unknown start {self.start!r}; known: {', '.join(STARTS)}")
        for name in self.stages:
            if name not in STAGES:
                raise ValueError(f"unknown stage {name!r}; known: {', '.join(STAGES)}")
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number; got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be 0 or a positive number; got {getattr(self, name)}"
                )
        if self.seed >= _SEEDS:
            raise ValueError(f"seed must be below {_SEEDS}; got {self.seed}")
        if self.alpha_max < self.alpha_min:
            raise ValueError(
                f"alpha_max must not be below alpha_min={self.alpha_min}; got {self.alpha_max}"
            )
        if self.crop % 64:
            raise ValueError(f"crop must be a multiple of 64; got {self.crop}")
        crops.check_downscale(self.downscale)
        if self.rectifier_width == 1:
            raise ValueError("rectifier_width must be at least 2, or 0 for no rectifier; got 1")
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"each stage at most once; got {', '.join(self.stages)}")
        stages = [stage for stage in self.all_stages() if stage.steps]
        if not stages:
            steps = ", ".join(f"{name}_steps=0" for name in self.stages) or "no stage"
            raise ValueError(f"nothing to train: {steps}")
        for before, after in zip(stages, stages[1:]):
            if self.rectified and before.rectified and not after.rectified:
                raise ValueError(
                    f"stage {after.name!r} would train the decoder without the rectifier that"
                    f" {before.name!r} put before it"
                )
        if stages[0].frozen and not self.init_from:
            raise ValueError(
                f"stage {stages[0].name!r} keeps the {' and '.join(stages[0].frozen)} as they are:"
                " it needs stages before it, or a trained run to start from (init_from)"
            )

    def joint_plan(self) -> QuantizationPlan:
        """The named plan with the branches that flags replace."""
        plan = plan_named(self.plan)
        changes = {
            name: getattr(self, name) for name in ("stop_gradient", "mean_gradient", "hyper_aun")
        }
        for role in ("rate", "distortion", "context"):
            text = getattr(self, f"{role}_branch")
            if text:
                changes[role] = Branch.parse(text)
        return dataclasses.replace(plan, **changes)

    def all_stages(self) -> list:
        """The stages, in order."""
        return [STAGES[name](self) for name in self.stages]

    @property
    def rectified(self) -> bool:
        """Whether the codec has a rectifier: there is a stage that trains it, and it has a width.

        Without width, such a stage trains the rest alike, without feature distance: the control.
        """
        return any(stage.trains_rectifier for stage in self.all_stages())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        values = current_values(json.loads(text))
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(
                f"an experiment of another tfquant version: unknown {', '.join(sorted(unknown))}"
            )
        for field in dataclasses.fields(cls):
            if isinstance(values.get(field.name), list):
                values[field.name] = tuple(values[field.name])
        return cls(**values)


def current_values(values: dict) -> dict:
    """Values of an experiment that any version of tfquant recorded, as this one names them."""
    if isinstance(values.get("stop_gradient"), bool):  # a switch in 0.1
        return {**values, "stop_gradient": "both" if values["stop_gradient"] else "none"}
    return values


_POSITIVE = (
    "lmbda", "batch_size", "crop", "validation_images", "alpha_min", "alpha_max",
    "joint_learning_rate", "post_learning_rate", "qr_soft_learning_rate",
    "qr_predictive_learning_rate", "joint_sigma_bound", "post_sigma_bound",
)  # fmt: skip
_NOT_NEGATIVE = (
    "joint_steps", "post_steps", "qr_soft_steps", "qr_predictive_steps", "clip_norm", "seed",
    "rectifier_width", "rectifier_depth", "qr_weight",
)  # fmt: skip
_SEEDS = 1 << 32  # as many as NumPy takes


def _stage(e: Experiment, name: str, **fields) -> Stage:
    """A stage whose length and learning rate are the experiment's fields of its name."""
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
        loss={"bpp": 1.0, e.distortion: e.lmbda},
    )


def _post(e: Experiment) -> Stage:
    return _stage(
        e,
        "post",
        plan=PLANS["round"],
        alpha=schedules.annealing(e.alpha_max, e.alpha_max, e.post_steps),
        sigma_bound=e.post_sigma_bound,
        loss={"bpp": 1.0, e.distortion: e.lmbda},
        frozen=("encoder",),
        track_offsets=False,
    )


_ERRORS = ("quantization_error", "rectified_error")


def _feature_loss(e: Experiment) -> dict:
    """What trains the rectifier, if there is one."""
    return {losses.feature_term(e.qr_distance): e.qr_weight} if e.rectifier_width else {}


def _qr_soft(e: Experiment) -> Stage:
    return _stage(
        e,
        "qr_soft",
        plan=PLANS["aun"],
        alpha=schedules.annealing(e.alpha_max, e.alpha_max, e.qr_soft_steps),
        sigma_bound=e.joint_sigma_bound,
        lifts_sigma_bound=True,
        loss={"bpp": 1.0, e.distortion: e.lmbda, **_feature_loss(e)},
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
        loss={e.distortion: e.lmbda, **_feature_loss(e)},
        reported=_ERRORS,
        frozen=("encoder", "entropy"),
        track_offsets=False,
        rectified=True,
    )


STAGES = {
    # Section 4 and 5.2 of arXiv 2309.17051: joint training on surrogates, then the decoder alone on
    # rounded latents.
    "joint": _joint,
    "post": _post,
    # Soft-to-predictive training of Luo and Chen (2023): everything under additive noise, with the
    # rectifier beside the decoder; then decoder and rectifier alone, on rounded latents.
    "qr_soft": _qr_soft,
    "qr_predictive": _qr_predictive,
}
