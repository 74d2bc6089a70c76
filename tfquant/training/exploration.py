"""Exploring the weight a_qr of the feature distance: Luo and Chen (2023), as an algorithm.

    1. begin with the largest weight
    2. train with it until the loss has not become lower for some epochs in a row
    3. multiply it by a factor below 1
    4. go on at 2. while it is not under the minimum

and choose the weight of the lowest `J = R + lmbda D` on validation pictures. Every weight starts
from one baseline. The paper finds J to have one minimum over the weight, so that a search may stop
once J has risen some times in a row; it then says so.

    FOLDER/exploration.json   what was tried, rewritten after every weight; a search goes on from it
    FOLDER/exploration.md     the table
    FOLDER/exploration.png    quality against weight, and against epochs
    FOLDER/weights/0.1/       the run of that weight
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
from collections.abc import Sequence
from typing import Callable

import tensorflow as tf
from absl import logging

from tfquant import files, metrics, plotting
from tfquant.legacy_keras import keras
from tfquant.training import checkpoint, folder, history, hosts, run
from tfquant.training.experiment import Experiment

STATE, TABLE, PLOT, RUNS = "exploration.json", "exploration.md", "exploration.png", "weights"

# The quality that a search reports, that which it trains for: the distortion -> its name, and its
# decibels in a record of `history.json`.
QUALITIES = {
    "mse": ("PSNR", lambda record: record["psnr"]),
    "ms_ssim": ("MS-SSIM", lambda record: float(metrics.ms_ssim_db(1.0 - record["D"]))),
}


@dataclasses.dataclass(frozen=True)
class Search:
    """Which weights are tried, from the largest down.

    Attributes:
      start: the first, largest weight.
      factor: from one weight to the next, below 1.
      minimum: no weight is smaller.
      rises: stop once J has risen so many times in a row; 0: try all weights.

    Raises:
      ValueError: for values without meaning.
    """

    start: float
    factor: float
    minimum: float
    rises: int = 0

    def __post_init__(self):
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

    def weights(self) -> list:
        """All weights, to six digits."""
        # The smallest counts although repeated multiplication may miss it by a rounding error.
        steps = math.log(self.minimum / self.start) / math.log(self.factor)
        powers = range(math.floor(steps + 1e-6) + 1)
        return [float(f"{self.start * self.factor**k:.6g}") for k in powers]

    def stops(self, tried: Sequence[dict]) -> bool:
        """Whether J has risen long enough; it does not from one divergence to the next."""
        values = [J(trial) for trial in tried[-self.rises - 1 :]]
        risen = all(b > a for a, b in zip(values, values[1:]))
        return 0 < self.rises < len(tried) and risen


def J(trial: dict) -> float:
    """R + lmbda D of a trial; infinite where its training diverged."""
    return math.inf if trial["J"] is None else trial["J"]


def explore(
    search: Search,
    evaluate: Callable[[float], dict],
    tried: Sequence[dict] = (),
    keep: Callable[[list], None] = lambda tried: None,
) -> list:
    """Tries one weight after the other.

    Args:
      search: the weights.
      evaluate: trains with a weight; gives at least `J`, None for a training that diverged.
      tried: trials of an earlier, interrupted call.
      keep: takes all trials after each new one.

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
    """The trial of the lowest J, of equal ones the one of the largest weight.

    Raises:
      ValueError: every training diverged.
    """
    found = min(tried, key=J)
    if found["J"] is None:
        raise ValueError("training diverged with every weight: lower the learning rate")
    return found


def verdict(search: Search, tried: Sequence[dict]) -> list:
    """Lines that say which weight is best and how far to believe it."""
    found = best(tried)
    lines = [f"Best weight: {found['weight']:g}, J = {found['J']:.5f}."]
    untried = search.weights()[len(tried) :]
    if untried:
        lines.append(
            f"Stopped early: J rose {search.rises} times in a row; not tried:"
            f" {', '.join(f'{weight:g}' for weight in untried)}."
        )
    if found is tried[0]:
        lines.append("It is the largest tried: a larger one may be better still.")
    if found is tried[-1]:
        lines.append("It is the smallest tried: a smaller one may be better still.")
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
    """FOLDER/exploration.json: what is searched for, with which experiment, and what was tried.

    Args:
      directory: the exploration's folder.
      search: the weights.
      experiment: whatever each weight is trained with, its `qr_weight` apart.
      options: further values that must be the same when a search goes on.

    Raises:
      ValueError: the folder holds another exploration; the message names what differs.
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
        self.tried = list(tried)
        folder.write_json(self._path, {"asked": self._asked, "tried": self.tried})


def read(directory: str) -> dict:
    """What `State` keeps: what was asked for as `asked`, the trials as `tried`.

    Raises:
      ValueError: the folder holds no exploration.
    """
    path = tf.io.gfile.join(directory, STATE)
    if not files.exists(path):
        raise ValueError(f"{directory} is no exploration: it has no {STATE}")
    return folder.read_json(path)


def _flat(asked: dict) -> dict:
    """Name -> value, the experiment's fields as this version has them."""
    fields = {**asked["experiment"], "qr_weight": 0.0}
    experiment = json.loads(Experiment.from_json(json.dumps(fields)).to_json())
    return {**experiment, **{k: v for k, v in asked.items() if k != "experiment"}}


