"""The rate-distortion plot, and that of the gains over baselines."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfquant.evaluation import curves

# Okabe and Ito's palette, distinguishable with every colour blindness; yellow, too pale for a line,
# is left out.
_MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_OTHER_COLOURS = ("#777777", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
_MODEL_MARKERS = ("o", "s", "^", "D", "v", "P")
_OTHER_MARKERS = ("x", "s", "^", "D", "o", "v", "+")

# The models' rates are what the plot is about: conventional curves go far beyond.
_BEYOND_MODELS = 1.6
_WIDEST_BPP = 2.0


def plot_rd(rd_curves, path: Path, title: str) -> None:
    """Writes a PNG with PSNR and MS-SSIM, both in dB, over bpp.

    Learned codecs are thick lines with filled markers, conventional ones dashed with hollow
    markers, published points a dotted black line.
    """
    panels = [m for m in curves.METRICS if any(len(c.samples(m)) for c in rd_curves)]
    figure = Figure(figsize=(6.0 * max(len(panels), 1), 5.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    styles = _styles(rd_curves)
    right = _right_edge(rd_curves)
    handles = {}
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        visible = []
        for curve in rd_curves:
            samples = curve.samples(metric)
            if not len(samples):
                continue
            handles[curve.name] = axes.plot(*samples.T, label=curve.name, **styles[curve.name])[0]
            visible += [quality for bpp, quality in samples if bpp <= right]
        axes.set(xlabel="rate [bits per pixel]", ylabel=curves.LABELS[metric], xlim=(0, right))
        if visible:
            margin = 0.04 * (max(visible) - min(visible)) or 0.5
            axes.set_ylim(min(visible) - margin, max(visible) + margin)
        axes.grid(color="#DDDDDD", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    if handles:
        figure.legend(
            handles=list(handles.values()),
            loc="outside lower center",
            ncols=min(len(handles), 4),
            frameon=False,
        )
    figure.savefig(path)


def plot_gains(gains, path: Path) -> None:
    """Writes a PNG with error reduction and gain over bpp, a line a curve."""
    panels = {
        "error_reduction": "quantization error reduction [%]",
        "psnr_gain": "PSNR gain [dB]",
        "ms_ssim_gain_db": "MS-SSIM gain [dB]",
    }
    panels = {k: label for k, label in panels.items() if any(g[k] is not None for g in gains)}
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    handles = {}
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (key, label) in zip(row, panels.items()):
        for i, curve in enumerate(dict.fromkeys(g["curve"] for g in gains)):
            points = sorted((g["bpp"], g[key]) for g in gains
                            if g["curve"] == curve and g[key] is not None)  # fmt: skip
            if points:
                handles[curve] = axes.plot(
                    *zip(*points), label=curve, color=_MODEL_COLOURS[i % len(_MODEL_COLOURS)],
                    marker=_MODEL_MARKERS[i % len(_MODEL_MARKERS)], linewidth=2.0,
                )[0]  # fmt: skip
        axes.axhline(0.0, color="#777777", linewidth=0.9)
        axes.set(xlabel="rate [bits per pixel]", ylabel=label)
        axes.grid(color="#DDDDDD", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=list(handles.values()), loc="outside lower center",
                  ncols=min(len(handles), 4), frameon=False)  # fmt: skip
    figure.savefig(path)


def _right_edge(rd_curves) -> float:
    learned = [p["bpp"] for c in rd_curves if c.kind == "model" for p in c.points]
    everything = [p["bpp"] for c in rd_curves for p in c.points]
    widest = _BEYOND_MODELS * max(learned) if learned else _WIDEST_BPP
    return min(widest, 1.05 * max(everything, default=_WIDEST_BPP))


def _styles(rd_curves) -> dict:
    styles = {}
    counts = {}
    for curve in rd_curves:
        i = counts[curve.kind] = counts.get(curve.kind, -1) + 1
        if curve.kind == "model":
            style = {
                "color": _MODEL_COLOURS[i % len(_MODEL_COLOURS)],
                "marker": _MODEL_MARKERS[i % len(_MODEL_MARKERS)],
                "linewidth": 2.2,
                "markersize": 7,
                "zorder": 3,
            }
        elif curve.kind == "conventional":
            style = {
                "color": _OTHER_COLOURS[i % len(_OTHER_COLOURS)],
                "marker": _OTHER_MARKERS[i % len(_OTHER_MARKERS)],
                "linestyle": "--",
                "linewidth": 1.3,
                "markersize": 5,
                "markerfacecolor": "white",
            }
        else:
            style = {"color": "black", "linestyle": ":", "linewidth": 1.6}
        styles[curve.name] = style
    return styles
