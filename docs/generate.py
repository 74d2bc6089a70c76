"""Writes the parts of the documentation that are made from the code.

    python docs/generate.py

- the flag tables in `README.md` and `docs/flags.md`, from the fields of `Experiment` and from
  `models.OPTIONS`
- the table of plans in `docs/surrogates.md`, from `PLANS`
- the plots in `docs/images/surrogates/`, from `tfquant.quantization.surrogates`

`tests/docs` fails if a committed part differs from what this script writes.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import surrogate_plots  # noqa: E402

from tfquant import models  # noqa: E402
from tfquant.quantization.plans import PLANS  # noqa: E402
from tfquant.training.experiment import Experiment  # noqa: E402

# The flags in README's table. `docs/flags.md` has all.
README_FLAGS = (
    "codec", "N", "M", "plan", "rate_branch", "distortion_branch", "lmbda", "distortion",
    "joint_steps", "post_steps", "batch_size", "crop", "train_images", "alpha_max",
    "stop_gradient", "start", "precision",
)  # fmt: skip
# Registries with a table of their own in the documentation, so their keys are not listed again.
_ELSEWHERE = ("codec", "plan")


class Flag(NamedTuple):
    """One row of a table of flags: all texts as they are printed, in Markdown."""

    name: str
    default: str
    meaning: str


def flags() -> dict[str, Flag]:
    """Maps the name of each flag that describes an experiment to its row."""
    found = {}
    for field in dataclasses.fields(Experiment):
        if field.metadata:
            found[field.name] = Flag(field.name, _value(field.default), _meaning(field))
        if field.name == "codec":
            for name, (kind, help) in models.OPTIONS.items():
                choices = f" One of {_listed(kind)}." if isinstance(kind, list) else ""
                found[name] = Flag(name, "", help + choices)
    return found


def _meaning(field) -> str:
    choices = list(field.metadata["choices"])
    if not choices or field.name in _ELSEWHERE:
        return field.metadata["help"]
    return f"{field.metadata['help']} One of {_listed(choices)}."


def _listed(choices) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)


def _value(value) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def flag_table(names) -> str:
    """Markdown table of the named flags."""
    known = flags()
    lines = ["| flag | default | meaning |", "|---|---|---|"]
    for flag in (known[name] for name in names):
        cells = (f"`--{flag.name}`", flag.default, flag.meaning)
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    return "\n".join(lines) + "\n"


def plan_table() -> str:
    """Markdown table of the named plans."""
    lines = ["| plan | rate | distortion |", "|---|---|---|"]
    lines += [f"| `{name}` | `{plan.rate}` | `{plan.distortion}` |" for name, plan in PLANS.items()]
    return "\n".join(lines) + "\n"


def with_table(text: str, what: str, table: str) -> str:
    """Puts a table between the two comments of a page that mark its place.

    Args:
      text: the page.
      what: the word in the comments, such as "flags".
      table: the table.
    """
    found, count = re.subn(
        rf"(<!-- {what}: [^\n]*-->\n).*?(<!-- end of {what} -->)",
        lambda marks: f"{marks[1]}\n{table}\n{marks[2]}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"the page has {count} places for a table of {what} instead of one")
    return found


def pages() -> dict[Path, str]:
    """Maps each page that has a table to its text, the table renewed."""
    tables = {
        "README.md": ("flags", flag_table(README_FLAGS)),
        "docs/flags.md": ("flags", flag_table(flags())),
        "docs/surrogates.md": ("plans", plan_table()),
    }
    return {
        ROOT / name: with_table((ROOT / name).read_text(), what, table)
        for name, (what, table) in tables.items()
    }


def main() -> None:
    """Writes all generated parts."""
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
    for path in surrogate_plots.write():
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
