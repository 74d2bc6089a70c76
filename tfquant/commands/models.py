"""`tfquant models`: lists the sets of models, adds exports to them and removes sets."""

from __future__ import annotations

import argparse
import os
import sys

from tfquant import files
from tfquant.commands.choosing import UsageError
from tfquant.export import registry
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_set import Member, ModelSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--add",
        nargs="+",
        metavar="EXPORT",
        help="add exported models; several are one set, from which --quality chooses",
    )
    parser.add_argument(
        "--name", help="of the set to add (default: the folder's, or the run's for RUN/export)"
    )
    parser.add_argument("--description", help="of the set to add, one sentence")
    parser.add_argument(
        "--continuous",
        action="store_true",
        help="with --add: make every quality around those of models with one rate available,"
        " without training; the further from a model's own quality, the less efficient",
    )
    group.add_argument("--remove", metavar="NAME", help="remove a set that was added")


def run(arguments: argparse.Namespace) -> None:
    """Runs `tfquant models`.

    Raises:
      UsageError: a flag of `--add` is given without it.
      ModelError: there is no such model, or it cannot be added.
      OSError: a file cannot be written or removed.
    """
    if arguments.add:
        _add(arguments)
        return
    for flag in ("name", "description", "continuous"):
        if getattr(arguments, flag) not in (None, False):
            raise UsageError(f"--{flag} is for models that are added: name them with --add")
    if arguments.remove is not None:
        print(f"{files.shown(registry.remove(arguments.remove))}: removed")
    else:
        print("\n\n".join(describe(each) for each in registry.sets(_broken)))
        print(f"\nAdded models are in {files.shown(registry.folder())}.")


def _add(arguments: argparse.Namespace) -> None:
    """Adds a set, and prints what is special about it."""
    exports = [files.expanded(path) for path in arguments.add]
    added = registry.add(exports, arguments.name, arguments.description or "", arguments.continuous)
    print(f"{files.shown(added.path)}: {added.name}, {_count(added)}, {_megabytes(added)}")
    for member in added.unused():
        print(
            f"{added.name}: no quality chooses the model {member.manifest.fingerprint}"
            f" ({_qualities(member)}), because another one has or is as near to each;"
            f" --model={added.name}/{os.path.basename(member.path)} does"
        )
    others = registry.others_with(added)
    if others:
        print(
            f"{added.name}: a model with the same fingerprint is in {', '.join(others)}; decompress"
            " uses the one that was added first, of those that have the file's quality"
        )


def describe(models: ModelSet) -> str:
    """Returns lines about a set: one row per model, with its rates and qualities on Kodak."""
    default = " (default)" if models.name == registry.PRETRAINED else ""
    lines = [files.shown(f"{models.name}{default}: {models.description or _count(models)}")]
    if models.training:
        lines.append(files.shown(f"  trained: {models.training}"))
    lines.append(f"  size:    {_megabytes(models)}, {_count(models)}")
    lines.append(
        f"  {'qualities':<11}{'codec':<17}{'fingerprint':<18}Kodak: quality, bpp, PSNR, MS-SSIM"
    )
    for member in models.members:
        lines += _rows(member)
    return "\n".join(lines)


def _rows(member: Member) -> list[str]:
    """Returns a row for each measured quality of a model, or one row without measurements."""
    manifest, rows, qualities = member.manifest, [], _qualities(member)
    for measured in member.kodak or ({},):
        kodak = "not measured"
        if measured:
            kodak = (f"{measured['quality']:.4g}, {measured['bpp']:.3f} bpp,"
                     f" {measured['psnr']:.2f} dB, {measured['ms_ssim']:.4f}")  # fmt: skip
        rows.append(f"  {qualities:<11}{manifest.codec:<17}{manifest.fingerprint:<18}{kodak}")
    return rows


def _qualities(member: Member) -> str:
    if member.low == member.high:
        return f"{member.low:.4g}"
    return f"{member.low:.4g}-{member.high:.4g}"


def _count(models: ModelSet) -> str:
    count = len(models.members)
    return f"{count} model{'s' if count > 1 else ''}"


def _megabytes(models: ModelSet) -> str:
    return f"{sum(member.size() for member in models.members) / 1e6:.1f} MB"


def _broken(error: ModelError) -> None:
    print(f"tfquant: {error}", file=sys.stderr)
