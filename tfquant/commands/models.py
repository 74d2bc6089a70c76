"""`tfquant models`: lists the sets of models, adds exports to them and removes sets."""

from __future__ import annotations

import argparse
import sys

from tfquant import files
from tfquant.commands.choosing import UsageError
from tfquant.export import registry
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_set import Member, ModelSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--add",
        nargs="+",
        metavar="EXPORT",
        help="add exported models; several are one set, from which --quality chooses",
    )
    parser.add_argument(
        "--name", help="of the set to add (default: the folder's, or the run's for RUN/export)"
    )
    parser.add_argument("--description", default="", help="of the set to add, one sentence")
    parser.add_argument(
        "--continuous",
        action="store_true",
        help="with --add: make every quality around those of models with one rate available,"
        " without training; the further from a model's own quality, the less efficient",
    )
    parser.add_argument("--remove", metavar="NAME", help="remove a set that was added")


def run(arguments: argparse.Namespace) -> None:
    """Runs `tfquant models`.

    Raises:
      ModelError: there is no such model, or it cannot be added.
      OSError: a file cannot be written or removed.
    """
    if arguments.add:
        exports = [files.expanded(path) for path in arguments.add]
        added = registry.add(exports, arguments.name, arguments.description, arguments.continuous)
        print(f"{added.path}: {added.name}, {_count(added)}, {_megabytes(added)}")
    elif arguments.continuous:
        raise UsageError("--continuous is for models that are added: name them with --add")
    if arguments.remove is not None:
        print(f"{registry.remove(arguments.remove)}: removed")
    if not arguments.add and arguments.remove is None:
        print("\n\n".join(describe(each) for each in registry.sets(_broken)))
        print(f"\nAdded models are in {registry.folder()}.")


def describe(models: ModelSet) -> str:
    """Returns lines about a set: one row per model, with its rates and qualities on Kodak."""
    default = " (default)" if models.name == registry.PRETRAINED else ""
    lines = [f"{models.name}{default}: {models.description or _count(models)}"]
    if models.training:
        lines.append(f"  trained: {models.training}")
    lines.append(f"  size:    {_megabytes(models)}, {_count(models)}")
    lines.append(
        f"  {'qualities':<11}{'codec':<17}{'fingerprint':<18}Kodak: quality, bpp, PSNR, MS-SSIM"
    )
    for member in models.members:
        lines += _rows(member)
    return "\n".join(lines)


def _rows(member: Member) -> list[str]:
    """Returns a row for each measured quality of a model, or one row without measurements."""
    manifest, rows = member.manifest, []
    qualities = f"{member.low:.4g}"
    if member.high > member.low:
        qualities += f"-{member.high:.4g}"
    for measured in member.kodak or ({},):
        kodak = "not measured"
        if measured:
            kodak = (f"{measured['quality']:.4g}, {measured['bpp']:.3f} bpp,"
                     f" {measured['psnr']:.2f} dB, {measured['ms_ssim']:.4f}")  # fmt: skip
        rows.append(f"  {qualities:<11}{manifest.codec:<17}{manifest.fingerprint:<18}{kodak}")
    return rows


def _count(models: ModelSet) -> str:
    count = len(models.members)
    return f"{count} model{'s' if count > 1 else ''}"


def _megabytes(models: ModelSet) -> str:
    return f"{sum(member.size() for member in models.members) / 1e6:.1f} MB"


def _broken(error: ModelError) -> None:
    print(f"tfquant: {error}", file=sys.stderr)
