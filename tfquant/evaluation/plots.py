"""Plots of rate-distortion curves and of gains over baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfquant import plotting
from tfquant.evaluation import conventional, curves
from tfquant.evaluation.results import Gain
from tfquant.quantization.plans import PLANS

# The plot shows the range of the models' rates. Conventional curves extend far beyond it.
_BEYOND_MODELS = 1.6
_WIDEST_BPP = 2.0


def plot_rd(rd_curves: Sequence[curves.Curve], path: Path, title: str) -> None:
    """Writes a PNG with PSNR and MS-SSIM, both in dB, over bpp.

    Learned codecs are thick lines in the style of `model_looks`. Conventional ones are thin, grey
    and dashed. Published points are a dotted black line.
    """
    panels = [m for m in curves.METRICS if any(len(c.samples(m)) for c in rd_curves)]
    count = max(len(panels), 1)
    figure, axes = plotting.new_figure((6.0 * count, 5.4), count)
    styles = {**model_looks(rd_curves), **other_looks(rd_curves)}
    right = _right_edge(rd_curves)
    for panel, metric in zip(axes[0], panels):
        visible = []
        for curve in rd_curves:
            samples = curve.samples(metric)
            if not len(samples):
                continue
            panel.plot(*samples.T, **styles[curve.name])
            visible += [quality for bpp, quality in samples if bpp <= right]
        panel.set(xlabel="rate [bits per pixel]", ylabel=curves.LABELS[metric], xlim=(0, right))
        if visible:
            margin = 0.04 * (max(visible) - min(visible)) or 0.5
            panel.set_ylim(min(visible) - margin, max(visible) + margin)
    figure.suptitle(title)
    plotting.legend(figure, below=True)
    figure.savefig(path)


def plot_gains(gains: Sequence[Gain], rd_curves: Sequence[curves.Curve], path: Path) -> None:
    """Writes a PNG with error reduction and gain over bpp, a line for each curve, as in `plot_rd`.

    It corresponds to figures 3 to 5 of Luo and Chen (2023).
    """
    panels = {
        "error_reduction": "quantization error reduction [%]",
        "psnr_gain": "PSNR gain [dB]",
        "ms_ssim_gain_db": "MS-SSIM gain [dB]",
    }
    panels = {
        k: label for k, label in panels.items() if any(getattr(g, k) is not None for g in gains)
    }
    count = max(len(panels), 1)
    figure, axes = plotting.new_figure((4.6 * count, 4.6), count)
    styles = model_looks(rd_curves)
    for panel, (key, label) in zip(axes[0], panels.items()):
        for curve in dict.fromkeys(g.curve for g in gains):
            values = [(g.bpp, getattr(g, key)) for g in gains if g.curve == curve]
            points = sorted(point for point in values if point[1] is not None)
            if points:
                panel.plot(*zip(*points), **styles[curve])
        panel.axhline(0.0, **plotting.ZERO)
        panel.set(xlabel="rate [bits per pixel]", ylabel=label)
    plotting.legend(figure, below=True)
    figure.savefig(path)


def _right_edge(rd_curves: Sequence[curves.Curve]) -> float:
    learned = [p.bpp for c in rd_curves if c.kind == "model" for p in c.points]
    everything = [p.bpp for c in rd_curves for p in c.points]
    widest = _BEYOND_MODELS * max(learned) if learned else _WIDEST_BPP
    return min(widest, 1.05 * max(everything, default=_WIDEST_BPP))


def model_looks(rd_curves: Sequence[curves.Curve]) -> dict[str, dict[str, Any]]:
    """Returns a map from the name of each model's curve to its style.

    Curves of several plans have the styles of the plans as in all figures. Those of the same plan
    have shades from pale to full. If the curves do not differ in the plan, their position
    determines the style.
    """
    models = [curve for curve in rd_curves if curve.kind == "model"]
    plans = {curve.plan for curve in models}
    drawn = {}
    for i, curve in enumerate(models):
        if plans <= PLANS.keys() and (len(plans) > 1 or len(models) == 1):
            look = plotting.plan(curve.plan)
            alike = [c.name for c in models if plotting.plan(c.plan) == look]
            place, count = alike.index(curve.name), len(alike)
            look["color"] = plotting.shade(look["color"], place, count)
            if count > 1:
                look["marker"] = plotting.series(place)["marker"]
        else:
            look = plotting.series(i)
        drawn[curve.name] = {
            **look, "label": curve.name, "linewidth": 2.2, "markersize": 7, "zorder": 3
        }  # fmt: skip
    return drawn


def other_looks(rd_curves: Sequence[curves.Curve]) -> dict[str, dict[str, Any]]:
    """Returns the same for all other curves.

    Each conventional codec has its own shade and marker.
    """
    codecs = [codec.label for codec in conventional.CODECS.values()]
    drawn = {}
    for curve in rd_curves:
        if curve.kind == "conventional":
            place = codecs.index(curve.name)
            look = plotting.hollow(plotting.series(place))
            look["color"] = plotting.shade(plotting.BLACK, len(codecs) - 1 - place, len(codecs) + 1)
            look.update(linestyle="--", linewidth=1.3)
            drawn[curve.name] = {**look, "label": curve.name}
        elif curve.kind == "published":
            drawn[curve.name] = {**plotting.REFERENCE, "label": curve.name}
    return drawn
