"""The conditional denoiser predicts the velocity of latent windows.

It meets the autoencoder only as latent tensors.
"""
