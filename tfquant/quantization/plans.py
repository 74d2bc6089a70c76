"""Quantization plans: which surrogate and estimator serve the rate, the distortion and the context.

The named plans are the methods that "On Uniform Scalar Quantization for Learned Image Compression"
(arXiv 2309.17051) compares; any other combination is a `QuantizationPlan` of one's own.
"""

from __future__ import annotations

import dataclasses

from tfquant.quantization.surrogates import SURROGATES, Branch

# Whose gradient the offset mu is kept from, with zero-center quantization.
STOP_GRADIENTS = ("both", "distortion", "none")
# What stands for the gradient of the rate to mu through p(. | mu, sigma).
MEAN_GRADIENTS = ("sampled", "expected")


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """How a stage of training quantizes.

    Attributes:
      rate: the branch whose bits are counted.
      distortion: the branch that the synthesis transform decodes.
      context: the branch that a context model, or the hyper-decoder in the case of `z`, sees; None
        means the distortion's.
      stop_gradient: partial stop-gradient of the offset `mu` with zero-center quantization, one of
        `STOP_GRADIENTS`. Section 5.3 can be read in two ways. With "both", no branch's offset gets
        a gradient: `mu` has that of one sample's `p(. | mu, sigma)`. With "distortion", the rate's
        offset gets one, and with the expected gradient `mu` then has exactly minus that of `y`.
        With "none", the distortion's and the context's offsets get one, too.
      mean_gradient: the rate's gradient to `mu` through `p`, one of `MEAN_GRADIENTS`: that of the
        sample, or with "both" its expectation, where the rate's surrogate has a closed form of it.
      hyper_aun: keep additive noise for `z` whatever the other branches are.

    Raises:
      ValueError: for an expected gradient on anything but the rate: it exists for the bits of
        single elements, not for a network's output. For an unknown `stop_gradient` or
        `mean_gradient`, or an expected gradient to `mu` that does not exist.
    """

    rate: Branch
    distortion: Branch
    context: Branch | None = None
    stop_gradient: str = "both"
    mean_gradient: str = "sampled"
    hyper_aun: bool = False

    def __post_init__(self):
        for name, known in (("stop_gradient", STOP_GRADIENTS), ("mean_gradient", MEAN_GRADIENTS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}"
                )
        if self.mean_gradient == "expected":
            self._check_mean_gradient()
        for role in ("distortion", "context"):
            branch = getattr(self, role)
            if branch is not None and branch.estimator == "expected":
                raise ValueError(
                    f"the {role} branch {branch} cannot use the expected gradient, which exists for"
                    " the rate alone; possible: standard, pathwise, straight_through"
                )

    def _check_mean_gradient(self):
        if self.stop_gradient != "both":
            raise ValueError(
                "mean_gradient 'expected' stands for the sample's gradient to mu, which is all that"
                f" mu gets with stop_gradient 'both' alone; got {self.stop_gradient!r}"
            )
        if SURROGATES[self.rate.surrogate].spread is None:
            possible = ", ".join(s.name for s in SURROGATES.values() if s.spread)
            raise ValueError(
                f"mean_gradient 'expected' has no closed form for the rate branch {self.rate};"
                f" possible: {possible}"
            )

    def stops(self, role: str) -> bool:
        """Whether the offset of a branch, "rate", "distortion" or "context", gets no gradient."""
        return self.stop_gradient == "both" or (
            self.stop_gradient == "distortion" and role != "rate"
        )

    @property
    def context_branch(self) -> Branch:
        return self.context or self.distortion

    @property
    def annealed(self) -> bool:
        """Whether `alpha` matters to any branch."""
        return any(b.annealed for b in (self.rate, self.distortion, self.context_branch))

    def for_hyper_latent(self) -> QuantizationPlan:
        """The plan that `z` follows."""
        return dataclasses.replace(PLANS["aun"], hyper_aun=True) if self.hyper_aun else self

    def describe(self) -> dict:
        """Plain values for a run's record and TensorBoard."""
        return {
            "rate": str(self.rate),
            "distortion": str(self.distortion),
            "context": str(self.context_branch),
            "stop_gradient": self.stop_gradient,
            "mean_gradient": self.mean_gradient,
            "hyper_aun": self.hyper_aun,
        }


def _plan(rate: str, distortion: str) -> QuantizationPlan:
    return QuantizationPlan(Branch.parse(rate), Branch.parse(distortion))


PLANS = {
    "aun": _plan("aun:pathwise", "aun:pathwise"),
    "aun_ep": _plan("aun:expected", "aun:pathwise"),
    "mix": _plan("aun:pathwise", "round:straight_through"),
    "round": _plan("round:straight_through", "round:straight_through"),
    "sha": _plan("sha:standard", "sha:standard"),
    "uq_s": _plan("uq_s:straight_through", "uq_s:straight_through"),
    "uq_i": _plan("uq_i:straight_through", "uq_i:straight_through"),
    "aun_uq_s": _plan("aun:pathwise", "uq_s:straight_through"),
    "sga": _plan("sga:pathwise", "sga:pathwise"),
    "sga_ste": _plan("sga:straight_through", "sga:straight_through"),
    "sr": _plan("sr:expected", "sr:straight_through"),
    "sra": _plan("sra:expected", "sra:straight_through"),
    "sra_sua": _plan("sra:expected", "sua:straight_through"),
    "sua_n": _plan("sua:expected", "sua_n:pathwise"),
    "sua_pge": _plan("sua:expected", "sua:pathwise"),
    "sua_ste": _plan("sua:expected", "sua:straight_through"),
    "sua_pge_rate": _plan("sua:pathwise", "sua:straight_through"),
}


def plan_named(name: str) -> QuantizationPlan:
    """The plan of that name; a ValueError lists the known ones."""
    if name not in PLANS:
        raise ValueError(f"unknown quantization plan {name!r}; known: {', '.join(PLANS)}")
    return PLANS[name]
