"""The paper's analyses as a tool: train-test mismatch and gradient risk of any surrogate.

    python -m tfquant.analysis --list
    python -m tfquant.analysis gradient_risk --surrogates=aun,sua --alphas=4,8 --out=analyses

Source: "On Uniform Scalar Quantization for Learned Image Compression" (arXiv 2309.17051), section
4. Each figure or table has one module, which writes a CSV, a PNG and a short Markdown report.
Values and gradients come from `tfquant.quantization.surrogates` (see `maps`), bits from
`tfquant.entropy`. `docs/paper.md` compares the paper's statements with these results.
"""
