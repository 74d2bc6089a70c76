"""Measures codecs on pictures: bits per pixel of the files, PSNR, MS-SSIM, time, BD-rates.

    python eval.py --model_dir=runs/low,runs/high --images=kodak/ --report_dir=reports/kodak
    python eval.py --model_dir=default --images=kodak/ --report_dir=reports/pretrained

This writes report.json, report.csv, report.md, rd.png and the reconstructions into the report's
folder, and prints the tables.

A set of models, such as `default`, forms one curve through the qualities of --qualities. Runs form
one curve if they differ only in lmbda and in settings that may change along a curve: the widths N
and M, the lengths of the stages, the seed and the number of validation pictures. Another difference
in a setting that has an effect starts a new curve, and so do two runs with the same lmbda. The
experiment of the run of --init_from counts, too: `init_from.SETTING` in a name is a setting of that
run. The names of the curves contain the differences, and report.json identifies each curve
completely. If a BD-rate would cover less than half of the shorter curve, or less than 0.1 dB, the
table shows a dash and a line explains it.

Without --model_dir, the program measures only the conventional codecs. With --explorations alone,
it lists the results of `train.py --explore_qr` and measures nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from tfquant import files
from tfquant.coding.container import BitstreamError
from tfquant.commands import anchor_flags
from tfquant.commands.outcome import one_line
from tfquant.commands.program import (
    LEFT_OUT,
    Flag,
    define,
    end,
    expand_paths,
    first_of,
    program_name,
)
from tfquant.data import background
from tfquant.data.images import ImageError
from tfquant.evaluation import EvaluationError, conventional, curves, pictures, report, run
from tfquant.export import quality
from tfquant.export.manifest_file import ModelError
from tfquant.export.model_file import ExportedModel

_FLAGS = (
    Flag(
        "model_dir", list, [],
        "Training runs (folders that contain export/), exported models, and sets of models,"
        " separated by commas. A set is `default`, another name that `tfquant models` lists, or a"
        " folder, and gives one curve.",
    ),
    Flag(
        "baseline", list, [],
        "Runs or exported models from which those of --model_dir started, separated by commas: adds"
        " the gains in quality, quantization error and time of the models over them.",
    ),
    Flag(
        "explorations", list, [],
        "Folders of `train.py --explore_qr`, separated by commas: adds a table of quality by"
        " weight.",
    ),
    Flag(
        "images", str, pictures.SAMPLE,
        "A folder, a glob or a file. `sample`: a few pictures from the installed packages, or"
        " generated ones.",
    ),
    Flag(
        "report_dir", str, None,
        "Folder of the report; created if it does not exist.", required=True,
    ),
    Flag(
        "conventional", list, list(conventional.CODECS),
        "Conventional codecs for comparison, from:"
        f" {', '.join(conventional.CODECS)}. Empty: none, as with only --explorations. `jpeg` is"
        " 4:2:0; it is also shown next to every model, at the nearest rate.",
    ),
    Flag(
        "anchor", str, None,
        "CSV of published points for the same pictures, for comparison, with columns"
        " metric,codec,bpp,value; metric is PSNR (dB) or MS-SSIM (linear, or in dB if all values"
        " are above 1).",
    ),
    anchor_flags.CODEC,
    Flag(
        "bd_rate_method", tuple(curves.METHODS), "akima",
        "Interpolation for BD-rates: akima (recommended by the bjontegaard package), pchip (used by"
        " JVET) or cubic (the original; needs 4 points).",
    ),
    Flag(
        "qualities", list, [],
        "Qualities from 0 to 100, separated by commas, at which sets of models and models for a"
        " range of rates are measured. Empty: for a set its ends and 10, 20 and so on between them,"
        " for a model five at equal distances. Other models have one quality.",
    ),
    Flag("background", str, None, f"A colour: {background.HELP}."),
    Flag(
        "reconstructions", bool, True,
        "If true, keeps every compressed file and its reconstruction.",
    ),
)  # fmt: skip


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of `eval.py`."""
    define(values, _FLAGS)


def _qualities(texts: Sequence[str]) -> tuple[float, ...]:
    """Returns the numbers of --qualities. An EvaluationError says which one is invalid."""
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
            quality.check(numbers[-1])
        except ValueError as error:
            raise EvaluationError(f"--qualities: {error}") from None
    return tuple(numbers)


def main(argv: Sequence[str]) -> None:
    """Runs the command with the flags that `app.run` has parsed.

    Ends the process with one line on standard error if the input is invalid. If some pictures could
    not be measured, the exit code is `LEFT_OUT`.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; use only --flags")
    values = flags.FLAGS
    expand_paths(values, ("model_dir", "baseline", "explorations", "report_dir", "anchor"))
    folder = values.report_dir
    codecs = values.conventional
    if values.explorations and not values.model_dir and not values["conventional"].present:
        codecs = []  # listing explorations needs no pictures
    try:
        files.check_local_folder("--report_dir", folder)
        anchor_flags.check(values)
        evaluation = run.Evaluation(
            model_dirs=tuple(values.model_dir),
            baselines=tuple(values.baseline),
            explorations=tuple(values.explorations),
            images=values.images,
            report_dir=Path(folder),
            conventional=tuple(codecs),
            anchor=Path(values.anchor) if values.anchor else None,
            anchor_codec=values.anchor_codec,
            bd_method=values.bd_rate_method,
            reconstructions=values.reconstructions,
            background=background.parse(values.background) if values.background else None,
            qualities=_qualities(values.qualities),
        )
        result = run.run(evaluation, ExportedModel.load)
    except (
        BitstreamError, EvaluationError, ImageError, ModelError, OSError, background.ColourError
    ) as error:  # fmt: skip
        sys.exit(f"{program_name(argv)}: {one_line(error)}")
    path = files.shown(evaluation.report_dir / report.MARKDOWN)
    print(f"\n{report.summary(result)}\n\nReport: {path}")
    failed = {row.name: row.error for row in result.failed}
    if failed:
        total = result.run.number_of_images + len(failed)
        reasons = first_of(list(failed.values()))
        message = f"{len(failed)} of {total} pictures are not in the means: {reasons}"
        end(f"{program_name(argv)}: {message}", LEFT_OUT)
