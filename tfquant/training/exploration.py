"""Search over the weight a_qr of the feature distance, after Luo and Chen (2023).

1. Start with the largest weight.
2. Train with it until the loss has not decreased for some epochs in a row.
3. Multiply the weight by a factor below 1.
4. Continue with step 2 while the weight is not below the minimum.

Then choose the weight with the lowest `J = R + lmbda D` on validation pictures. Every weight starts
from the same baseline. According to the paper, J has a single minimum over the weight. A search may
therefore stop after J has increased some times in a row; the report then says so.

    FOLDER/exploration.json   the trials, rewritten after every weight; a search resumes from it
    FOLDER/exploration.md     the table
    FOLDER/exploration.png    quality over weight, and over epochs
    FOLDER/weights/0.1/       the run with that weight
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from absl import logging

from tfquant import files, markdown, metrics, plotting
from tfquant.legacy_keras import keras
from tfquant.training import checkpoint, folder, history, hosts, run
from tfquant.training.experiment import Experiment

STATE, TABLE, PLOT, RUNS = "exploration.json", "exploration.md", "exploration.png", "weights"

# Training distortion -> the quality metric that a search reports: its name, and a function that
# computes its decibels from a record of `history.json`.
QUALITIES = {
    "mse": ("PSNR", lambda record: record["psnr"]),
    "ms_ssim": ("MS-SSIM", lambda record: float(metrics.ms_ssim_db(1.0 - record["D"]))),
}


@dataclasses.dataclass(frozen=True)
class Search:
    """The weights to try, from the largest down.

    Attributes:
      start: the first and largest weight.
      factor: ratio of successive weights, below 1.
      minimum: lower limit of the weights.
      rises: stop after J has increased this many times in a row; 0 to try all weights.

    Raises:
      ValueError: a value is out of range.
    """

    start: float
    factor: float
    minimum: float
    rises: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.start < math.inf:
            raise ValueError(f"the first weight must be a positive number; got {self.start}")
        if not 0 < self.factor < 1:
            raise ValueError(f"the factor must lie between 0 and 1; got {self.factor}")
        if not 0 < self.minimum <= self.start:
            raise ValueError(
                "the smallest weight must be positive and not above the first one,"
                f" {self.start}; got {self.minimum}"
            )
        if self.rises < 0:
            raise ValueError(f"rises must not be negative; got {self.rises}")

    def weights(self) -> list[float]:
        """Returns all weights, to six digits."""
        # The tolerance keeps the minimum, which repeated multiplication may miss by a rounding
        # error.
        steps = math.log(self.minimum / self.start) / math.log(self.factor)
        powers = range(math.floor(steps + 1e-6) + 1)
        return [float(f"{self.start * self.factor**k:.6g}") for k in powers]

    def stops(self, tried: Sequence[dict]) -> bool:
        """Returns true if J has increased `rises` times in a row.

        Two divergences are not an increase.
        """
        values = [J(trial) for trial in tried[-self.rises - 1 :]]
        risen = all(b > a for a, b in zip(values, values[1:]))
        return 0 < self.rises < len(tried) and risen


def J(trial: dict) -> float:
    """Returns R + lmbda D of a trial; infinite if its training diverged."""
    return math.inf if trial["J"] is None else trial["J"]


def explore(
    search: Search,
    evaluate: Callable[[float], dict],
    tried: Sequence[dict] = (),
    keep: Callable[[list], None] = lambda tried: None,
) -> list:
    """Tries the weights in order.

    Args:
      search: the weights.
      evaluate: trains with a weight and returns a dictionary with at least `J`, which is None if
        the training diverged.
      tried: trials of an earlier, interrupted call.
      keep: called with all trials after each new one.

    Returns:
      The trials, `{"weight": ..., "J": ..., ...}` each.
    """
    tried = list(tried)
    for weight in search.weights()[len(tried) :]:
        if search.stops(tried):
            break
        tried.append({"weight": weight, **evaluate(weight)})
        keep(tried)
    return tried


def best(tried: Sequence[dict]) -> dict:
    """Returns the trial with the lowest J. Of equal trials, returns the one with the largest
    weight.

    Raises:
      ValueError: training diverged with every weight.
    """
    found = min(tried, key=J)
    if found["J"] is None:
        raise ValueError("training diverged with every weight: lower the learning rate")
    return found


def verdict(search: Search, tried: Sequence[dict]) -> list:
    """Returns lines of text that name the best weight and the limits of the result."""
    found = best(tried)
    lines = [f"Best weight: {found['weight']:g}, J = {found['J']:.5f}."]
    untried = search.weights()[len(tried) :]
    if untried:
        lines.append(
            f"Stopped early: J increased {search.rises} times in a row; not tried:"
            f" {', '.join(f'{weight:g}' for weight in untried)}."
        )
    if found is tried[0]:
        lines.append("It is the largest weight tried: a larger one may be better.")
    if found is tried[-1]:
        lines.append("It is the smallest weight tried: a smaller one may be better.")
    values = [J(trial) for trial in tried]
    place = tried.index(found)
    falling = all(b <= a for a, b in zip(values[: place + 1], values[1 : place + 1]))
    rising = all(b >= a for a, b in zip(values[place:], values[place + 1 :]))
    if not (falling and rising):
        lines.append("J has more than one minimum over the weights tried.")
    diverged = [f"{trial['weight']:g}" for trial in tried if trial["J"] is None]
    if diverged:
        lines.append(f"Training diverged with {', '.join(diverged)}.")
    return lines


class State:
    """FOLDER/exploration.json: the request (search and experiment) and the trials.

    Args:
      directory: the exploration's folder.
      search: the weights.
      experiment: the experiment of every weight, except for its `qr_weight`.
      options: further values that must be the same when a search resumes.

    Raises:
      ValueError: the folder contains another exploration; the message names the differences.
    """

    def __init__(self, directory: str, search: Search, experiment: Experiment, options: dict):
        self._path = tf.io.gfile.join(directory, STATE)
        fields = {**json.loads(experiment.to_json()), "qr_weight": None}
        self._asked = {**dataclasses.asdict(search), **options, "experiment": fields}
        self.tried = []
        if files.exists(self._path):
            found = read(directory)
            asked, there = _flat(self._asked), _flat(found["asked"])
            files.check_owner(directory, "--model_dir", "exploration", asked, there)
            self.tried = found["tried"]

    def keep(self, tried: list) -> None:
        """Saves the trials."""
        self.tried = list(tried)
        folder.write_json(self._path, {"asked": self._asked, "tried": self.tried})


def read(directory: str) -> dict:
    """Reads what `State` has written: the request as `asked`, the trials as `tried`.

    Raises:
      ValueError: the folder contains no exploration.
    """
    path = tf.io.gfile.join(directory, STATE)
    if not files.exists(path):
        raise ValueError(f"{directory} is not an exploration: it has no {STATE}")
    return folder.read_json(path)


def _flat(asked: dict) -> dict:
    """Returns name -> value, with the experiment's fields as in this version."""
    fields = {**asked["experiment"], "qr_weight": 0.0}
    experiment = json.loads(Experiment.from_json(json.dumps(fields)).to_json())
    return {**experiment, **{k: v for k, v in asked.items() if k != "experiment"}}


