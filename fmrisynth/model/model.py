"""Hold the parts of the generative model, and read and write its directory.

A model directory holds ``config.json`` (resolved settings, vocabulary, grid, split,
provenance, hashes), one ``.safetensors`` file per part (`PARTS`), ``mask.nii.gz``, a model
card, and the losses of the two trainings as ``log-*.csv`` and ``curves-*.png``. Loading
executes nothing from any of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth import __version__
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.vqgan import VQGAN, latent_mask
from fmrisynth.model.card import model_card
from fmrisynth.model.carriers import CarrierPrior
from fmrisynth.model.decoder_noise import DecoderNoise
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.info import FORMAT, ModelInfo, read_info, read_lattice
from fmrisynth.model.intensity import FrameIntensity
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.motion import MotionPrior
from fmrisynth.model.noise.factory import make_noise
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.model.noise_level import NoiseLevel
from fmrisynth.model.response import Response
from fmrisynth.model.skill import SKILL_NAME, Skill, write_skill
from fmrisynth.model.weights import (
    hash_files,
    load_weights,
    read_json,
    save_weights,
    write_json,
)
from fmrisynth.preprocess.grid import Grid

__all__ = [
    "PARTS",
    "Model",
    "make_denoiser",
    "make_noise_level",
    "make_response",
]

PARTS = (
    "autoencoder",
    "noise_level",
    "latent_space",
    "response",
    "noise",
    "intensity",
    "decoder_noise",
    "denoiser",
    "carriers",
    "motion",
)
"""Attributes of `Model` that have a weights file of the same name."""


@dataclass
class Model:
    """Hold the trained parts of the generative model.

    Attributes
    ----------
    info : ModelInfo
        Settings, names, split, provenance.
    grid : Grid
        The model grid.
    autoencoder : VQGAN
        Volumes to latents and back.
    noise_level : NoiseLevel
        How loud a run's noise is, place by place.
    latent_space : LatentSpace
        Standardisation of latents.
    response : Response
        Mean of the standardised latents, given events and anatomy.
    noise : NoiseModel
        The diffusion's noise.
    intensity : FrameIntensity
        How the noise's intensity changes from frame to frame.
    decoder_noise : DecoderNoise
        Statistics of the autoencoder's reconstruction error.
    denoiser : Denoiser
        The diffusion network.
    carriers : CarrierPrior
        How participants' mean images, noise levels and drifts differ.
    motion : MotionPrior
        How participants' heads move.
    records : mapping
        Files about the training, by the names that they get in the directory.
    skill : tuple of Skill
        Gains of the parts on held-out participants; skill.tsv in the directory.
    """

    info: ModelInfo
    grid: Grid
    autoencoder: VQGAN
    noise_level: NoiseLevel
    latent_space: LatentSpace
    response: Response
    noise: NoiseModel
    intensity: FrameIntensity
    decoder_noise: DecoderNoise
    denoiser: Denoiser
    carriers: CarrierPrior
    motion: MotionPrior
    records: Mapping[str, Path] = field(default_factory=dict)
    skill: tuple[Skill, ...] = ()

    def __post_init__(self) -> None:
        for part in self.parts().values():
            part.eval()
        self.denoiser.attach(self.noise.mode_maps)

    @classmethod
    def unfitted(cls, info: ModelInfo, grid: Grid) -> Model:
        """Make the parts that a configuration describes, before their weights are read or set."""
        config = info.config
        inside = latent_mask(torch.from_numpy(grid.mask), config.autoencoder.factor)
        return cls(
            info,
            grid,
            VQGAN(config.autoencoder),
            make_noise_level(config, grid),
            LatentSpace(config.autoencoder.latent_channels, inside),
            make_response(config, info.vocabulary, inside),
            make_noise(config, inside),
            FrameIntensity(),
            DecoderNoise(grid.shape),
            make_denoiser(config, info.vocabulary, inside),
            CarrierPrior(grid.shape),
            MotionPrior(),
        )

    def parts(self) -> dict[str, nn.Module]:
        """Return the parts that have a weights file, by its name."""
        return {name: getattr(self, name) for name in PARTS}

    def to(self, device: torch.device) -> Model:
        """Move every part to a device."""
        for part in self.parts().values():
            part.to(device)
        return self

    def save(self, directory: str | Path) -> None:
        """Write the model directory; it appears only when complete."""
        directory = Path(directory)
        temporary = directory.with_name(f".{directory.name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, part in self.parts().items():
            save_weights(_weights(temporary, name), part)
        mask = nib.Nifti1Image(self.grid.mask.astype(np.uint8), self.grid.affine)
        nib.save(mask, temporary / "mask.nii.gz")
        for name, path in self.records.items():
            shutil.copyfile(path, temporary / name)
        if self.skill:
            write_skill(temporary / SKILL_NAME, self.skill)
        write_json(temporary / "config.json", self._description(temporary))
        (temporary / "README.md").write_text(self._card(), encoding="utf-8")
        temporary.rename(directory)

    def _card(self) -> str:
        """Write the content of README.md."""
        info = self.info
        sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in self.parts().items()}
        return model_card(
            info.provenance,
            info.split,
            info.vocabulary,
            info.space,
            self.grid.shape,
            sizes,
            self.skill,
            [dataset.title for dataset in info.datasets],
        )

    def _description(self, directory: Path) -> dict[str, Any]:
        """Compose the content of config.json."""
        info = self.info
        files = [_weights(directory, name) for name in PARTS]
        return {
            "format": FORMAT,
            "fmrisynth_version": __version__,
            "config": to_json(info.config),
            "vocabulary": info.vocabulary.to_json(),
            "split": to_json(info.split),
            "datasets": [to_json(dataset) for dataset in info.datasets],
            "scale": info.scale,
            "space": info.space,
            "grid": {"shape": list(self.grid.shape), "affine": self.grid.affine.tolist()},
            "provenance": dict(info.provenance),
            "hashes": {path.name: hash_files([path]) for path in files},
        }

    @classmethod
    def load(cls, directory: str | Path) -> Model:
        """Read a model directory.

        Raises
        ------
        ModelError
            A file is missing, damaged, altered, or does not fit; the message
            names it.
        """
        directory = Path(directory)
        info = read_info(directory)
        content = read_json(directory / "config.json")
        grid = _read_grid(directory, content)
        try:
            model = cls.unfitted(info, grid)
        except Exception as error:  # sizes of the right type that no network can have
            raise ModelError(
                f"{directory / 'config.json'} describes networks that cannot be built "
                f"({type(error).__name__}: {error}). Was it changed? Copy the model again."
            ) from None
        for name, part in model.parts().items():
            path = _weights(directory, name)
            load_weights(path, part)
            digest, expected = hash_files([path]), content["hashes"].get(path.name)
            if digest != expected:
                raise ModelError(
                    f"{path} has the SHA-256 {digest[:12]}…, but config.json expects "
                    f"{str(expected)[:12]}…; the file was changed or belongs to another model."
                )
        model.denoiser.attach(model.noise.mode_maps)  # which were not read yet when it was made
        return model


def make_denoiser(config: ModelConfig, vocabulary: Vocabulary, mask: Tensor) -> Denoiser:
    """Make the denoiser that a configuration describes, not trained yet.

    Parameters
    ----------
    config : ModelConfig
        Settings of the whole model.
    vocabulary : Vocabulary
        Names of the conditions.
    mask : Tensor of shape (x, y, z), bool
        Latent voxels that hold brain.
    """
    autoencoder = config.autoencoder
    return Denoiser(
        config.denoiser, vocabulary, autoencoder.latent_channels, mask, autoencoder.factor
    )


def make_response(config: ModelConfig, vocabulary: Vocabulary, mask: Tensor) -> Response:
    """Make the response model that a configuration describes, not fitted yet."""
    autoencoder, n_trial_types = config.autoencoder, len(vocabulary.trial_types)
    return Response(
        config.response, n_trial_types, autoencoder.latent_channels, mask, autoencoder.factor
    )


def make_noise_level(config: ModelConfig, grid: Grid) -> NoiseLevel:
    """Make the noise level that a configuration describes, not fitted yet."""
    edge = float(np.linalg.norm(grid.affine[:3, 0]))
    return NoiseLevel(grid.mask, edge, config.autoencoder.factor, enabled=config.noise_level)


def _weights(directory: Path, name: str) -> Path:
    """Return the path of a part's weights."""
    return directory / f"{name}.safetensors"


def _read_grid(directory: Path, content: Mapping[str, Any]) -> Grid:
    """Read the model grid from mask.nii.gz and the content of config.json."""
    path = directory / "mask.nii.gz"
    try:
        mask = np.asarray(nib.Nifti1Image.from_filename(path).dataobj) > 0
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise ModelError(
            f"{path} is not a readable mask ({error}); copy the model again."
        ) from None
    shape, affine = read_lattice(content)
    if mask.shape != shape:
        raise ModelError(f"{path} has shape {mask.shape}, but config.json says {shape}.")
    if not mask.any():
        raise ModelError(f"{path} is empty; copy the model again.")
    return Grid(shape, affine, mask)
