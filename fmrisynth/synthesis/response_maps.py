"""Compute the responses that synthetic participants are given, as maps on a run's grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.preprocess.carrier import Carrier
from fmrisynth.preprocess.grid import resample
from fmrisynth.synthesis.synthesiser import Synthesiser

__all__ = ["response_maps"]


def response_maps(
    synthesiser: Synthesiser, run: Run, carrier: Carrier, deviation: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Compute the response that a synthetic participant has to each trial type of a task.

    Parameters
    ----------
    synthesiser : Synthesiser
        Model and sampling settings.
    run, carrier, deviation
        As for `Synthesiser.synthesise`.

    Returns
    -------
    dict of str to ndarray of shape (X, Y, Z)
        Trial type → percent signal change per unit of the canonical regressor, on the run's
        grid; empty without a response model.
    """
    model = synthesiser.model
    learned = model.info.vocabulary.trial_types
    names = [(k, name) for k, (task, name) in enumerate(learned) if task == run.task]
    if not (names and model.response.present):
        return {}
    device = model.latent_space.mask.device
    amplitude = synthesiser.sampling.guidance / float(model.decoder_noise.evoked_gain)
    evoked = torch.zeros(len(names), len(learned), 2, device=device)
    for row, (k, _) in enumerate(names):
        evoked[row, k, 0] = amplitude
    mean_image = torch.from_numpy(synthesiser.anatomy(carrier)[0]).to(device)
    with torch.inference_mode():
        latents = model.response.synthetic(evoked, mean_image, deviation)
        decoded = synthesiser.decode(latents) - synthesiser.decode(torch.zeros_like(latents))
    shape = (carrier.mask.shape[0], carrier.mask.shape[1], carrier.mask.shape[2])
    moved = resample(decoded, model.grid.affine, carrier.affine, shape) * carrier.mask[..., None]
    return {name: moved[..., row] for row, (_, name) in enumerate(names)}