def outcome(run_dir: str, distortion: str) -> dict:
    """Returns the results of a trial: those of the last stage's epoch with the lowest J.

    Args:
      run_dir: the run's folder.
      distortion: the training distortion, a key of `QUALITIES`.

    Returns:
      A dictionary with `J`, `R`, `D`, `error_reduction` [%], `quality` [dB] and `step` of that
      epoch; `start_J` and `start_quality`, from before the stage; and `quality_of_step`, [step, dB]
      before the stage and after each epoch with a finite J. If no epoch has a finite J, `J` is None
      and the other keys are missing.
    """
    records = history.read(run_dir)
    stage = [r for r in records if r["stage"] == records[-1]["stage"]]
    start, *epochs = (r for r in stage if math.isfinite(r["J"]) or r["step"] == 0)
    if not epochs:
        return {"J": None}  # like a diverged training
    found = min(epochs, key=lambda r: r["J"])
    _, quality = QUALITIES[distortion]
    return {
        **{name: found[name] for name in ("J", "R", "D", "error_reduction", "step")},
        "quality": quality(found),
        "start_J": start["J"],
        "start_quality": quality(start),
        "quality_of_step": [[r["step"], quality(r)] for r in (start, *epochs)],
    }


def table(tried: Sequence[dict], quality: str) -> str:
    """Returns a Markdown table with one row per weight, like the paper's Table 1 for one codec.

    Args:
      tried: the trials.
      quality: name of the quality metric.
    """
    head = ("weight", "J", "R [bpp]", "D", f"{quality} [dB]", "gain [dB]", "error reduction [%]",
            "best step")  # fmt: skip
    rows, chosen = [], best(tried)
    for trial in tried:
        if trial["J"] is None:
            rows.append((f"{trial['weight']:g}", "diverged", *[""] * 6))
            continue
        mark = "**" if trial is chosen else ""
        gain = trial["quality"] - trial["start_quality"]
        rows.append((
            f"{mark}{trial['weight']:g}{mark}", f"{trial['J']:.5f}", f"{trial['R']:.4f}",
            f"{trial['D']:.5g}", f"{trial['quality']:.3f}", f"{gain:+.3f}",
            f"{trial['error_reduction']:.2f}", trial["step"],
        ))  # fmt: skip
    return markdown.table(head, rows)


