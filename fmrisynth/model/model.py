"""The whole generative model: its parts, its configuration, and its directory on disk.

A model directory holds ``config.json`` (resolved settings, vocabulary, grid,
split, versions, hashes), ``autoencoder.safetensors``, ``latent_space.safetensors``,
``noise.safetensors``, ``denoiser.safetensors``, ``observation.safetensors``,
``mask.nii.gz``, a model card, and the losses of the two trainings as
``log-*.csv`` and ``curves-*.png``. Loading executes nothing from any of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth import __version__
from fmrisynth.config.codec import from_json, to_json
from fmrisynth.config.diffusion import DenoiserConfig
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.vqgan import VQGAN, latent_mask
from fmrisynth.model.card import model_card
from fmrisynth.model.decoder_noise import ObservationNoise
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.stationary import ColouredNoise
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.model.weights import (
    hash_files,
    hash_json,
    load_weights,
    read_json,
    save_weights,
    write_json,
)
from fmrisynth.preprocess.grid import Grid
from fmrisynth.preprocess.splits import Split

__all__ = ["FORMAT", "Model", "ModelInfo", "read_info"]

FORMAT = 2
WEIGHTS = ("autoencoder", "latent_space", "noise", "denoiser", "observation")


@dataclass(frozen=True)
class ModelInfo:
    """What config.json says besides the settings.

    Attributes
    ----------
    config : ModelConfig
        Settings.
    vocabulary : Vocabulary
        Trial types and attributes that the model knows.
    split : Split
        Who was learned from and who was held out.
    scale : float
        Global divisor of the residuals, %.
    space : str or None
        Space of the training runs.
    provenance : mapping
        Preset, versions, seed, runs, steps and seconds of the training.
    digest : str
        Hash of the weights, which names the model in what it writes; empty
        until it is saved.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    split: Split
    scale: float
    space: str | None
    provenance: Mapping[str, Any]
    digest: str = ""