def outcome(run_dir: str, distortion: str) -> dict:
    """A trial's numbers from its run: the epoch of the lowest J of the last stage.

    Args:
      run_dir: the run's folder.
      distortion: that of its loss, a key of `QUALITIES`.

    Returns:
      `J`, `R`, `D`, `error_reduction` [%] and `quality` [dB] of that epoch, and its `step`;
      `start_J` and `start_quality` from before the stage; `quality_of_step`, [step, dB] of that and
      of all epochs with a finite J. Where there are none, `J` alone, None.
    """
    records = history.read(run_dir)
    stage = [r for r in records if r["stage"] == records[-1]["stage"]]
    start, *epochs = (r for r in stage if math.isfinite(r["J"]) or r["step"] == 0)
    if not epochs:
        return {"J": None}  # as of a training that was ended for it
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
    """A row a weight, Markdown; what the paper's Table 1 has of one codec, and more.

    Args:
      tried: the trials.
      quality: what theirs is called.
    """
    head = (
        f"| weight | J | R [bpp] | D | {quality} [dB] | gain [dB] | error reduction [%] "
        "| best step |"
    )
    lines = [head, "|" + 8 * " ---: |"]
    chosen = best(tried)
    for trial in tried:
        mark = "**" if trial is chosen else ""
        if trial["J"] is None:
            lines.append(f"| {trial['weight']:g} | diverged |" + 6 * " |")
            continue
        gain = trial["quality"] - trial["start_quality"]
        lines.append(
            f"| {mark}{trial['weight']:g}{mark} | {trial['J']:.5f} | {trial['R']:.4f} |"
            f" {trial['D']:.5g} | {trial['quality']:.3f} | {gain:+.3f} |"
            f" {trial['error_reduction']:.2f} | {trial['step']} |"
        )
    return "\n".join(lines)


def plot(tried: Sequence[dict], quality: str, path: str) -> None:
    """J against the weight; quality against the steps of each weight, like the paper's Figure 2."""
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
    """Writes table and plot; gives the table and the verdict as text."""
    text = "\n\n".join([table(tried, quality), "\n".join(verdict(search, tried))])
    with tf.io.gfile.GFile(tf.io.gfile.join(directory, TABLE), "w") as f:
        f.write(f"# Weight of the feature distance\n\n{text}\n\n![exploration]({PLOT})\n")
    plot(tried, quality, tf.io.gfile.join(directory, PLOT))
    return text


def run_dir(directory: str, weight: float) -> str:
    """The folder of a weight's run."""
    return tf.io.gfile.join(directory, RUNS, f"{weight:g}")


def run_search(
    directory: str,
    search: Search,
    experiment: Experiment,
    *,
    train: Callable[[Experiment, str], None],
    patience: int,
    epoch_steps: int,
    warm_start: bool,
) -> str:
    """The whole exploration, from where it stands; gives the table and the verdict as text.

    Args:
      directory: the exploration's folder.
      search: the weights.
      experiment: what each weight is trained with, from `init_from`.
      train: trains an experiment in a folder, each stage until its loss stays up for `patience`
        epochs of `epoch_steps` steps, going on where it was stopped.
      patience, epoch_steps: recorded, so that a search goes on with the same.
      warm_start: start from the weight before.

    Raises:
      ValueError: no stage of the experiment decodes with a rectifier, for any steps, or it starts
        from nothing; the folder holds another exploration, or one from another checkpoint; or
        training diverged with every weight.
    """
    if not experiment.init_from:
        raise ValueError("an exploration needs init_from, the run from which every weight starts")
    stages = experiment.all_stages()
    if not any(s.steps for s in stages if s.trains_rectifier and s.rectified):
        raise ValueError(
            "an exploration needs steps of a stage that decodes with the rectifier it trains"
            f" (qr_predictive), and a rectifier_width; got {experiment.rectifier_width},"
            f" {', '.join(f'{s.name}_steps={s.steps}' for s in stages)}"
        )
    start = hosts.identity(checkpoint.newest_readable(experiment.init_from))
    options = {
        "patience": patience,
        "epoch_steps": epoch_steps,
        "warm_start": warm_start,
        "checkpoint of init_from": start and list(start),  # as JSON keeps it
    }
    state = State(directory, search, experiment, options)

    def evaluate(weight: float) -> dict:
        earlier = [trial["weight"] for trial in state.tried if trial["J"] is not None]
        start = experiment.init_from
        if warm_start and earlier:
            start = run_dir(directory, earlier[-1])
        logging.info("Weight %g, from %s", weight, start)
        keras.backend.clear_session()
        gc.collect()  # the trainer before, its graphs and its pictures hold each other
        one = dataclasses.replace(experiment, qr_weight=weight, init_from=start)
        try:
            train(one, run_dir(directory, weight))
        except run.TrainingDiverged as error:
            logging.warning("Weight %g: %s", weight, error)
            return {"J": None}
        return outcome(run_dir(directory, weight), experiment.distortion)

    tried = explore(search, evaluate, state.tried, state.keep)
    quality, _ = QUALITIES[experiment.distortion]
    return report(directory, search, tried, quality)
