"""Define the settings of a whole model: grid, networks, training and sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from fmrisynth.config.autoencoder import AutoencoderTraining, VQGANConfig
from fmrisynth.config.diffusion import DenoiserConfig, DiffusionTraining, ResponseConfig

__all__ = [
    "CARRIERS",
    "INDIVIDUALS",
    "SAMPLER_NAMES",
    "ModelConfig",
    "PreprocessConfig",
    "SamplingConfig",
]

SAMPLER_NAMES = ("euler", "ddim", "ddpm", "dpmpp-2m")
"""Names of the table `fmrisynth.synthesis.sampler.SAMPLERS`, which a test holds against them."""

CARRIERS = ("own", "drawn", "group-mean")
"""Whose mean image, noise level, drift and mask synthetic runs have."""

INDIVIDUALS = ("own", "drawn", "group")
"""Whose responses synthetic runs have: the participant's own, nobody's, or everybody's."""


@dataclass(frozen=True)
class PreprocessConfig:
    """Configure how runs are prepared for the model.

    Attributes
    ----------
    voxel_size : float or None
        Edge of the model grid's voxels (mm); None keeps the voxels of the runs. The grid is
        never finer than the finest run.
    high_pass : float
        Cut-off of the high-pass filter (Hz): slower fluctuations are drift.
    normalisation : str
        ``residual``: percent signal change against the run's own mean, drift
        removed. ``volume``: whole volumes, anatomy included, divided by the
        run's mean intensity (as in the paper).
    """

    voxel_size: float | None = 4.0
    high_pass: float = 1 / 128
    normalisation: str = "residual"

    def __post_init__(self) -> None:
        """Refuse a normalisation that does not exist."""
        if self.normalisation not in ("residual", "volume"):
            raise ValueError(
                f"normalisation is {self.normalisation!r}; expected residual or volume"
            )

    @property
    def removed_high_pass(self) -> float | None:
        """Highest frequency that is removed as drift, Hz; None for whole volumes."""
        return self.high_pass if self.normalisation == "residual" else None


@dataclass(frozen=True)
class SamplingConfig:
    """Configure how synthetic runs are sampled from a model.

    Attributes
    ----------
    sampler : str
        ``euler``, ``ddim``, ``ddpm`` or ``dpmpp-2m``.
    steps : int
        Number of denoising steps.
    guidance : float
        Amplitude of the evoked response, 1 being that of the training runs; without
        a response model, the scale of classifier-free guidance.
    guidance_rescale : float
        Share of a guided output that is rescaled to the standard deviation of the
        unguided one, in [0, 1].
    stride : int
        Number of frames between the starts of two overlapping windows.
    backbone : bool
        Whether the network denoises; without it, runs are statistics alone: response model,
        noise level and noise model.
    decoder_noise : bool
        Whether the variance that the autoencoder loses is added back as noise, up to the
        carrier's noise level; never applied to whole volumes (`preprocess.normalisation`).
    networks : bool
        Whether places fluctuate together as they do in the training runs; without, each keeps its
        spectrum and its variance, and has them to itself (beyond the size of a latent voxel).
    drift : bool
        Whether runs have the slow drift of their carrier.
    physiology : bool
        Whether runs have what white matter and cerebrospinal fluid fluctuate by: breath, heart,
        motion; without, its principal components are regressed out of the noise everywhere.
    """

    sampler: str = "euler"
    steps: int = 6
    guidance: float = 1.0
    guidance_rescale: float = 0.0
    stride: int = 8
    backbone: bool = True
    decoder_noise: bool = field(default=True, metadata={"formerly": "observation_noise"})
    networks: bool = True
    drift: bool = True
    physiology: bool = field(default=True, metadata={"new": True})

    def __post_init__(self) -> None:
        """Refuse a sampler that does not exist, and counts below one."""
        if self.sampler not in SAMPLER_NAMES:
            raise ValueError(
                f"sampler is {self.sampler!r}; expected one of {', '.join(SAMPLER_NAMES)}"
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(
                f"sampling.guidance_rescale is {self.guidance_rescale}; expected 0 to 1"
            )
        if self.steps < 1 or self.stride < 1:
            raise ValueError(
                f"sampling steps and stride are {self.steps} and {self.stride}; expected at least 1"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Describe a model completely: what it is, and how it is trained and sampled.

    Attributes
    ----------
    preprocess : PreprocessConfig
        Grid and normalisation.
    autoencoder : VQGANConfig
        Architecture of the VQ-GAN.
    autoencoder_training : AutoencoderTraining
        Training of the VQ-GAN.
    autoencoder_steps : int
        Number of training steps of the autoencoder, at most.
    noise_level : bool
        Whether latents are divided by the noise level of their run, and by the intensity of
        each frame, before they are learned from, and multiplied by both after sampling.
    response : ResponseConfig
        Response model.
    denoiser : DenoiserConfig
        Diffusion model.
    diffusion_training : DiffusionTraining
        Training of the diffusion model.
    diffusion_steps : int
        Number of training steps of the diffusion model, at most.
    sampling : SamplingConfig
        Defaults of sampling.
    held_out_share : float
        Share of the participants that are held out of training, in [0, 1).
    """

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    autoencoder: VQGANConfig = field(default_factory=VQGANConfig)
    autoencoder_training: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    autoencoder_steps: int = 1000
    noise_level: bool = True
    response: ResponseConfig = field(default_factory=ResponseConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion_training: DiffusionTraining = field(default_factory=DiffusionTraining)
    diffusion_steps: int = 1000
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    held_out_share: float = 0.25

    def __post_init__(self) -> None:
        """Refuse shares and counts out of range."""
        if not 0 <= self.held_out_share < 1:
            raise ValueError(
                f"held_out_share is {self.held_out_share}; expected 0 or more, under 1"
            )
        if min(self.autoencoder_steps, self.diffusion_steps) < 1:
            raise ValueError("autoencoder_steps and diffusion_steps must be at least 1")
