"""Tests docs/paper.md: it lists every table and figure, and everything that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from absl import flags

from tfquant.analysis import cli
from tfquant.analysis.registry import EXPERIMENTS
from tfquant.commands import evaluate, experiment_flags, flagfiles, sweep, sweep_checks, train
from tfquant.evaluation import paper_tables
from tfquant.evaluation.sweep import Grid

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")

FIRST_PAPER = [
    "Table I", "Table II", "Table III", "Table IV", "Table V", "Table VI", "Table VII",
    "Table VIII", "Table IX", "Table X", "Table XI",
    "Fig. 1", "Fig. 2a", "Fig. 2b", "Fig. 2c", "Fig. 3", "Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7",
    "Fig. 8a", "Fig. 8b",
]  # fmt: skip
RECTIFIER_PAPER = [
    *(f"QR Fig. {number}" for number in range(1, 6)),
    *(f"QR Table {number}" for number in range(1, 4)),
]
HOLDS = ("yes", "in part", "no", "not run", "no claim")
DEFINE = {
    "train.py": train.define_flags,
    "eval.py": evaluate.define_flags,
    "sweep.py": sweep.define_flags,
}


def summary() -> list[list[str]]:
    """Returns the rows of the two summary tables: [subject, claim, result, details]."""
    text = PAGE.partition("\n## Summary\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [row for row in rows if row[0].strip("-")]


def blocks() -> list[str]:
    return re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def variables() -> dict[str, str]:
    return dict(re.findall(r'^(\w+)="(.*)"$', "".join(blocks()), re.MULTILINE))


def commands() -> list[list[str]]:
    """Returns the page's commands, split as in a shell.

    They are [python, program, ...] or [tfquant, analyze, ...].
    """
    text = "".join(blocks()).replace("\\\n", " ")
    start = ("python", "PYTHONPATH", "tfquant analyze")
    lines = [line for line in text.splitlines() if line.startswith(start)]
    lines += re.findall(r"`((?:(?:PYTHONPATH=. )?python|tfquant analyze) [^`]*)`", PAGE)
    found = []
    for line in lines:
        line = re.sub(r"^PYTHONPATH=\. ", "", line)
        line = re.sub(
            r"\$(\w+)", lambda m: " ".join(map(shlex.quote, variables()[m[1]].split())), line
        )
        found.append(shlex.split(line))
    return found


def sweeps() -> list[list[str]]:
    return [words for words in commands() if words[1] == "sweep.py"]


def values_of(program: str, arguments: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    DEFINE[program](values)
    values(["program", *flagfiles.expanded(arguments)])
    return values


def grid_of(words: list[str]) -> tuple[flags.FlagValues, Grid]:
    values = values_of("sweep.py", words[2:])
    base = flagfiles.expanded([f"--flagfile={values.base}"])
    grid = Grid.parse(
        values.grid, values.lmbda, values.follow, values.seeds, values.choose_alpha, base
    )
    return values, grid


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_table_and_figure_has_one_row():
    assert sorted(row[0] for row in summary()) == sorted(FIRST_PAPER + RECTIFIER_PAPER)


@pytest.mark.parametrize("row", summary(), ids=lambda row: row[0])
def test_a_row_has_a_claim_a_verdict_and_a_section(row):
    _, claim, holds, details = row
    assert claim.endswith(".")
    assert holds.split(",")[0] in HOLDS
    (anchor,) = re.findall(r"\]\(#([\w-]+)\)", details)
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert anchor in anchors


def test_every_folder_of_results_and_file_that_the_page_names_exists():
    paths = re.findall(r"\b((?:results|configs|tests|benchmarks|tfquant)/[\w./]*\w)", PAGE)
    paths += [
        f"docs/{target.partition('#')[0]}"
        for target in re.findall(r"\]\(([^)#]+)\)", PAGE)
        if "://" not in target
    ]
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_folder_of_results_on_the_papers_is_named():
    folders = {path.parent.name for path in ROOT.glob("results/*/README.md")}
    others = {"precision_two_cores", "decode_anywhere"}
    assert folders - set(re.findall(r"results/(\w+)", PAGE)) == others


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[1:])[:60])
def test_a_command_names_a_program_and_flags_that_exist(words):
    _, program, *arguments = words
    if program == "analyze":
        assert cli._parser().parse_args(arguments).name in EXPERIMENTS
    elif program in DEFINE:
        values_of(program, arguments)
    else:
        text = (ROOT / program).read_text()
        for flag in re.findall(r"--\w+", " ".join(arguments)):
            assert f'"{flag}"' in text


def test_every_flag_that_the_page_names_exists():
    values = flags.FlagValues()
    for define in (train.define_flags, evaluate.define_flags):
        for name, flag in values_without_defaults(define).items():
            if name not in values:
                values[name] = flag
    known = {f"--{name}" for name in values} | {
        f"--{name}" for name in values_without_defaults(sweep.define_flags)
    }
    known |= {option for action in cli._parser()._actions for option in action.option_strings}
    named = set(re.findall(r"`(--\w+)", PAGE))
    assert named <= known


def values_without_defaults(define) -> dict:
    values = flags.FlagValues()
    define(values)
    return {name: values[name] for name in values}


@pytest.mark.parametrize("words", sweeps(), ids=lambda words: words[-1])
def test_a_sweep_trains_experiments_that_exist(words):
    values, grid = grid_of(words)
    for run in grid.runs():
        if run.lmbda not in (grid.lmbdas[0], grid.lmbdas[-1]):
            continue
        arguments = [f"--flagfile={values.base}", "--model_dir=x", f"--lmbda={run.lmbda}"]
        arguments += [f"--{name}={value}" for name, value in run.flags.items()]
        experiment_flags.experiment(values_of("train.py", arguments))


NUMERALS = {
    "3": "III",
    "5": "V",
    "6": "VI",
    "7": "VII",
    "8": "VIII",
    "9": "IX",
    "10": "X",
    "11": "XI",
}
OF_TABLES = [words for words in sweeps() if re.search(r"table_(3|[5-9]|1\d)", words[-1])]


@pytest.mark.parametrize("words", OF_TABLES, ids=lambda words: words[-1])
def test_every_cell_of_a_tables_sweep_stands_beside_the_number_of_the_table(words):
    """Tests all settings of each run, except for `sua_ste` of cheng_*, which did not converge."""
    table = NUMERALS[re.search(r"table_(\d+)", words[-1])[1]]
    values, grid = grid_of(words)
    base = flagfiles.expanded([f"--flagfile={values.base}"])
    runs = grid.runs()
    for cell in grid.cells():
        of_cell = {run.lmbda: run for run in runs if run.cell == cell}
        curve = [
            experiment_flags.experiment(
                sweep_checks.parsed(
                    [*base, f"--lmbda={lmbda}", *(f"--{k}={v}" for k, v in run.flags.items())]
                )
            )
            for lmbda, run in of_cell.items()
        ]
        images = {paper_tables.AVERAGE, ""}
        found = {row.table for row in paper_tables.beside(curve, map(float, of_cell), images).rows}
        if not (table == "IX" and cell["plan"] == "sua_ste"):
            assert table in found, cell


def test_the_page_counts_the_runs_of_each_sweep():
    """Tests sentences such as `The sweep has 36 runs` before the commands."""
    counted = []
    for text in re.findall(r"(?:sweep|sweeps)\b[^.:;]*? (?:has|have) ([\d and]+) runs", PAGE):
        counted += [int(number) for number in re.findall(r"\d+", text)]
    of_the_tables = [words for words in sweeps() if "two_cores" not in words[-1]]
    assert counted == [len(grid_of(words)[1].runs()) for words in of_the_tables]
    assert f"The sweeps are {sum(counted)} runs in all" in PAGE


@pytest.mark.parametrize("table", ["III", "V", "VI", "VII", "VIII", "IX", "X", "XI"])
def test_the_papers_numbers_are_those_of_the_table(table):
    section = PAGE.partition(f"\n### Table {table}\n")[2].partition("\n### ")[0]
    pairs = re.findall(r"(-?\d+\.\d\d) / (-?\d+\.\d\d)", section)
    published = {(row.joint, row.post) for row in paper_tables.rows() if row.table == table}
    assert pairs
    assert {tuple(map(float, pair)) for pair in pairs} <= published
