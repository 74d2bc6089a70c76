"""What both sides of a comparison are given. No imports: their environments share little."""

PICTURE = (512, 768)  # rows, columns
DEVIATION = 3.0  # of the latents of untrained codecs; trained codecs' are near it
