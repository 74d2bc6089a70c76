"""Evaluation: pictures -> files, metrics, curves, BD-rates -> a report.

    pictures      what is evaluated on
    measure       one picture, one codec: real bytes, PSNR, MS-SSIM, seconds
    models        exported models
    identity      what of their experiments makes a curve, and its name
    conventional  the codecs of Pillow
    curves        rate-distortion curves: means, interpolation, BD-rate, published points
    gains         rectified models beside their baselines
    plots         the RD plot, and that of the gains
    report        report.json, the CSV, the Markdown tables
    run           all of it in order; what `eval.py` calls

and, for `sweep.py`:

    sweep          a grid of experiments, its runs and its folder
    sweep_results  what the runs have measured, and which temperature is chosen
    sweep_table    tables and plots
    estimate       means over seeds, with intervals
    paper_tables   the BD-rates of arXiv 2309.17051

Units everywhere: bpp is bits per pixel of the unpadded picture; PSNR and `ms_ssim_db` are in dB;
times are in seconds. A value that does not exist is None, in JSON null: PSNR of an identical
picture, MS-SSIM of one smaller than its pyramid.
"""


class EvaluationError(ValueError):
    """An evaluation that cannot be done as asked; the message is one line that says why."""
