"""A run of any size, on disk, and a model of it without training."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs, write_synthetic_run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_mask
from fmrisynth.config.model import ModelConfig
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.model.info import ModelInfo
from fmrisynth.model.model import Model
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.preprocess.carrier import removed_basis
from fmrisynth.preprocess.grid import choose_grid
from fmrisynth.preprocess.splits import Split

TRIAL_TYPES = ("faces", "houses", "bodies", "tools")
NOISE_FRAMES = 64  # of white noise that an untrained model's noise is fitted to


def write_run(folder: Path, shape: tuple[int, int, int], n_volumes: int, t_r: float) -> Run:
    """Write a run with an ellipsoid brain, an even anatomy and 1 % of smooth noise.

    A box of 46 × 55 × 46 voxels is 184 × 220 × 184 mm large, and so is any other.
    """
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1.15, 1.15, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    mask = radius < 1
    size = 184 / shape[0]
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    mean = (mask * (1000 + 200 * np.cos(3 * radius))).astype(np.float32)
    bold = np.empty((*shape, n_volumes), np.float32)
    noise = np.zeros(shape, np.float32)
    for t in range(n_volumes):
        new = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.7)
        noise = 0.3 * noise + new
        bold[..., t] = mean * (1 + 0.03 * noise)
    folder.mkdir(parents=True, exist_ok=True)
    onsets = np.arange(10, n_volumes * t_r - 20, 20.0)
    lines = [f"{onset:g}\t12\t{TRIAL_TYPES[i % 4]}\n" for i, onset in enumerate(onsets)]
    events = folder / "events.tsv"
    events.write_text("onset\tduration\ttrial_type\n" + "".join(lines))
    run = Run(
        entities={"sub": "01", "task": "benchmark"}, bold=folder / "none.nii.gz", mask=None,
        events=events, space="MNI152NLin2009cAsym", resolution=None, t_r=t_r, start_time=0.0,
        shape=shape, n_volumes=n_volumes, affine=affine, phase_encoding="j", site="unknown",
    )  # fmt: skip
    write_synthetic_run(folder, run, bold, mask, provenance={})
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """Return the run that `write_run` wrote."""
    (run,) = find_synthetic_runs(folder)
    return run


def untrained_model(config: ModelConfig, run: Run) -> Model:
    """Every part of a model at the size that it has for a run; time does not depend on weights."""
    torch.manual_seed(0)
    mask = load_mask(run)
    assert mask is not None
    grid = choose_grid(
        [(mask, run.affine)], config.preprocess.voxel_size, config.autoencoder.factor
    )
    vocabulary = Vocabulary.of([run], [read_events(run.events)])
    info = ModelInfo(config, vocabulary, Split(("01",), ()), 1.0, run.space, {})
    model = Model.unfitted(info, grid)
    inside = model.latent_space.mask
    white = torch.randn(NOISE_FRAMES, model.latent_space.channels, *inside.shape) * inside
    basis = removed_basis(NOISE_FRAMES, run.t_r, config.preprocess.high_pass)
    model.noise.fit([white], basis)
    model.noise_level.typical_sd.fill_(1.0)
    model.decoder_noise.decoded_sd.fill_(0.8)
    model.decoder_noise.error_sd.fill_(0.4)
    _let_participants_differ(model)
    return model


def _let_participants_differ(model: Model) -> None:
    """Fill a model so that participants' own responses and noise are inferred."""
    if isinstance(model.noise, ModalNoise):
        model.noise.signal_per_frame.fill_(0.02)
        model.noise.remainder_signal.fill_(0.02)
    response, prior = model.response, model.response.prior
    prior.sd.fill_(0.1)
    for values in (
        response.maps, response.coefficients, prior.fields, prior.gradients, prior.noise_modes,
    ):  # fmt: skip
        values.copy_(0.1 * torch.randn(values.shape))


def voxels(run: Run) -> int:
    """Brain voxels."""
    assert run.mask is not None
    return int(np.count_nonzero(np.asarray(nib.Nifti1Image.from_filename(run.mask).dataobj)))
