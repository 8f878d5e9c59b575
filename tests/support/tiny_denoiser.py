"""A denoiser of the tiny model with all paths open, and what it is called with."""

import torch

from fmrisynth.model.denoiser.denoiser import Denoiser
from support.tiny_model import (
    DENOISER,
    LATENT,
    N_FRAMES,
    VOCABULARY,
    blocks,
    perturb,
    run_condition,
)

CHANNELS = 2
MASK = torch.ones(LATENT, dtype=torch.bool)
MASK[0] = MASK[:, :, -2:] = False


def make(config=DENOISER, mask=MASK, *, seed=0, wild=0.3, patch=2):
    """A denoiser whose zero-initialised layers were moved, so that all paths are open."""
    torch.manual_seed(seed)
    denoiser = Denoiser(config, VOCABULARY, CHANNELS, mask, patch).eval()
    if wild:
        perturb(denoiser, wild)
    return denoiser


def noisy(count=1, mask=MASK, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, N_FRAMES, CHANNELS, *mask.shape, generator=generator) * mask


def condition(events=None, start=4, **more):
    events = blocks("hand", "foot", "hand") if events is None else events
    return run_condition(events, **more).window(start, N_FRAMES)


@torch.no_grad()
def output(denoiser, window, x=None, theta=0.9):
    x = noisy() if x is None else x
    return denoiser(x, torch.full((len(x),), theta), window)


def size(values):
    return float(values.detach().square().mean().sqrt())
