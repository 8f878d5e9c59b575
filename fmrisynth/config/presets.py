"""Define the named configurations, in one aligned table.

``paper-*`` is the paper's method and ``scaled-*`` this project's method, with an
autoencoder and a stem of its own, both at the sizes of the paper, which gives parameter counts
alone. Widths, depths, the 20 frames of 4 latent channels of a window, and the
autoencoder's training are this project's choice; with a vocabulary of seven tasks the
parameter counts then agree with the paper's within 1 %, with either method. ``dit``,
``khader`` and ``pinaya`` are systems that the paper names beside its own (`SYSTEMS`),
at 237M within 2 %.
"""

from __future__ import annotations

from dataclasses import replace

from fmrisynth.config.autoencoder import AdversarialConfig, AutoencoderTraining, VQGANConfig
from fmrisynth.config.codec import override
from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig, DiffusionTraining
from fmrisynth.config.model import ModelConfig, PreprocessConfig, SamplingConfig
from fmrisynth.errors import UsageError

__all__ = [
    "PAPER_METHOD",
    "PRESETS",
    "PURPOSES",
    "SIZES",
    "SYSTEMS",
    "preset_notice",
    "read_preset",
    "with_paper_method",
]

# principal components of blocks: with a demonstration's steps, convolutions add .0005 to the
# explained variance of .555
BLOCKS = VQGANConfig(
    latent_channels=4,
    multipliers=(1,),
    patch=4,
    linear_path=True,
    convolutional=False,
    quantizer="none",
)

DEMO = ModelConfig(
    autoencoder=BLOCKS,
    autoencoder_training=AutoencoderTraining(adversarial=AdversarialConfig(weight=0.0)),
    denoiser=DenoiserConfig(
        backbone=BackboneConfig(widths=(96, 192), blocks=(1, 2)),
        noise_modes=512,
        mode_width=32,
    ),
    diffusion_training=DiffusionTraining(batch_size=16),
    diffusion_steps=240,
)

# about 11M parameters: the form of `demo`, for hours on a workstation
SMALL = ModelConfig(
    autoencoder=replace(BLOCKS, latent_channels=8),
    autoencoder_training=AutoencoderTraining(adversarial=AdversarialConfig(weight=0.0)),
    denoiser=DenoiserConfig(
        backbone=BackboneConfig(widths=(128, 320), blocks=(1, 2)),
        noise_modes=512,
        mode_width=32,
    ),
    diffusion_training=DiffusionTraining(learning_rate=5e-4, ema_decay=0.999),
    diffusion_steps=10_000,
    sampling=SamplingConfig(steps=25),
)

# By millions of parameters in the paper: widths and blocks of the levels, width of the condition
# tokens, width of a head. Two comparisons of the paper bind the choice: three architectures of
# equal size (237m), and the weights of cross-attention (151m).

# Of the paper's form, whose finest level holds all latent voxels: few weights lie there, where
# each costs most.
SIZES = {
    "38m": ((128, 128, 384), (1, 1, 2), 216, 128),
    "85m": ((128, 192, 576), (1, 1, 2), 768, 64),
    "151m": ((192, 256, 768), (1, 1, 2), 1120, 64),
    "237m": ((128, 512, 768), (1, 1, 3), 1056, 128),
    "340m": ((128, 448, 960), (1, 1, 3), 1376, 64),
    "463m": ((128, 448, 1152), (1, 1, 3), 1472, 64),
}

# Of this project's form, where blocks of 2³ latent voxels are folded into channels first. On the
# whole grid nearly all time goes to the finest level. On a CPU the gradients of convolutions are
# slow beyond some 400 channels, so that most weights are in Transformer blocks.
FOLDED_SIZES = {
    "38m": ((320, 448), (1, 1), 472, 64),
    "85m": ((384, 512), (1, 2), 992, 128),
    "151m": ((288, 768), (1, 2), 1392, 96),
    "237m": ((416, 800), (1, 3), 1088, 32),
    "340m": ((384, 960), (2, 3), 1352, 64),
    "463m": ((384, 1152), (3, 3), 1112, 128),
}

PAPER_METHOD: dict[str, str] = {
    "preprocess.normalisation": "volume",
    "autoencoder_training.reconstruction": "l1",
    "autoencoder_training.quantise_share": "1",
    "autoencoder.decode_codes": "true",
    "denoiser.prediction": "epsilon",
    "denoiser.noise": "white",
    "denoiser.schedule.kind": "scaled_linear",
    "denoiser.backbone.frame_tokens": "false",
    "denoiser.backbone.anatomy": "false",
    "denoiser.backbone.positions": "false",
    "denoiser.backbone.normalised_condition": "false",
    "denoiser.backbone.frame_components": "0",
    "denoiser.backbone.zero_gates": "true",
    "noise_level": "false",
    "response.kind": "none",
    "diffusion_training.regression_share": "0",
    "diffusion_training.validation_share": "0",
    "diffusion_training.gate": "false",
    "sampling.sampler": "ddpm",
    "sampling.steps": "1000",
    "sampling.decoder_noise": "false",
}
"""Overrides that turn a preset into the paper's method, one setting each.

``scaled_linear`` is what the code that the paper's values come from calls
"linear"; ``denoiser.schedule.kind=linear`` is the other reading.
"""


