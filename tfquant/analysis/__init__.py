"""The paper's analyses as a tool: train-test mismatch and gradient risk of any surrogate.

    python -m tfquant.analysis --list
    python -m tfquant.analysis gradient_risk --surrogates=aun,sua --alphas=4,8 --out=analyses

"On Uniform Scalar Quantization for Learned Image Compression" (arXiv 2309.17051), section 4: one
module a figure or table, each of which writes a CSV, a PNG and a short Markdown of what to see.
Values and gradients come from `tfquant.quantization.surrogates` (see `maps`), bits from
`tfquant.entropy`.
`docs/analyses.md` holds the paper's statements against what comes out here.
"""
