"""Roles of the fields of an experiment: what identifies it, and when a field has no effect.

`ROLES` classifies every field of `Experiment`. A kind says how runs that differ only in this field
relate to each other:

    IDENTITY    they are different experiments
    LMBDA       they are one experiment at several rates
    FOLLOWS     they are one experiment; the field may follow lmbda (widths and lengths)
    REPETITION  they are repetitions of one experiment
    START       the folder of the run that gave the first weights; its experiment identifies

A field without effect does not identify. A role has the stages that read the field, the property
that the codec needs, and further conditions. `Effects` evaluates them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Callable

from tfquant import models
from tfquant.data import background, sources
from tfquant.quantization.plans import PLANS
from tfquant.quantization.surrogates import Branch
from tfquant.training.experiment import STAGES

IDENTITY, LMBDA, FOLLOWS, REPETITION, START = (
    "identity", "lmbda", "follows", "repetition", "start",
)  # fmt: skip

WIDTHS = ("N", "M")  # the options of a codec that follow lmbda; the others identify

# Properties of a codec.
HYPER, SIGMA, ZERO_CENTER, CONTEXT = (
    "a hyper-latent", "a bound of sigma", "zero-center quantization", "a context model",
)  # fmt: skip
# Properties of the codecs of this package. Another codec is taken to have all.
PROPERTIES = {
    "factorized": (),
    "scale_hyperprior": (HYPER, SIGMA),
    "ms_hyper": (HYPER, SIGMA),
    "ms_hyper_zero": (HYPER, SIGMA, ZERO_CENTER),
    "ms_context": (HYPER, SIGMA, CONTEXT),
    "cheng_anchor": (HYPER, SIGMA, CONTEXT),
    "cheng_attn": (HYPER, SIGMA, CONTEXT),
    "charm": (HYPER, SIGMA, CONTEXT),
    "charm_zero": (HYPER, SIGMA, CONTEXT, ZERO_CENTER),
    "elic_sm_zero": (HYPER, SIGMA, CONTEXT, ZERO_CENTER),
    "elic_zero": (HYPER, SIGMA, CONTEXT, ZERO_CENTER),
}

RECTIFYING = ("qr_soft", "qr_predictive")  # the stages that train a rectifier
_STAGES = {"joint", "post", *RECTIFYING}
_BRANCHES = ("rate", "distortion", "context")


@dataclasses.dataclass(frozen=True)
class Role:
    """Role of a field.

    Attributes:
      kind: see the module's docstring.
      stages: the stages of this package that read the field; empty if training with any stage does.
        A stage that is registered elsewhere may read it, too, and then it has an effect.
      needs: the property that the codec needs, or empty.
      idle: function from `Effects` to the reason why the field has no effect, or to "".
    """

    kind: str = IDENTITY
    stages: tuple[str, ...] = ()
    needs: str = ""
    idle: Callable[[Effects], str] = lambda effects: ""


class Effects:
    """Effects of the fields of an experiment.

    Args:
      values: field -> value, of any version: unknown fields, codecs and values are taken to have
        an effect.
      any_stage: if true, every stage counts as executed. This is for a run that started from a run
        of an unknown experiment, which may have executed it.
    """

    def __init__(self, values: Mapping[str, Any], any_stage: bool = False):
        self.values = values
        self.executed = executed(values)
        self._registered = not self.executed <= _STAGES  # by the user; such a stage is unknown
        self._any_stage = any_stage

    def reason(self, field: str, codec: bool = True) -> str:
        """Returns the reason why a field has no effect, or "" if it has one.

        Args:
          field: name of the field.
          codec: if false, the codec is taken to have all properties.
        """
        role = ROLES.get(field, Role())
        if codec and role.needs and not self.codec_has(role.needs):
            return f"{self.values['codec']} does not have {role.needs}"
        if role.stages and self._registered:
            return ""
        if role.stages and not self._any_stage and not self.executed & set(role.stages):
            return f"no stage {' or '.join(role.stages)} is trained"
        return role.idle(self)

    def codec_has(self, needed: str) -> bool:
        """Returns true if the codec has a property, or may have it."""
        return needed in PROPERTIES.get(self.values["codec"], (needed,))

    @property
    def started(self) -> bool:
        """True if another run gave the first weights, and its experiment is known."""
        return bool(self.values["init_from"]) and not self._any_stage

    @property
    def context_is_read(self) -> bool:
        """True if a context model or a hyper-decoder sees the context branch."""
        hyper = self.codec_has(HYPER) and not self.values["hyper_aun"]
        return hyper or self.codec_has(CONTEXT)

    def branches(self) -> tuple[Branch, Branch, Branch] | None:
        """Returns the branches of joint training for rate, distortion and context.

        Returns None if this version does not know them.
        """
        try:
            plan = PLANS[self.values["plan"]]
            own = [self.values[f"{role}_branch"] for role in _BRANCHES]
            rate, distortion, context = (Branch.parse(text) if text else None for text in own)
        except (KeyError, ValueError):
            return None
        distortion = distortion or plan.distortion
        if not self.context_is_read:
            context = distortion
        return rate or plan.rate, distortion, context or plan.context or distortion


def executed(values: Mapping[str, Any]) -> set[str]:
    """Returns the stages of an experiment that have steps."""
    return {name for name in values["stages"] if values.get(f"{name}_steps", 1) > 0}


def without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns field -> reason for the fields of an experiment without effect."""
    effects = Effects(values)
    return {field: reason for field in ROLES if (reason := effects.reason(field))}


