"""Tensor operations without state: custom gradients and seeded noise."""
