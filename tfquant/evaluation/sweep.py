"""Data of a grid of experiments: its cells, their runs, and the pictures to measure.

A cell is one value for each flag of the grid. At every `lmbda`, it is trained jointly and then
post-trained, so it has two rate-distortion curves. Tables III to XI of arXiv 2309.17051 are such
grids with BD-rates.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Callable

from tfquant import files
from tfquant.data import sources
from tfquant.evaluation import EvaluationError, report
from tfquant.evaluation.paper_tables import AVERAGE
from tfquant.export import manifest_file
from tfquant.training import folder as run_folder
from tfquant.training import history
from tfquant.training.experiment import Experiment

STAGES = ("joint", "post")
REPORT = "report"

# Defaults of the entries that a sweep.json of an earlier version lacks, for every key.
_EARLIER: dict[str, dict] = {"follow": {}}
_PICTURES = {"train_images", "images"}  # entries of sweep.json that name pictures
_OF_PLAN = ("plan", "rate_branch", "distortion_branch", "context_branch")
_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A set of pictures.

    Attributes:
      name: name in tables.
      images: pictures as for eval.py.
      folder: folder of the reports on the set, inside the folder of a run.
    """

    name: str
    images: str
    folder: str

    @classmethod
    def parse(cls, text: str, option: str = "images") -> list[Pictures]:
        """Returns the sets in `NAME=IMAGES;NAME=IMAGES`, the value of a flag.

        A set without name is named after its file or folder. A single set may have any name.

        Raises:
          EvaluationError: there is no set, or one of several has no name, the name of their average
            or that of another one; upper case makes no difference.
        """
        found: dict[str, Pictures] = {}
        taken = {AVERAGE}
        parts = list(filter(None, (part.strip() for part in text.split(";"))))
        for part in parts:
            title, equals, images = part.partition("=")
            if not equals or not _NAME.fullmatch(title):
                title, images = Path(part).stem, part
            if title.lower() in taken and len(parts) > 1:
                raise EvaluationError(f"--{option}: the name {title!r} is taken; got {text!r}")
            taken.add(title.lower())
            found[title] = cls(title, images, f"{REPORT}_{title}" if found else REPORT)
        if not found:
            raise EvaluationError(f"--{option}: expected NAME=IMAGES;NAME=IMAGES; got {text!r}")
        nameless = [title for title in found if not _NAME.fullmatch(title)]
        if nameless and len(found) > 1:
            raise EvaluationError(
                f"--{option}: several sets need names, as in kodak=A;tecnick=B; got {text!r}"
            )
        return list(found.values())

    def report(self, run: Path) -> dict[str, Any] | None:
        """Returns the report of a run on the set, or None if there is no complete one."""
        try:
            found = json.loads((run / self.folder / report.JSON).read_bytes())
        except (OSError, ValueError):  # also a file that was not written to its end
            return None
        return found if isinstance(found, dict) and "models" in found else None


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of both stages.

    Attributes:
      cell: map from flag to value, the cell of the grid.
      lmbda: value of `--lmbda`, as written.
      flags: map from flag of train.py to value, all that the sweep sets for this run except lmbda.
      seed: value of `--seed`, as written; empty if the sweep sets none.
      alpha: value of `--alpha_max`, one of the candidates; empty if there is no choice.
      below: folders from the folder of its cell and lmbda to the folder of the run.
    """

    cell: dict[str, str]
    lmbda: str
    flags: dict[str, str]
    seed: str = ""
    alpha: str = ""
    below: tuple[str, ...] = ()

    def folder(self, sweep: Path) -> Path:
        """Returns the run's folder, which has `joint/`, `post/` and `report/`, inside the
        sweep's.

        A folder that exists is also found if its numbers are spelled in another way, such as
        `lmbda=.0018` and `lmbda=0.0018`.
        """
        found = sweep
        for part in (name(self.cell), f"lmbda={self.lmbda}", *self.below):
            found = _existing(found, part)
        return found

    def __str__(self) -> str:
        words = [name(self.cell), f"lmbda={self.lmbda}"]
        words += [f"seed={self.seed}"] if self.seed else []
        words += [f"alpha_max={self.alpha}"] if self.alpha else []
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Definition of the experiments of a sweep.

    Attributes:
      axes: map from flag of train.py to its values, as written.
      lmbdas: values of `--lmbda`, as written. A BD-rate needs at least two, unless each model has a
        range of rates and is a whole curve; then there is one.
      follow: map from flag of train.py to its values, as written, one for each of `lmbdas`.
      seeds: values of `--seed`, as written. If empty, only the seed of the base is used.
      alphas: values of `--alpha_max` from which annealed plans choose at each lmbda, as written. If
        empty, there is no choice.
      base: map from flag of train.py to value, shared by all cells.
      included: map from each value of the flag `flagfile` of `axes` and `follow` to the flags of
        this file, except for those that the sweep replaces.

    Raises:
      EvaluationError: an axis has no values or the sweep sets it itself, a value appears twice (in
        any spelling), a flag that follows lmbda has too few or too many values or is also an axis,
        a seed, a temperature or an lmbda is not a possible number, there are several lmbdas
        although each model has a range of rates, or a flagfile of the grid sets this range.
    """

    axes: dict[str, tuple[str, ...]]
    lmbdas: tuple[str, ...]
    follow: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    seeds: tuple[str, ...] = ()
    alphas: tuple[str, ...] = ()
    base: dict[str, str] = dataclasses.field(default_factory=dict)
    included: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    _OWN = ("lmbda", "model_dir", "stages", "init_from", "train_images", "explore_qr")

    def __post_init__(self) -> None:
        for flag, values in self.axes.items():
            if not values or "" in values or len(set(map(_meaning, values))) < len(values):
                raise EvaluationError(
                    f"--grid: {flag} takes distinct values, such as {flag}=a,b; got"
                    f" {','.join(values)!r}"
                )
        if not self.lmbdas or not _are_distinct(self.lmbdas, _positive):
            raise EvaluationError(
                "--lmbda takes distinct values above 0, such as 0.0067,0.025; got"
                f" {','.join(self.lmbdas)!r}"
            )
        if self.has_ranges and len(self.lmbdas) > 1:
            raise EvaluationError(
                "--lmbda takes one value if --base has lmbda_range, because each model is then a"
                f" whole curve; got {','.join(self.lmbdas)!r}"
            )
        for flag, values in self.follow.items():
            if len(values) != len(self.lmbdas) or "" in values:
                raise EvaluationError(
                    f"--follow: {flag} takes a value for each of the {len(self.lmbdas)} of --lmbda;"
                    f" got {','.join(values)!r}"
                )
            if flag in self.axes:
                raise EvaluationError(f"--follow: {flag} is in --grid as well")
        if not _are_distinct(self.seeds, int):
            raise EvaluationError(
                f"--seeds takes distinct numbers, such as 1,2,3; got {','.join(self.seeds)!r}"
            )
        if not _are_distinct(self.alphas, _positive):
            raise EvaluationError(
                "--choose_alpha takes distinct numbers above 0, such as 4,8,12; got"
                f" {','.join(self.alphas)!r}"
            )
        own = [*self._OWN, *["seed"] * bool(self.seeds), *["alpha_max"] * bool(self.alphas)]
        for option, flags in (("grid", self.axes), ("follow", self.follow)):
            for flag in own:
                if flag in flags:
                    raise EvaluationError(f"--{option}: {flag} is set by the sweep itself")
        for path, contents in self.included.items():
            if contents.get("lmbda_range"):
                raise EvaluationError(f"--grid: {path} has lmbda_range, which must be in --base")

    @classmethod
    def parse(
        cls,
        text: str,
        lmbdas: Iterable[str],
        follow: str = "",
        seeds: Iterable[str] = (),
        alphas: Iterable[str] = (),
        base: Iterable[str] = (),
        read_file: Callable[[str, str], Iterable[str]] = lambda option, path: (),
    ) -> Grid:
        """Returns the grid of `flag=value,value;flag=value,value`; `follow` has the same form.

        Args:
          text: the axes.
          lmbdas, seeds, alphas: as in the class.
          follow: the flags that follow lmbda.
          base: a list of train.py's arguments, `--flag=value`. The last value of a flag counts.
          read_file: function from (`grid` or `follow`, path of a flagfile there) to the arguments
            in the file, `--flag=value` or `--flag`. Without it, the files count as empty.
        """
        axes, following = _axes(text, "grid"), _axes(follow, "follow")
        included = {}
        for option, flags in (("grid", axes), ("follow", following)):
            for path in flags.get("flagfile", ()):
                included[path] = _flags(read_file(option, path))
        return cls(
            axes, tuple(lmbdas), following, tuple(seeds), tuple(alphas), _flags(base), included
        )

    @property
    def has_ranges(self) -> bool:
        """True if each model has a range of rates, so that one lmbda gives a whole curve."""
        return bool(self.base.get("lmbda_range"))

    def cells(self) -> list[dict[str, str]]:
        """Returns every combination as a list of dicts from flag to value."""
        return [dict(zip(self.axes, values)) for values in itertools.product(*self.axes.values())]

    def followed(self, lmbda: str) -> dict[str, str]:
        """Returns the flags that follow lmbda, at one of its values."""
        place = self.lmbdas.index(lmbda)
        return {flag: values[place] for flag, values in self.follow.items()}

    def runs(self) -> list[Run]:
        """Returns all runs, cell by cell."""
        return [
            self._run(cell, lmbda, seed, alpha)
            for cell in self.cells()
            for lmbda in self.lmbdas
            for seed in self.seeds or ("",)
            for alpha in self._alphas(
                {**self.expanded(self.followed(lmbda)), **self.expanded(cell)}
            )
        ]

    def expanded(self, flags: dict[str, str]) -> dict[str, str]:
        """Returns flags with the contents of a flagfile in its place. Later flags replace earlier
        ones.
        """
        found: dict[str, str] = {}
        for flag, value in flags.items():
            found.update(self.included[value] if flag == "flagfile" else {flag: value})
        return found

    def _alphas(self, flags: dict[str, str]) -> tuple[str, ...]:
        """Returns the temperatures from which a run chooses, or one empty string without a
        choice.
        """
        return self.alphas if self.alphas and _is_annealed({**self.base, **flags}) else ("",)

    def _run(self, cell: dict[str, str], lmbda: str, seed: str, alpha: str) -> Run:
        own = {"seed": seed, "alpha_max": alpha}
        own = {flag: value for flag, value in own.items() if value}
        flags = {**self.expanded(self.followed(lmbda)), **self.expanded(cell)}
        without = {**self.base, **flags}
        # A run with the base's value has the same folder as in a sweep without this flag, so that
        # the sweep can be extended.
        below = [
            f"{flag}={value}"
            for flag, value in own.items()
            if float(value) != float(without.get(flag, getattr(Experiment, flag)))
        ]
        return Run(cell, lmbda, {**flags, **own}, seed, alpha, tuple(below))


