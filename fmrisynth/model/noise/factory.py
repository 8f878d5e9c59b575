"""Make the noise model that a configuration asks for."""

from __future__ import annotations

from torch import Tensor

from fmrisynth.config.model import ModelConfig
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.model.noise.stationary import StationaryNoise
from fmrisynth.model.noise.white import WhiteNoise

__all__ = ["make_noise"]


def make_noise(config: ModelConfig, mask: Tensor) -> NoiseModel:
    """Make the diffusion's noise model, not fitted yet.

    Parameters
    ----------
    config : ModelConfig
        Settings of the whole model.
    mask : Tensor of shape (x, y, z), bool
        Latent voxels that hold brain.
    """
    denoiser, channels = config.denoiser, config.autoencoder.latent_channels
    if denoiser.noise == "white":
        return WhiteNoise(channels, mask)
    high_pass, frames = config.preprocess.removed_high_pass, denoiser.n_frames
    if denoiser.noise_modes == 0:
        return StationaryNoise(channels, mask, frames=frames, high_pass=high_pass)
    return ModalNoise(
        channels,
        mask,
        denoiser.noise_modes,
        denoiser.noise_participant_rank,
        frames=frames,
        high_pass=high_pass,
    )