def normal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an experiment, with one value for all spellings of the same setting.

    Branches that are those of a named plan become this plan. A context branch that nothing reads
    is left out, and so is an option of a codec with its default, except for the widths.
    """
    found = {**values, **_named_branches(Effects(values)), **with_one_spelling(values)}
    found["codec_options"] = _options(values["codec"], values["codec_options"] or {})
    if list(values["downscale"] or ()) in ([], [1, 1]):
        found["downscale"] = []
    return found


def with_one_spelling(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the source of the pictures and the background, with one spelling for each.

    Args:
      values: fields of an experiment. None is the same as an empty text.
    """
    colour = values["background"] or ""
    with contextlib.suppress(background.ColourError):  # none, or of a later version
        colour = f"#{bytes(background.parse(colour)).hex()}"
    return {"train_images": sources.canonical(values["train_images"] or ""), "background": colour}


def _named_branches(effects: Effects) -> dict[str, str]:
    """Returns the plan that needs the fewest own branches, the first of these, and the branches."""
    branches = effects.branches()
    if branches is None:
        return {}
    candidates = []
    for name, plan in PLANS.items():
        rate, distortion, context = branches
        own = [
            "" if rate == plan.rate else str(rate),
            "" if distortion == plan.distortion else str(distortion),
            "" if context == (plan.context or distortion) else str(context),
        ]
        candidates.append({"plan": name, **dict(zip((f"{r}_branch" for r in _BRANCHES), own))})
    return min(candidates, key=lambda each: sum(map(bool, each.values())))


def _options(codec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if codec not in models.CODECS:
        return dict(options)
    own = inspect.signature(models.CODECS[codec]).parameters
    kept = {k: v for k, v in options.items() if k not in own or v != own[k].default}
    if own.keys() >= set(WIDTHS):
        kept.update(models.widths(codec, *(options.get(name) for name in WIDTHS)))
    return kept


def _alpha(effects: Effects) -> str:
    branches = effects.branches()
    if branches is None or any(branch.annealed for branch in branches):
        return ""
    return f"no branch of the plan is annealed ({branches[0]}, {branches[1]})"


def _hyper_aun(effects: Effects) -> str:
    aun = PLANS["aun"]
    always = effects.branches() == (aun.rate, aun.distortion, aun.distortion)
    return "the plan has additive noise for z, too" if always else ""


def _start(effects: Effects) -> str:
    return "the weights come from --init_from" if effects.started else ""


def _range(effects: Effects) -> str:
    return "" if effects.values["lmbda_range"] else "only --lmbda_range uses it"


def _background(effects: Effects) -> str:
    transparent = sources.may_be_transparent(effects.values["train_images"] or "")
    return "" if transparent else "the training pictures have no transparent pixels"


def _rectifier(effects: Effects) -> str:
    return "" if effects.values["rectifier_width"] else "--rectifier_width is 0"


def _distance(effects: Effects) -> str:
    return _rectifier(effects) or ("--qr_weight is 0" if effects.values["qr_weight"] == 0 else "")


def _of_stage(name: str) -> dict[str, Role]:
    return {
        f"{name}_steps": Role(FOLLOWS, (name,)),
        f"{name}_learning_rate": Role(stages=(name,)),
        f"{name}_schedule": Role(stages=(name,)),
    }


_JOINT = ("joint",)

ROLES = {
    "codec": Role(),
    "codec_options": Role(),
    "start": Role(idle=_start),
    "lmbda": Role(LMBDA),
    "lmbda_range": Role(),
    "quality_levels": Role(idle=_range),
    "distortion": Role(),
    "plan": Role(stages=_JOINT),
    "rate_branch": Role(stages=_JOINT),
    "distortion_branch": Role(stages=_JOINT),
    "context_branch": Role(stages=_JOINT),
    "stop_gradient": Role(stages=_JOINT, needs=ZERO_CENTER),
    "mean_gradient": Role(stages=_JOINT),
    "hyper_aun": Role(stages=_JOINT, needs=HYPER, idle=_hyper_aun),
    "stages": Role(),
    "init_from": Role(START),
    **{field: role for name in STAGES for field, role in _of_stage(name).items()},
    "rectifier_width": Role(stages=RECTIFYING),
    "rectifier_depth": Role(stages=RECTIFYING, idle=_rectifier),
    "qr_distance": Role(stages=RECTIFYING, idle=_distance),
    "qr_weight": Role(stages=RECTIFYING, idle=_rectifier),
    "qr_stop_gradient": Role(stages=("qr_soft",), idle=_distance),
    "alpha_min": Role(stages=_JOINT, idle=_alpha),
    "alpha_max": Role(stages=_JOINT, idle=_alpha),
    "joint_sigma_bound": Role(stages=("joint", "qr_soft"), needs=SIGMA),
    "post_sigma_bound": Role(stages=("post",), needs=SIGMA),
    "clip_norm": Role(),
    "batch_size": Role(),
    "crop": Role(),
    "train_images": Role(),
    "background": Role(idle=_background),
    "downscale": Role(),
    "validation_images": Role(REPETITION),  # training does not use them
    "seed": Role(REPETITION),
    "precision": Role(),
}
