"""Quantization plans: the surrogate and the estimator of the rate, distortion and context branches.

The named plans are the methods that "On Uniform Scalar Quantization for Learned Image Compression"
(arXiv 2309.17051) compares. Construct a `QuantizationPlan` for any other combination.
"""

from __future__ import annotations

import dataclasses

from tfquant.names import check_known
from tfquant.quantization.surrogates import SURROGATES, Branch

# With zero-center quantization: the branches whose gradient to the offset mu is stopped.
STOP_GRADIENTS = ("both", "distortion", "none")
# Estimator of the rate's gradient to mu through p(. | mu, sigma).
MEAN_GRADIENTS = ("sampled", "expected")


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Quantization in one stage of training.

    Attributes:
      rate: the branch whose bits are counted.
      distortion: the branch that the synthesis transform decodes.
      context: the branch that a context model sees, and for `z` the hyper-decoder. None selects the
        distortion branch.
      stop_gradient: partial stop-gradient of the offset `mu` with zero-center quantization, one of
        `STOP_GRADIENTS`. Section 5.3 of the paper can be read in two ways, "both" or "distortion".
        With "both", no branch's offset gets a gradient, and `mu` gets only the gradient of one
        sample's `p(. | mu, sigma)`. With "distortion", the offset of the rate gets a gradient;
        with the expected gradient, `mu` then gets exactly the negative gradient of `y`. With
        "none", the offsets of the distortion and the context get a gradient, too.
      mean_gradient: estimator of the rate's gradient to `mu` through `p`, one of `MEAN_GRADIENTS`.
        "sampled" uses the gradient of the sample. "expected" uses its expectation. "expected"
        requires stop_gradient "both" and a rate surrogate with a closed form of the expectation.
      hyper_aun: if true, `z` keeps additive noise regardless of the other branches.

    Raises:
      ValueError: the distortion or context branch uses the expected gradient, which exists only for
        the bits of single elements and not for a network's output; or `stop_gradient` or
        `mean_gradient` is unknown; or the expected gradient to `mu` does not exist.
    """

    rate: Branch
    distortion: Branch
    context: Branch | None = None
    stop_gradient: str = "both"
    mean_gradient: str = "sampled"
    hyper_aun: bool = False

    def __post_init__(self) -> None:
        for name, known in (("stop_gradient", STOP_GRADIENTS), ("mean_gradient", MEAN_GRADIENTS)):
            check_known(name, getattr(self, name), known)
        if self.mean_gradient == "expected":
            self._check_mean_gradient()
        for role in ("distortion", "context"):
            branch = getattr(self, role)
            if branch is not None and branch.estimator == "expected":
                raise ValueError(
                    f"the {role} branch {branch} cannot use the expected gradient, which only"
                    " the rate has; possible: standard, pathwise, straight_through"
                )

    def _check_mean_gradient(self) -> None:
        if self.stop_gradient != "both":
            raise ValueError(
                "mean_gradient 'expected' replaces the sample's gradient to mu, so it requires"
                f" stop_gradient 'both'; got {self.stop_gradient!r}"
            )
        if SURROGATES[self.rate.surrogate].spread is None:
            possible = ", ".join(s.name for s in SURROGATES.values() if s.spread)
            raise ValueError(
                f"mean_gradient 'expected' has no closed form for the rate branch {self.rate};"
                f" possible: {possible}"
            )

    def stops(self, role: str) -> bool:
        """Returns true if a branch's offset gets no gradient.

        Args:
          role: "rate", "distortion" or "context".
        """
        return self.stop_gradient == "both" or (
            self.stop_gradient == "distortion" and role != "rate"
        )

    @property
    def context_branch(self) -> Branch:
        """The branch that a context model or the hyper-decoder sees."""
        return self.context or self.distortion

    @property
    def annealed(self) -> bool:
        """True if any branch depends on `alpha`."""
        return any(b.annealed for b in (self.rate, self.distortion, self.context_branch))

    def for_hyper_latent(self) -> QuantizationPlan:
        """Returns the plan that quantizes `z`."""
        return dataclasses.replace(PLANS["aun"], hyper_aun=True) if self.hyper_aun else self

    def describe(self) -> dict[str, str | bool]:
        """Returns plain values for a run's record and TensorBoard."""
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
    """Returns the plan with that name. A ValueError lists the known names."""
    check_known("quantization plan", name, PLANS)
    return PLANS[name]
