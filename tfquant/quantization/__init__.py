"""Quantization: rounding, its differentiable surrogates, plans, and the quantizer."""