SYSTEMS: dict[str, dict[str, str]] = {
    "dit": PAPER_METHOD
    | {
        "denoiser.backbone.architecture": "dit",
        "denoiser.backbone.cross_attention": "false",
    },
    "khader": PAPER_METHOD
    | {
        "denoiser.backbone.architecture": "cnn",
        "denoiser.schedule.kind": "angular",
    },
    "pinaya": PAPER_METHOD
    | {
        "denoiser.backbone.architecture": "monai",
        "autoencoder.quantizer": "kl",
        "autoencoder.decode_codes": "false",
    },
}
"""Overrides that turn a preset into a system that the paper names, trained as the paper's is.

``dit``, Peebles & Xie 2023: a plain Transformer on patches, conditioned by AdaLN-Zero alone.
``khader``, Khader et al. 2023: VQ-GAN and convolutional U-Net, with the cosine schedule, which
``angular`` is. ``pinaya``, Pinaya et al. 2022: KL autoencoder and MONAI's U-Net with
cross-attention. Each keeps the latents, condition and budget of the preset, so that what differs
is what the system is known for.
"""


def with_paper_method(config: ModelConfig) -> ModelConfig:
    """Return a configuration that follows the paper's method: `PAPER_METHOD` applied to it."""
    return override(config, PAPER_METHOD)


# Blocks are folded into channels first, and every convolution is on the latent grid: a ninth of the
# operations that the network of Kim et al. takes to encode, a sixteenth to decode. It starts as
# principal components.
FOLDED = VQGANConfig(patch=4, multipliers=(1,), base_width=128, linear_path=True)
KIM = VQGANConfig()


def _at_scale(
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    token_width: int,
    head_width: int,
    *,
    autoencoder: VQGANConfig,
    stem: int = 1,
) -> ModelConfig:
    """Return this project's method at one of the paper's sizes, with the paper's training budget.

    The autoencoder has its adversarial term.
    """
    return ModelConfig(
        preprocess=PreprocessConfig(voxel_size=2.0),
        autoencoder=autoencoder,
        autoencoder_training=AutoencoderTraining(
            micro_batch=2, learning_rate=3e-4, ema_decay_max=0.999
        ),
        autoencoder_steps=100_000,
        denoiser=DenoiserConfig(
            n_frames=20,
            mode_width=32,
            backbone=BackboneConfig(
                widths=widths,
                blocks=blocks,
                # makes the three architectures equal in size
                transformer_depth=3,
                condition_width=160,
                token_width=token_width,
                head_width=head_width,
                # maps of the whole brain each: as many as the smallest size holds within 1 %
                frame_components=12,
                stem=stem,
            ),
        ),
        diffusion_training=DiffusionTraining(
            learning_rate=1e-4,
            weight_decay=0.01,
            betas=(0.9, 0.999),
            batch_size=16,
            warmup=0.0025,  # 1000 steps
            ema_decay=0.9999,
            condition_dropout=0.05,
        ),
        diffusion_steps=400_000,
        sampling=SamplingConfig(steps=25, stride=10),
    )


SCALED = {
    f"scaled-{name}": _at_scale(*size, autoencoder=FOLDED, stem=2)
    for name, size in FOLDED_SIZES.items()
}

# what the paper's method, and the systems that it names, are applied to
WITH_KIM = {name: _at_scale(*size, autoencoder=KIM) for name, size in SIZES.items()}

# of the size that the paper compares architectures at: 30 blocks of 768 channels are 237M
PLAIN_TRANSFORMER = {
    "denoiser.backbone.widths": "[768]",
    "denoiser.backbone.blocks": "[30]",
    "denoiser.backbone.head_width": "64",
}

PRESETS: dict[str, ModelConfig] = {
    "demo": DEMO,
    "small": SMALL,
    **SCALED,
    **{f"paper-{name}": with_paper_method(config) for name, config in WITH_KIM.items()},
    "dit": override(WITH_KIM["237m"], SYSTEMS["dit"] | PLAIN_TRANSFORMER),
    "khader": override(WITH_KIM["237m"], SYSTEMS["khader"]),
    "pinaya": override(WITH_KIM["237m"], SYSTEMS["pinaya"]),
}
"""Configurations by the names that ``--preset`` takes."""

PURPOSES = {
    "demo": "two CPU cores and minutes",
    "small": "the form of `demo`, for hours on a workstation",
    "scaled": "this project's method at a size and with the training length of the paper; for a "
    "large GPU and days",
    "paper": "the paper's method at the same size: whole volumes, white noise, ε-prediction, its "
    "schedule, a class per task, no response model",
    "dit": "a plain Transformer on patches without cross-attention (Peebles & Xie), trained as "
    "the paper's method",
    "khader": "VQ-GAN and convolutional U-Net with the cosine schedule (Khader et al.), trained "
    "as the paper's method",
    "pinaya": "KL autoencoder and MONAI's U-Net with cross-attention (Pinaya et al.; needs the "
    "extra `monai`), trained as the paper's method",
}
"""What the presets are for, by the first word of their names, in Markdown."""

FORMER_NAMES = {f"published-{name}": f"paper-{name}" for name in SIZES}  # of version 0.1


def read_preset(name: str) -> str:
    """Return the present name of a preset, which may be given by its name in version 0.1.

    Raises
    ------
    UsageError
        There is no such preset; the message lists those that there are.
    """
    name = FORMER_NAMES.get(name, name)
    if name not in PRESETS:
        raise UsageError(f"{name!r} is no preset; expected one of {', '.join(PRESETS)}.")
    return name


def preset_notice(name: str) -> str | None:
    """Return what version 0.1 meant by the name of a preset, where that was something else.

    Parameters
    ----------
    name : str
        As given by the user.
    """
    if name in FORMER_NAMES:
        return f"the preset {name} is now called {FORMER_NAMES[name]}; use that name."
    form, _, size = name.partition("-")
    if form == "paper" and size in SIZES:
        return (
            f"the preset {name} is the paper's own method. Version 0.1 gave this name to this "
            f"project's method at the paper's size, which is now called scaled-{size}."
        )
    return None
