"""Evaluation: compresses pictures, measures the results, and reports curves and BD-rates.

    results       the result of an evaluation: the content of report.json
    pictures      pictures of an evaluation
    measure       a picture through a codec: real bytes, PSNR, MS-SSIM, seconds
    models        exported models
    identity      identity and name of a model's curve
    conventional  the codecs of Pillow
    curves        rate-distortion curves: means, interpolation, BD-rate, published points
    gains         comparison of rectified models with their baselines
    plots         the RD plot and the plot of the gains
    report        report.json, the CSV, the Markdown tables
    run           the whole evaluation; `eval.py` calls it
    comparison    comparison of codecs on a picture, with files of about the same size
    same_size     conventional compression to a given size
    view          the page of `tfquant view`

and, for `sweep.py`:

    sweep          a grid of experiments, its runs and its folder
    sweep_results  results of the runs and the choice of a temperature
    sweep_curves   curves and their BD-rates
    sweep_table    tables and plots
    estimate       means over seeds, with intervals
    paper_tables   the BD-rates of arXiv 2309.17051

Units everywhere: bpp is bits per pixel of the unpadded picture, PSNR and `ms_ssim_db` are in dB,
times are in seconds. A value that does not exist is None, and null in JSON: PSNR of an identical
picture, and MS-SSIM of a picture smaller than its pyramid.
"""


class EvaluationError(ValueError):
    """Error: an evaluation cannot be done as requested. The message is one line with the reason."""
