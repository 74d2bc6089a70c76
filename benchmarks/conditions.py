"""Conditions of both sides of a comparison. No imports: their environments share little."""

PICTURE = (512, 768)  # rows, columns
DEVIATION = 3.0  # standard deviation of untrained codecs' latents; similar to trained ones
