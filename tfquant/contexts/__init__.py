"""Context models: transmit a latent part by part, with parameters from the parts before."""
