"""Measures codecs on pictures: real bits per pixel, PSNR, MS-SSIM, seconds, curves, BD-rates.

    python eval.py --model_dir=runs/low,runs/high --images=kodak/ --report_dir=reports/kodak

writes report.json, report.csv, report.md, rd.png and the reconstructions into the report's folder
and prints the tables.

Runs that differ in lmbda alone, or in what follows it (widths, lengths, the seed), are one curve.
Any other setting makes another curve, and so do two runs at one lmbda; the names say in what they
differ, and report.json has all that identifies each. A BD-rate over less than half of the
shorter curve, or over less than 0.1 dB, is a dash, with a line that says why.

Without --model_dir it measures the conventional codecs alone; given --explorations alone, it lists
them and measures nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tfquant import stack

stack.prepare("eval.py")

from absl import app, flags

from tfquant import files
from tfquant.coding.container import BitstreamError
from tfquant.data.images import ImageError
from tfquant.evaluation import EvaluationError, conventional, curves, pictures, report, run
from tfquant.export.model_file import ExportedModel, ModelError

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "model_dir", [], "Training runs (folders with export/ in them) or exported models, by commas."
)
flags.DEFINE_list(
    "baseline",
    [],
    "Runs or exported models that those of --model_dir started from, by commas: adds what the "
    "models gain over them in quality, quantization error and time.",
)
flags.DEFINE_list(
    "explorations",
    [],
    "Folders of `train.py --explore_qr`, by commas: adds a table of the quality by weight.",
)
flags.DEFINE_string(
    "images",
    pictures.SAMPLE,
    "A folder, a glob or a file; `sample`: a few pictures that come with the installed packages "
    "or are generated.",
)
flags.DEFINE_string("report_dir", None, "Where the report goes; made if it is not there.")
flags.DEFINE_list(
    "conventional",
    list(conventional.CODECS),
    f"Conventional codecs to compare with, of: {', '.join(conventional.CODECS)}; empty: none, as "
    "where --explorations alone are given. `jpeg` is 4:2:0, and beside every model stands at the "
    "nearest rate too.",
)
flags.DEFINE_string(
    "anchor",
    None,
    "CSV of points published for the same pictures, to compare with; columns "
    "metric,codec,bpp,value, metric being PSNR (dB) or MS-SSIM (linear).",
)
flags.DEFINE_string("anchor_codec", "BPG 4:4:4", "The codec to take from --anchor.")
flags.DEFINE_enum(
    "bd_rate_method",
    "akima",
    list(curves.METHODS),
    "Interpolation for BD-rates: akima (recommended by the bjontegaard package), pchip (JVET's) "
    "or cubic (the original; needs 4 points).",
)
flags.DEFINE_bool(
    "reconstructions", True, "Whether to keep every compressed file and its reconstruction."
)
flags.mark_flag_as_required("report_dir")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; everything is a --flag")
    folder = FLAGS.report_dir
    codecs = FLAGS.conventional
    if FLAGS.explorations and not FLAGS.model_dir and not FLAGS["conventional"].present:
        codecs = []  # to list searches takes no pictures
    try:
        files.check_local_folder("--report_dir", folder)
        evaluation = run.Evaluation(
            model_dirs=tuple(FLAGS.model_dir),
            baselines=tuple(FLAGS.baseline),
            explorations=tuple(FLAGS.explorations),
            images=FLAGS.images,
            report_dir=Path(folder),
            conventional=tuple(codecs),
            anchor=Path(FLAGS.anchor) if FLAGS.anchor else None,
            anchor_codec=FLAGS.anchor_codec,
            bd_method=FLAGS.bd_rate_method,
            reconstructions=FLAGS.reconstructions,
        )
        result = run.run(evaluation, ExportedModel.load)
    except (BitstreamError, EvaluationError, ImageError, ModelError, OSError) as error:
        sys.exit(f"eval.py: {' '.join(str(error).split())}")
    print(f"\n{report.summary(result)}\n\nReport: {evaluation.report_dir / report.MARKDOWN}")


if __name__ == "__main__":
    app.run(main)