def _flags(arguments: Iterable[str]) -> dict[str, str]:
    """Returns the flags in arguments `--flag=value`, `--flag` or `--noflag`, as flag -> value."""
    found = {}
    for argument in arguments:
        name_, equals, value = argument.lstrip("-").partition("=")
        if not equals:
            value = "false" if name_.startswith("no") else "true"
            name_ = name_.removeprefix("no")
        found[name_] = value
    return found


def _is_annealed(flags: dict[str, str]) -> bool:
    """Returns true if alpha affects a run; false also for flags that train.py rejects."""
    fields: dict[str, Any] = {name: flags[name] for name in _OF_PLAN if name in flags}
    try:
        return Experiment(**fields).joint_plan().annealed
    except ValueError:
        return False


def _are_distinct(values: Sequence[str], number: Callable[[str], float]) -> bool:
    """Returns true if the texts are distinct numbers, in any spelling."""
    try:
        return len({number(value) for value in values}) == len(values)
    except ValueError:
        return False


def _positive(text: str) -> float:
    """Returns the number of a text. A ValueError says that it is not positive and finite."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not a positive number")
    return value


def _meaning(text: str) -> str | float:
    """Returns the number that a text spells, or else the text."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _existing(parent: Path, part: str) -> Path:
    """Returns the path of `flag=value+flag=value` in a folder, also if the numbers of an existing
    one are spelled in another way.
    """

    def meaning(text: str) -> list[tuple[str, str | float]]:
        pairs = [pair.partition("=") for pair in re.split(r"\+(?=[A-Za-z]\w*=)", text)]
        return [(flag, _meaning(value)) for flag, _, value in pairs]

    if (parent / part).exists() or not parent.is_dir():
        return parent / part
    same = [each for each in sorted(os.listdir(parent)) if meaning(each) == meaning(part)]
    return parent / (same[0] if same else part)


