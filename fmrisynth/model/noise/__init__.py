"""Noise models draw the diffusion's noise, white or with the covariance of the latents.

All are a `protocol.NoiseModel`; `factory.make_noise` alone knows which one a configuration
asks for. They meet autoencoder and denoiser only as latent tensors.
"""
