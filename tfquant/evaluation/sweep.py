"""A grid of experiments as data: its cells, their runs, and the pictures to measure on.

A cell is one value for each flag of the grid; it is trained at every `lmbda`, jointly and then
post-trained from that, which gives it two rate-distortion curves. Tables III to XI of arXiv
2309.17051 are such grids, told in BD-rates.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

from tfquant import files
from tfquant.evaluation import EvaluationError
from tfquant.evaluation.paper_tables import AVERAGE
from tfquant.training.experiment import Experiment

STAGES = ("joint", "post")
REPORT = "report"

# What a sweep.json of an earlier version means by its silence, at every key.
_EARLIER = {"follow": {}}
_OF_PLAN = ("plan", "rate_branch", "distortion_branch", "context_branch")
_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A set of pictures.

    Attributes:
      name: as tables show it.
      images: as eval.py takes it.
      folder: of the reports on it, in the folder of a run.
    """

    name: str
    images: str
    folder: str

    @classmethod
    def parse(cls, text: str) -> list:
        """The sets in `NAME=IMAGES;NAME=IMAGES`.

        A set without name is named after its file or folder.

        Raises:
          EvaluationError: there is none, two have one name or one that of the average, or several
            lack a name.
        """
        found = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            title, equals, images = part.partition("=")
            if not equals or not _NAME.fullmatch(title):
                title, images = Path(part).stem, part
            if title in (*found, AVERAGE):
                raise EvaluationError(f"--images: the name {title!r} is taken; got {text!r}")
            found[title] = cls(title, images, f"{REPORT}_{title}" if found else REPORT)
        if not found:
            raise EvaluationError(f"--images: expected NAME=IMAGES;NAME=IMAGES; got {text!r}")
        nameless = [title for title in found if not _NAME.fullmatch(title)]
        if nameless and len(found) > 1:
            raise EvaluationError(
                f"--images: several sets need names, as in kodak=A;tecnick=B; got {text!r}"
            )
        return list(found.values())


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of both stages.

    Attributes:
      cell: flag -> value, the cell of the grid.
      lmbda: its `--lmbda`, as written.
      flags: flag of train.py -> value, all that the sweep sets for this run but lmbda.
      seed: its `--seed`, as written; empty where the sweep sets none.
      alpha: its `--alpha_max`, one of those to choose from; empty where there is no choice.
      below: the folders that lead to it from that of its cell and lmbda.
    """

    cell: dict
    lmbda: str
    flags: dict
    seed: str = ""
    alpha: str = ""
    below: tuple = ()

    def folder(self, sweep: Path) -> Path:
        """The run's folder in that of the sweep: `joint/`, `post/`, `report/`."""
        return sweep.joinpath(name(self.cell), f"lmbda={self.lmbda}", *self.below)

    def __str__(self):
        words = [name(self.cell), f"lmbda={self.lmbda}"]
        words += [f"seed={self.seed}"] if self.seed else []
        words += [f"alpha_max={self.alpha}"] if self.alpha else []
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Which experiments.

    Attributes:
      axes: flag of train.py -> its values, as written.
      lmbdas: values of `--lmbda`, as written; two at least make a curve.
      follow: flag of train.py -> its values, as written, one for each of `lmbdas`.
      seeds: values of `--seed`, as written; none: that of the base alone.
      alphas: values of `--alpha_max` that annealed plans choose from at each lmbda, as written;
        none: no choice.
      base: flag of train.py -> value, what all cells share.

    Raises:
      EvaluationError: an axis without values or one that the sweep sets itself; a value twice; a
        flag that follows lmbda with too few or too many values, or that is an axis as well; a seed
        or a temperature that is no number.
    """

    axes: dict
    lmbdas: tuple
    follow: dict = dataclasses.field(default_factory=dict)
    seeds: tuple = ()
    alphas: tuple = ()
    base: dict = dataclasses.field(default_factory=dict)

    _OWN = ("lmbda", "model_dir", "stages", "init_from", "train_images")

    def __post_init__(self):
        for flag, values in {**self.axes, "lmbda": self.lmbdas}.items():
            if not values or "" in values or len(set(values)) < len(values):
                raise EvaluationError(
                    f"--grid: {flag} takes distinct values, such as {flag}=a,b; got"
                    f" {','.join(values)!r}"
                )
        for flag, values in self.follow.items():
            if len(values) != len(self.lmbdas) or "" in values:
                raise EvaluationError(
                    f"--follow: {flag} takes a value for each of the {len(self.lmbdas)} of --lmbda;"
                    f" got {','.join(values)!r}"
                )
            if flag in self.axes:
                raise EvaluationError(f"--follow: {flag} is in --grid as well")
        _check_numbers("seeds", self.seeds, int)
        _check_numbers("choose_alpha", self.alphas, float)
        own = [*self._OWN, *["seed"] * bool(self.seeds), *["alpha_max"] * bool(self.alphas)]
        for option, flags in (("grid", self.axes), ("follow", self.follow)):
            for flag in own:
                if flag in flags:
                    raise EvaluationError(f"--{option}: {flag} is set by the sweep itself")

    @classmethod
    def parse(cls, text: str, lmbdas, follow: str = "", seeds=(), alphas=(), base=()) -> Grid:
        """From `flag=value,value;flag=value,value`, and what follows lmbda in the same form.

        The base is train.py's arguments, `--flag=value`, of which the last of a flag counts.
        """
        given = filter(None, (re.fullmatch(r"--?(\w+)=(.*)", argument) for argument in base))
        return cls(
            _axes(text, "grid"),
            tuple(lmbdas),
            _axes(follow, "follow"),
            tuple(seeds),
            tuple(alphas),
            dict(match.groups() for match in given),
        )

    def cells(self) -> list:
        """Every combination: a list of dicts, flag -> value."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]

    def followed(self, lmbda: str) -> dict:
        """The flags that follow lmbda, at one of its values."""
        place = self.lmbdas.index(lmbda)
        return {flag: values[place] for flag, values in self.follow.items()}

    def runs(self) -> list:
        """All runs, cell by cell."""
        return [
            self._run(cell, lmbda, seed, alpha)
            for cell in self.cells()
            for lmbda in self.lmbdas
            for seed in self.seeds or ("",)
            for alpha in self._alphas({**self.followed(lmbda), **cell})
        ]

    def _alphas(self, flags: dict) -> tuple:
        """The temperatures that a run chooses from: one empty one where it has no choice."""
        return self.alphas if self.alphas and _is_annealed({**self.base, **flags}) else ("",)

    def _run(self, cell: dict, lmbda: str, seed: str, alpha: str) -> Run:
        own = {"seed": seed, "alpha_max": alpha}
        own = {flag: value for flag, value in own.items() if value}
        # The base's own value lies where a sweep of that value alone has it, which thus goes on.
        below = [
            f"{flag}={value}"
            for flag, value in own.items()
            if float(value) != float(self.base.get(flag, getattr(Experiment, flag)))
        ]
        flags = {**self.followed(lmbda), **cell, **own}
        return Run(cell, lmbda, flags, seed, alpha, tuple(below))