def _axes(text: str, option: str) -> dict[str, tuple[str, ...]]:
    axes: dict[str, tuple[str, ...]] = {}
    for axis in filter(None, (part.strip() for part in text.split(";"))):
        flag, equals, values = axis.partition("=")
        if not equals or flag in axes:
            raise EvaluationError(
                f"--{option}: expected flag=value,value;flag=value, each flag once; got {text!r}"
            )
        axes[flag] = tuple(value.strip() for value in values.split(","))
    return axes


def is_exported(stage: Path) -> bool:
    """Returns true if the folder of a stage has an exported model."""
    return (stage / manifest_file.FOLDER / manifest_file.MANIFEST).exists()


def has_ended(stage: Path) -> bool:
    """Returns true if a stage was trained to its end and exported.

    A user can export a run before its end. If the experiment cannot be read, because another
    version of tfquant made the run, the exported model counts.

    Args:
      stage: folder of the stage in a run, named after it.

    Raises:
      ValueError, OSError: `history.json` cannot be read.
    """
    if not is_exported(stage):
        return False
    try:
        steps = getattr(run_folder.read_experiment(str(stage)), f"{stage.name}_steps")
    except ValueError:
        return True
    records = [r for r in history.read(str(stage)) if r["stage"] == stage.name]
    return not records or records[-1].get("step", steps) >= steps


