"""Entropy models: the distributions of latents and their cost in bits."""
