"""Conditional diffusion of latent windows; meets the autoencoder only as latent tensors."""
