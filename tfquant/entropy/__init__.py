"""Entropy models: what a latent costs in bits."""