def claim(
    folder: Path,
    asked: dict[str, Any],
    extendable: dict[str, dict[str, Any]] | None = None,
    read_base: Callable[[str], Any] | None = None,
) -> None:
    """Creates the sweep's folder, or checks that an existing one belongs to the same sweep.

    Args:
      folder: folder of the sweep.
      asked: map from name to value. All values must stay the same, except for the spelling of the
        pictures.
      extendable: map from name to {key: value}. Keys may be added and omitted later. The value of a
        key must stay the same. A number may be spelled in another way as a key.
      read_base: converts `base` of an earlier version, the text of a flagfile, to its present form.

    Raises:
      ValueError: the folder belongs to another sweep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    kept = extendable or {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if read_base is not None and isinstance(before.get("base"), str):
            before["base"] = read_base(before["base"])
        kept = {}
        for title, values in (extendable or {}).items():
            earlier = {key: _EARLIER[title] for key in values} if title in _EARLIER else {}
            there = before.pop(title, earlier)
            spelled = {_meaning(key): key for key in there}
            values = {spelled.get(_meaning(key), key): value for key, value in values.items()}
            asked_again = {key: value for key, value in values.items() if key in there}
            known = {key: value for key, value in there.items() if key in values}
            files.check_owner(folder, "--out", "sweep", {title: asked_again}, {title: known})
            kept[title] = {**there, **values}
        for each in _PICTURES & asked.keys() & before.keys():
            if sources.canonical(asked[each]) == sources.canonical(before[each]):
                asked = {**asked, each: before[each]}
        files.check_owner(folder, "--out", "sweep", asked, before)
    path.write_text(json.dumps({**asked, **kept}, indent=1) + "\n", encoding="utf-8")


def name(cell: dict[str, str]) -> str:
    """Returns text such as `plan=mix+joint_sigma_bound=0.11`, or `all` for the only cell.

    It is also a folder's name. It has no commas, because these separate folders on eval.py's
    command line.
    """
    return "+".join(f"{flag}={value}" for flag, value in cell.items()).replace("/", "_") or "all"