def plot(tried: Sequence[dict], quality: str, path: str) -> None:
    """Plots J over the weight, and quality over the steps of each weight, like the paper's
    Figure 2.
    """
    figure, ((left, right),) = plotting.new_figure((12, 4.4), 2)
    good = [trial for trial in tried if trial["J"] is not None]
    chosen = best(tried)
    weights = [trial["weight"] for trial in good]
    left.plot(weights, [trial["J"] for trial in good], "o-", color=plotting.BLUE)
    left.plot(
        chosen["weight"], chosen["J"], "*", color=plotting.VERMILION, markersize=16, label="best"
    )
    left.axhline(chosen["start_J"], **plotting.REFERENCE, label="at the start")
    left.set(xscale="log", xlabel="weight of the feature distance",
             ylabel="R + lmbda D [bits per pixel]")  # fmt: skip
    for i, trial in enumerate(good):
        best_one = trial is chosen
        right.plot(
            *zip(*trial["quality_of_step"]), label=f"weight {trial['weight']:g}",
            marker=plotting.series(i)["marker"], markevery=0.2, zorder=3 if best_one else 2,
            color=plotting.VERMILION if best_one else plotting.shade(plotting.BLUE, i, len(good)),
        )  # fmt: skip
    right.set(xlabel="step of the last stage", ylabel=f"{quality} of validation pictures [dB]")
    plotting.legend(figure)
    with tf.io.gfile.GFile(path, "wb") as file:
        figure.savefig(file, format="png")


def report(directory: str, search: Search, tried: Sequence[dict], quality: str) -> str:
    """Writes the table and the plot. Returns the table and the verdict as text."""
    text = "\n\n".join([table(tried, quality), "\n".join(verdict(search, tried))])
    with tf.io.gfile.GFile(tf.io.gfile.join(directory, TABLE), "w") as f:
        f.write(f"# Weight of the feature distance\n\n{text}\n\n![exploration]({PLOT})\n")
    plot(tried, quality, tf.io.gfile.join(directory, PLOT))
    return text


def run_dir(directory: str, weight: float) -> str:
    """Returns the folder of the run with that weight."""
    return tf.io.gfile.join(directory, RUNS, f"{weight:g}")


def start_of(directory: str, weight: float) -> dict[str, Any] | None:
    """Returns the record of the run from which the run with that weight started.

    Returns None if the folder of the run is not there. See `folder.as_start`.
    """
    path = run_dir(directory, weight)
    is_there = files.exists(tf.io.gfile.join(path, folder.EXPERIMENT))
    return folder.read_start(path) if is_there else None


def run_search(
    directory: str,
    search: Search,
    experiment: Experiment,
    *,
    train: Callable[[Experiment, str], object],
    patience: int,
    epoch_steps: int,
    warm_start: bool,
) -> str:
    """Runs or resumes the whole exploration. Returns the table and the verdict as text.

    Args:
      directory: the exploration's folder.
      search: the weights.
      experiment: the experiment of every weight, which starts from `init_from`.
      train: trains an experiment in a folder and resumes if it was interrupted. Each stage ends
        when its loss has not decreased for `patience` epochs of `epoch_steps` steps.
      patience: recorded, so that a search resumes with the same value.
      epoch_steps: recorded, likewise.
      warm_start: if true, each weight starts from the previous weight's run.

    Raises:
      ValueError: no stage of the experiment has steps and decodes with a rectifier; or `init_from`
        is empty; or the folder contains another exploration or one from another checkpoint; or
        training diverged with every weight.
    """
    if not experiment.init_from:
        raise ValueError("an exploration needs init_from, the run from which every weight starts")
    stages = experiment.all_stages()
    if not any(s.steps for s in stages if s.trains_rectifier and s.rectified):
        raise ValueError(
            "an exploration needs a stage with steps that decodes with the rectifier it trains"
            f" (qr_predictive), and a rectifier_width; got {experiment.rectifier_width},"
            f" {', '.join(f'{s.name}_steps={s.steps}' for s in stages)}"
        )
    start = hosts.identity(checkpoint.newest_readable(experiment.init_from))
    options = {
        "patience": patience,
        "epoch_steps": epoch_steps,
        "warm_start": warm_start,
        "checkpoint of init_from": start and list(start),  # a list, as in JSON
    }
    state = State(directory, search, experiment, options)

    def evaluate(weight: float) -> dict:
        earlier = [trial["weight"] for trial in state.tried if trial["J"] is not None]
        start = experiment.init_from
        if warm_start and earlier:
            start = run_dir(directory, earlier[-1])
        logging.info("Weight %g, from %s", weight, start and files.shown(start))
        keras.backend.clear_session()
        gc.collect()  # frees the previous trainer, its graphs and its pictures (a reference cycle)
        one = dataclasses.replace(experiment, qr_weight=weight, init_from=start)
        try:
            train(one, run_dir(directory, weight))
        except run.TrainingDiverged as error:
            logging.warning("Weight %g: %s", weight, files.shown(str(error)))
            return {"J": None}
        return outcome(run_dir(directory, weight), experiment.distortion)

    tried = explore(search, evaluate, state.tried, state.keep)
    quality, _ = QUALITIES[experiment.distortion]
    return report(directory, search, tried, quality)