def _is_annealed(flags: dict) -> bool:
    """Whether alpha matters to a run; not for flags that train.py will refuse."""
    fields = {name: flags[name] for name in _OF_PLAN if name in flags}
    try:
        return Experiment(**fields).joint_plan().annealed
    except ValueError:
        return False


def _check_numbers(option: str, values, number) -> None:
    try:
        distinct = {number(value) for value in values}
    except ValueError:
        distinct = ()
    if len(distinct) < len(values):
        raise EvaluationError(
            f"--{option} takes distinct numbers, such as 1,2,3; got {','.join(values)!r}"
        )


def _axes(text: str, option: str) -> dict:
    axes = {}
    for axis in filter(None, (part.strip() for part in text.split(";"))):
        flag, equals, values = axis.partition("=")
        if not equals or flag in axes:
            raise EvaluationError(
                f"--{option}: expected flag=value,value;flag=value, each flag once; got {text!r}"
            )
        axes[flag] = tuple(value.strip() for value in values.split(","))
    return axes


def claim(folder: Path, asked: dict, extendable: dict | None = None) -> None:
    """Makes the sweep's folder, for what is asked: cells may be added later, these things not.

    Args:
      folder: of the sweep.
      asked: name -> value; each has to stay what it was.
      extendable: name -> {key: value}; keys may be added and left out later, the value of a key
        has to stay what it was.

    Raises:
      ValueError: the folder is another sweep's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    kept = extendable or {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        kept = {}
        for title, values in (extendable or {}).items():
            earlier = {key: _EARLIER[title] for key in values} if title in _EARLIER else {}
            there = before.pop(title, earlier)
            asked_again = {key: value for key, value in values.items() if key in there}
            known = {key: value for key, value in there.items() if key in values}
            files.check_owner(folder, "--out", "sweep", {title: asked_again}, {title: known})
            kept[title] = {**there, **values}
        files.check_owner(folder, "--out", "sweep", asked, before)
    path.write_text(json.dumps({**asked, **kept}, indent=1) + "\n", encoding="utf-8")


def name(cell: dict) -> str:
    """`plan=mix+joint_sigma_bound=0.11`, `all` for the only cell.

    Also a folder's name: without the commas that separate folders on eval.py's command line.
    """
    return "+".join(f"{flag}={value}" for flag, value in cell.items()).replace("/", "_") or "all"
