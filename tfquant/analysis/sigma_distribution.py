"""Fig. 8a: the distribution of the scales that a trained codec predicts.

For each run in `--model_dir`, the newest checkpoint is restored. The encoder runs on `--images`
with rounding, and `sigma` of every element of `y` is counted without the lower bound of the
training (the figure shows that bound as a line). With AUN and MIX, many scales are at the lower
end, where the mismatch of the rate is largest. A larger bound in training moves them up; SUA does
so without it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfquant import plotting
from tfquant.analysis import outputs, plots
from tfquant.analysis.experiment import AnalysisError, Experiment, Progress, Result, Rows, Settings
from tfquant.data.images import ImageError
from tfquant.data.pixels import to_float
from tfquant.entropy.conditional import JOINT_SIGMA_BOUND, POST_SIGMA_BOUND
from tfquant.evaluation import pictures
from tfquant.exchange import Rounding
from tfquant.training import folder
from tfquant.training.trained import load_run

COLUMNS = (
    "run", "codec", "plan", "lmbda", "joint_sigma_bound", "sigma_low", "sigma_high", "share",
)  # fmt: skip

# Edges of the histogram. Values outside count in the outermost bins.
EDGES = np.geomspace(1e-6, 1e2, 81)


def sigmas(run_dir: str, images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns `sigma` of every element of `y` in all images, as one axis.

    Args:
      run_dir: a training run.
      images: uint8 [H, W, 3] each.

    Raises:
      AnalysisError: the folder has no run or no checkpoint, or the codec predicts no scales for
        `y`.
    """
    try:
        experiment, codec, _ = load_run(run_dir)
    except ValueError as error:
        raise AnalysisError(error) from None
    model = next(m for m in codec.entropy_models if m.name == "y")
    model.set_sigma_bound(POST_SIGMA_BOUND)
    found = []
    for image in images:
        exchange = Rounding()
        codec(to_float(image[None]), exchange)
        sigma = model.sigma(*exchange.params["y"])
        if sigma is None:
            raise AnalysisError(f"{run_dir}: the codec {experiment.codec} predicts no sigma for y")
        found.append(sigma.numpy().ravel())
    return np.concatenate(found)


def run(settings: Settings, progress: Progress) -> Result:
    """Runs the experiment."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            asked = pictures.find_pictures(settings.images, Path(scratch)).pictures
            kept, _, _ = pictures.readable(asked, lambda line: print(f"skipped: {line}"))
            images = [picture.read() for picture in kept]
        except ImageError as error:
            raise AnalysisError(error) from None
    rows, summary = [], []
    for run_dir in progress.over(settings.model_dirs):
        found = sigmas(run_dir, images)
        experiment = folder.read_experiment(run_dir)
        about = {
            "run": Path(run_dir).name,
            "codec": experiment.codec,
            "plan": experiment.plan,
            "lmbda": experiment.lmbda,
            "joint_sigma_bound": experiment.joint_sigma_bound,
        }
        counts, _ = np.histogram(np.clip(found, EDGES[0], EDGES[-1]), EDGES)
        for low, high, count in zip(EDGES, EDGES[1:], counts):
            share = count / found.size
            rows.append(
                {**about, "sigma_low": float(low), "sigma_high": float(high), "share": float(share)}
            )
        summary.append({
            **about,
            "median sigma": float(np.median(found)),
            f"share below {JOINT_SIGMA_BOUND:g}": float(np.mean(found < JOINT_SIGMA_BOUND)),
        })  # fmt: skip
    return Result(COLUMNS, rows, _figure(rows, summary), _notes(summary, len(images)))


def _figure(rows: Rows, summary: Rows) -> Figure:
    figure, axes = plots.new_figure(1, width=6.4, height=4.2)
    panel = axes[0, 0]
    plans = [s["plan"] for s in summary]
    for i, about in enumerate(summary):
        here = [r for r in rows if r["run"] == about["run"]]
        centre = [math.sqrt(r["sigma_low"] * r["sigma_high"]) for r in here]
        look = plotting.plan(about["plan"], markers=False)
        # Of several runs with one plan, earlier ones are paler.
        same = [j for j, plan in enumerate(plans) if plan == about["plan"]]
        look["color"] = plotting.shade(look["color"], same.index(i), len(same))
        look["label"] = f"{about['run']} (λ = {about['lmbda']:g})"
        panel.plot(centre, [100.0 * r["share"] for r in here], **look)
    for bound in sorted({s["joint_sigma_bound"] for s in summary}):
        panel.axvline(bound, **{**plotting.REFERENCE, "label": f"bound in training, {bound:g}"})
    panel.set(
        xscale="log", xlabel="predicted σ [quantization steps]",
        ylabel=f"elements of y [% per {10 * math.log10(EDGES[1] / EDGES[0]):.1g} dB]",
        ylim=(0.0, None),
    )  # fmt: skip
    plotting.legend(figure)
    return figure


def _notes(summary: Rows, count: int) -> str:
    columns = tuple(summary[0])
    return "\n\n".join([
        "Result: the share of scales at the lower end, where the bits in training and testing"
        " differ, and the effect of the bound in training, or of SUA, on it.",
        outputs.table(columns, summary),
        f"Counted over {count} pictures without a lower bound.",
    ])  # fmt: skip


EXPERIMENT = Experiment(
    name="sigma_distribution",
    reproduces="Fig. 8a",
    summary="Distribution of the scales that trained codecs predict (needs --model_dir).",
    run=run,
    needs_model=True,
)