class Model:
    """The trained parts, ready to generate.

    Attributes
    ----------
    info : ModelInfo
        Settings, names, split.
    grid : Grid
        The model grid.
    autoencoder : VQGAN
        Volume to latents and back.
    space : LatentSpace
        Standardisation of latents.
    noise : ModalNoise, ColouredNoise or WhiteNoise
        The diffusion's noise.
    denoiser : Denoiser
        The diffusion network.
    observation : ObservationNoise
        What the decoder loses.
    records : dict
        Files that tell of the training, by the names that they get in the
        directory.
    """

    def __init__(self, info: ModelInfo, grid: Grid) -> None:
        config = info.config
        self.info, self.grid = info, grid
        self.autoencoder = VQGAN(config.autoencoder).eval()
        inside = latent_mask(torch.from_numpy(grid.mask), config.autoencoder.factor)
        channels = config.autoencoder.latent_channels
        self.space = LatentSpace(channels, inside)
        self.noise = _make_noise(config.denoiser, channels, inside)
        self.denoiser = Denoiser(
            config.denoiser, info.vocabulary, channels, inside, config.autoencoder.factor
        ).eval()
        self.observation = ObservationNoise(grid.shape)
        self.records: dict[str, Path] = {}

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules that have a weights file, by its name."""
        return {
            "autoencoder": self.autoencoder,
            "latent_space": self.space,
            "noise": self.noise,
            "denoiser": self.denoiser,
            "observation": self.observation,
        }

    def to(self, device: torch.device) -> Model:
        """Move every part to a device."""
        for part in self.parts().values():
            part.to(device)
        return self

    def save(self, directory: Path) -> None:
        """Write the model directory; it appears only when complete."""
        temporary = directory.with_name(f".{directory.name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, part in self.parts().items():
            save_weights(temporary / f"{name}.safetensors", part)
        mask = nib.Nifti1Image(self.grid.mask.astype(np.uint8), self.grid.affine)
        nib.save(mask, temporary / "mask.nii.gz")
        for name, path in self.records.items():
            shutil.copyfile(path, temporary / name)
        write_json(temporary / "config.json", self._description(temporary))
        (temporary / "README.md").write_text(self._card(), encoding="utf-8")
        temporary.rename(directory)

    def _card(self) -> str:
        """Content of README.md."""
        info = self.info
        sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in self.parts().items()}
        preset = str(info.provenance.get("preset", "custom"))
        return model_card(preset, info.split, info.vocabulary, info.space, self.grid.shape, sizes)

    def _description(self, directory: Path) -> dict[str, Any]:
        """Content of config.json."""
        info = self.info
        files = [directory / f"{name}.safetensors" for name in WEIGHTS]
        return {
            "format": FORMAT,
            "fmrisynth_version": __version__,
            "config": to_json(info.config),
            "vocabulary": info.vocabulary.to_json(),
            "split": to_json(info.split),
            "scale": info.scale,
            "space": info.space,
            "grid": {"shape": list(self.grid.shape), "affine": self.grid.affine.tolist()},
            "provenance": dict(info.provenance),
            "hashes": {path.name: hash_files([path]) for path in files},
        }

    @classmethod
    def load(cls, directory: Path) -> Model:
        """Read a model directory.

        Raises
        ------
        ModelError
            A file is missing, damaged, altered, or does not fit; the message
            names it.
        """
        info = read_info(directory)
        mask_path = directory / "mask.nii.gz"
        try:
            mask = np.asarray(nib.Nifti1Image.from_filename(mask_path).dataobj) > 0
        except Exception as error:  # nibabel raises many kinds on damaged files
            raise ModelError(
                f"{mask_path} is not a readable mask ({error}); copy the model again."
            ) from None
        content = read_json(directory / "config.json")
        shape, affine = _grid_of(content)
        if mask.shape != shape:
            raise ModelError(f"{mask_path} has shape {mask.shape}, but config.json says {shape}.")
        if not mask.any():
            raise ModelError(f"{mask_path} is empty; copy the model again.")
        try:
            model = cls(info, Grid(shape, affine, mask))
        except Exception as error:  # sizes of the right type that no network can have
            raise ModelError(
                f"{directory / 'config.json'} describes networks that cannot be built "
                f"({type(error).__name__}: {error}). Was it changed? Copy the model again."
            ) from None
        for name, part in model.parts().items():
            path = directory / f"{name}.safetensors"
            load_weights(path, part)
            found, expected = hash_files([path]), content["hashes"].get(path.name)
            if found != expected:
                raise ModelError(
                    f"{path} has the SHA-256 {found[:12]}…, but config.json expects "
                    f"{str(expected)[:12]}…; the file was changed or belongs to another model."
                )
        return model


def _make_noise(
    config: DenoiserConfig, channels: int, mask: Tensor
) -> ModalNoise | ColouredNoise | WhiteNoise:
    """Make the diffusion's noise, before it is fitted."""
    if config.noise == "white":
        return WhiteNoise(channels, mask)
    if config.noise_modes == 0:
        return ColouredNoise(channels, mask, frames=config.n_frames)
    return ModalNoise(
        channels, mask, config.noise_modes, config.noise_participant_rank, frames=config.n_frames
    )


def _grid_of(content: Mapping[str, Any]) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the model grid in config.json; ValueError where they are none."""
    x, y, z = (int(n) for n in content["grid"]["shape"])
    affine = np.array(content["grid"]["affine"], dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError("grid.affine is no 4 × 4 matrix")
    return (x, y, z), affine


def read_info(directory: Path) -> ModelInfo:
    """Read config.json alone, without any weights.

    Raises
    ------
    ModelError
        It is missing, from another format, or has unknown or missing settings.
    """
    path = directory / "config.json"
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {content.get('format')!r}, this version of fmrisynth "
            f"({__version__}) reads format {FORMAT}; train the model again."
        )
    expected = {"config", "vocabulary", "split", "scale", "space", "grid", "provenance", "hashes"}
    if missing := sorted(expected - content.keys()):
        raise ModelError(f"{path} lacks {', '.join(missing)}; the model is damaged.")
    try:
        vocabulary = Vocabulary.from_json(content["vocabulary"])
        scale = float(content["scale"])
        _grid_of(content)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}")
        if not (isinstance(content["hashes"], dict) and isinstance(content["provenance"], dict)):
            raise TypeError("hashes or provenance is no object")
        if not isinstance(content["space"], str | None):
            raise TypeError("space is no text")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path} is damaged: {type(error).__name__}: {error}. Copy the model again."
        ) from None
    return ModelInfo(
        config=from_json(ModelConfig, content["config"], f"{path}: config"),
        vocabulary=vocabulary,
        split=from_json(Split, content["split"], f"{path}: split"),
        scale=scale,
        space=content["space"],
        provenance=content["provenance"],
        digest=hash_json(content["hashes"])[:16],
    )
