"""Weights in the layout of VQModel of taming-transformers, in 3D: read and checked.

`fmrisynth.model.autoencoder.vqgan.VQGAN` has the same module names, so that loading
is a matter of picking the autoencoder's tensors and saying clearly what does
not fit.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.weights import load_tensors

__all__ = ["load_taming_state_dict", "read_taming_checkpoint"]

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
        passed over.
    source : str
        Where it is from, for the message.

    Raises
    ------
    ModelError
        Tensors are missing, unexpected, or of another shape.
    """
    found = {k: t for k, t in state.items() if not k.startswith(NOT_THE_AUTOENCODER)}
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + ("; …" if len(problems) > 6 else "")
        raise ModelError(
            f"{source} does not fit this VQ-GAN, {len(problems)} tensors differ: {shown}. "
            "Choose the configuration it was trained with: base_width, multipliers, blocks, "
            "middle_blocks, latent_channels, codebook_size; patch 1 and no linear path."
        )
    model.load_state_dict(found)
