"""Named configurations: one aligned table."""

from __future__ import annotations

from fmrisynth.compression.discriminator import AdversarialConfig
from fmrisynth.compression.train import AutoencoderTraining
from fmrisynth.compression.vqgan import VQGANConfig
from fmrisynth.diffusion.backbone import BackboneConfig
from fmrisynth.diffusion.denoiser import DenoiserConfig
from fmrisynth.diffusion.train import DiffusionTraining
from fmrisynth.model import ModelConfig

__all__ = ["PRESETS"]

DEMO = ModelConfig(
    autoencoder=VQGANConfig(
        latent_channels=4,
        codebook_size=512,
        base_width=16,
        multipliers=(1, 2),
        norm_groups=8,
        patch=2,
        linear_path=True,
    ),
    autoencoder_training=AutoencoderTraining(
        batch_size=4, learning_rate=5e-3, adversarial=AdversarialConfig(weight=0.0)
    ),
    autoencoder_steps=300,
    denoiser=DenoiserConfig(backbone=BackboneConfig(widths=(96, 192), blocks=(1, 2))),
    diffusion_training=DiffusionTraining(batch_size=16),
    diffusion_steps=240,
)

PRESETS: dict[str, ModelConfig] = {"demo": DEMO}
"""Configurations by the names that ``--preset`` takes."""
