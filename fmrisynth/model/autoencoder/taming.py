"""Read and check VQ-GAN checkpoints in the layout of taming-transformers, in 3D.

`fmrisynth.model.autoencoder.vqgan.VQGAN` has the same module names, so that loading picks
the autoencoder's tensors and says clearly what does not fit. The setting
``autoencoder_training.init`` starts a training from such a checkpoint.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.weights import load_tensors

__all__ = ["load_taming_state_dict", "read_initial_state", "read_taming_checkpoint"]

# `loss.` holds the discriminator and the perceptual network, `spade.` the switch between
# image contrasts that Kim et al. put behind the quantiser, unused in their first stage
NOT_THE_AUTOENCODER = ("loss.", "spade.")


def read_taming_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without executing anything in it.

    Parameters
    ----------
    path : pathlib.Path
        ``.safetensors``, or a ``.ckpt``, ``.pt`` or ``.pth`` written by torch,
        with the tensors at its top level or under ``state_dict``.

    Raises
    ------
    ModelError
        The file is missing, damaged, or holds anything but tensors and plain
        containers.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if not path.is_file():
        raise ModelError(f"{path} does not exist; expected a VQ-GAN checkpoint there.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}), and nothing else "
            "is read from a checkpoint. If you trust the file, save its state_dict as .safetensors."
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ModelError(f"{path} holds no state_dict: expected a mapping of names to tensors.")
    return state


def load_taming_state_dict(
    model: VQGAN, state: Mapping[str, Tensor], *, source: str = "The checkpoint"
) -> None:
    """Load weights in taming-transformers' layout, strict about names and shapes.

    Parameters
    ----------
    model : VQGAN
        Receives the weights.
    state : mapping of str to Tensor
        The checkpoint; tensors of the discriminator and the perceptual loss are
        left out.
    source : str
        Name of the checkpoint, for the message.

    Raises
    ------
    ModelError
        Tensors are missing, unexpected, or of another shape.
    """
    model.load_state_dict(_autoencoder_tensors(model, state, source))


def read_initial_state(path: Path, config: VQGANConfig) -> dict[str, Tensor]:
    """Read the weights to start a training from, and check that they fit its settings.

    Parameters
    ----------
    path : pathlib.Path
        Checkpoint, as for `read_taming_checkpoint`.
    config : VQGANConfig
        Shape of the autoencoder that is to be trained.

    Returns
    -------
    dict of str to Tensor
        The autoencoder's tensors alone.

    Raises
    ------
    ModelError
        The file cannot be read, or does not fit.
    """
    state = read_taming_checkpoint(path)
    with torch.device("meta"):  # names and shapes without the memory
        model = VQGAN(config)
    return _autoencoder_tensors(model, state, str(path))


def _autoencoder_tensors(
    model: VQGAN, state: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Pick the autoencoder's tensors of a checkpoint; ModelError where they do not fit."""
    given = {k: t for k, t in state.items() if not k.startswith(NOT_THE_AUTOENCODER)}
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [f"{name} is not expected" for name in given if name not in expected]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems += [
        f"{name} holds NaN or Inf"
        for name, tensor in given.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if problems:
        shown = "; ".join(problems[:6]) + ("; …" if len(problems) > 6 else "")
        raise ModelError(
            f"{source} does not fit this VQ-GAN, {len(problems)} tensors differ: {shown}. "
            "Choose the settings it was trained with by --set autoencoder.NAME=VALUE: "
            "base_width, multipliers, blocks, middle_blocks, norm_groups, latent_channels, "
            "codebook_size; patch=1 and linear_path=false."
        )
    return given
