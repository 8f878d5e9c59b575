"""Settings of a whole model: its grid, its networks, their training, and sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from fmrisynth.choices import SAMPLER_NAMES
from fmrisynth.config.autoencoder import AutoencoderTraining, VQGANConfig
from fmrisynth.config.diffusion import DenoiserConfig, DiffusionTraining

__all__ = ["ModelConfig", "PreprocessConfig", "SamplingConfig"]


@dataclass(frozen=True)
class PreprocessConfig:
    """How runs are brought into the form that the model learns.

    Attributes
    ----------
    voxel_size : float or None
        Edge of the model grid's voxels, mm; None keeps the runs' own.
    high_pass : float
        Highest frequency that counts as drift, Hz.
    normalisation : str
        ``residual``: percent signal change against the run's own mean, drift
        removed. ``volume``: whole volumes, anatomy included, divided by the
        run's mean intensity (the published form).
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


@dataclass(frozen=True)
class SamplingConfig:
    """How runs are drawn from a model.

    Attributes
    ----------
    sampler : str
        Name in `fmrisynth.synthesis.sampler.SAMPLERS`.
    steps : int
        Denoising steps.
    guidance : float
        Amplitude of the evoked mean, 1 being that of the training runs; without
        the evoked-response pathway, the scale of classifier-free guidance.
    guidance_rescale : float
        Share of a guided output that is brought back to the unguided one's
        standard deviation, in [0, 1].
    stride : int
        Frames between two overlapping windows.
    observation_noise : bool
        Whether what the autoencoder loses is put back as noise, up to the
        carrier's level; whole volumes (`preprocess.normalisation`) never have it.
    """

    sampler: str = "euler"
    steps: int = 6
    guidance: float = 1.0
    guidance_rescale: float = 0.0
    stride: int = 8
    observation_noise: bool = True

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
    """Everything that decides what a model is and how it is trained.

    Attributes
    ----------
    preprocess : PreprocessConfig
        Grid and normalisation.
    autoencoder : VQGANConfig
        The VQ-GAN.
    autoencoder_training : AutoencoderTraining
        How it is trained.
    autoencoder_steps : int
        For how many steps at most.
    denoiser : DenoiserConfig
        The diffusion model.
    diffusion_training : DiffusionTraining
        How it is trained.
    diffusion_steps : int
        For how many steps at most.
    sampling : SamplingConfig
        Defaults for drawing runs.
    held_out_share : float
        Share of the participants that the model never sees.
    """

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    autoencoder: VQGANConfig = field(default_factory=VQGANConfig)
    autoencoder_training: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    autoencoder_steps: int = 1000
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
