"""Simulate runs with BrainIAK's fmrisim, the simulator that is used most today.

What is fmrisim's own (Ellis et al. 2020, PeerJ 8:e8564), called as it is:

- `calc_noise` estimates, from each of a bounded number of training runs, the
  signal-to-fluctuation-noise ratio (SFNR), the ARMA(1, 1) coefficients of 100
  voxels (`auto_reg_rho`, `ma_rho`) and the smoothness (`fwhm`). It sees the run
  on its brain's box without drift, which belongs to the carrier, and without the
  group's response, which is the signal.
- `generate_noise` makes Gaussian random fields of that smoothness with that
  ARMA, half of the temporal variance replaced by white system noise, and adapts
  SFNR and AR to the estimate in at most `FIT_ITERATIONS` rounds. Its own limit is
  20, which it uses up where the autocorrelation is small, at 9 s a round.

`calc_noise` sets the drift, task and physiological parts to zero. The SNR, the
part of the noise that is static, plays no role: it is measured outside the
head, which preprocessed data no longer have, and the mean image is the
carrier's. To the noise, in percent of the mean, come the betas of the group GLM
as the signal; mean image and drift are those of the run that is imitated.

fmrisim spreads the noise evenly over the brain, in the run's units; it knows no
map of the noise level, and no smoothness but that of whole volumes, anatomy
included. This is left as it is.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmrisynth.baselines.group_response import GroupResponse, fit_group_response
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError, UsageError
from fmrisynth.preprocess.carrier import Carrier, drift_basis, merge, remove_drift, split
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.randomness import keyed_seed
from fmrisynth.runtime.workers import Map

__all__ = [
    "Fmrisim",
    "TrainingNoise",
    "estimate_noise",
    "fit_fmrisim",
    "simulate",
]

NOISE_RUNS = 8  # training runs that the noise is estimated from, at most; a minute each
FIT_ITERATIONS = 5  # "usually converges after < 5", says its documentation
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class TrainingNoise:
    """What fmrisim measured in one training run.

    Attributes
    ----------
    task : str
        Of the run.
    parameters : mapping
        fmrisim's noise dictionary, without what belongs to one grid.
    """

    task: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Fmrisim:
    """A fitted simulator.

    Attributes
    ----------
    response : GroupResponse
        The signal.
    noises : tuple of TrainingNoise
        One of them, of the same task where there is one, is drawn for each run.
    fit_iterations : int
        Rounds at most in which SFNR and AR are adapted; 0 takes fmrisim's first draw.
    """

    response: GroupResponse
    noises: tuple[TrainingNoise, ...]
    fit_iterations: int = FIT_ITERATIONS


def fit_fmrisim(runs: Sequence[Run], high_pass: float, seed: int, each: Map = map) -> Fmrisim:
    """Fit the signal to all training runs, and the noise to some of them.

    Parameters
    ----------
    runs : sequence of Run
        Real runs of the training participants.
    high_pass : float
        Highest drift frequency, Hz.
    seed : int
        Of the choice of runs, and of fmrisim's choice of voxels and frames.
    each : Map
        Reads the runs.

    Raises
    ------
    UsageError
        BrainIAK is not installed.
    DataError
        There is no run, or none of which fmrisim can describe the noise.
    """
    _library()  # before minutes of work
    response = fit_group_response(runs, high_pass, each)
    keys = [keyed_seed(seed, "fmrisim noise", run.label) for run in runs]
    order = sorted(range(len(runs)), key=keys.__getitem__)
    chosen = sorted(_spread_over_tasks(runs, order)[:NOISE_RUNS])
    noises = []
    for index in track(chosen, desc="Noise (fmrisim)", unit="run"):
        noise = estimate_noise(runs[index], response, keys[index])
        if all(np.isfinite(np.ravel(value)).all() for value in noise.parameters.values()):
            noises.append(noise)
    if not noises:
        raise DataError(
            f"fmrisim found no finite noise parameters in any of {len(chosen)} training runs, "
            f"such as {runs[chosen[0]].bold}; check that they hold data inside their brain masks, "
            "or leave this baseline out."
        )
    return Fmrisim(response, tuple(noises))


def _spread_over_tasks(runs: Sequence[Run], order: Sequence[int]) -> list[int]:
    """Reorder runs so that each task comes once before any comes twice."""
    seen: dict[str, int] = {}
    ranked = []
    for place, index in enumerate(order):
        task = runs[index].task
        seen[task] = seen.get(task, 0) + 1
        ranked.append((seen[task], place, index))
    return [index for _, _, index in sorted(ranked)]


def estimate_noise(run: Run, response: GroupResponse, seed: int) -> TrainingNoise:
    """Let fmrisim describe the noise of one run: what drift and group response leave."""
    carrier, residual = split(load_bold(run, brain_only=True), response.high_pass, overwrite=True)
    residual -= response.evoked_on(run, carrier)
    box = _brain_box(carrier.mask)
    mean, mask = carrier.mean[box].astype(np.float64), carrier.mask[box]
    volumes = mean[..., None] * (1 + residual[box] / 100)
    del residual
    library = _library()
    with _seeded(seed):
        measured = library.calc_noise(volumes, mask, mean / mean.max(), {"voxel_size": _sizes(run)})
    used = ("auto_reg_rho", "ma_rho", "auto_reg_sigma", "sfnr", "fwhm")
    return TrainingNoise(run.task, {key: measured[key] for key in used})


def simulate(model: Fmrisim, run: Run, seed: int) -> tuple[np.ndarray, Carrier]:
    """Simulate one run on its own grid, with its own carrier.

    Returns
    -------
    bold : numpy.ndarray
        (X, Y, Z, T) float32 in the run's units.
    carrier : Carrier
        Its mask is the brain that was filled.
    """
    high_pass = model.response.high_pass
    carrier, _ = split(load_bold(run, brain_only=True), high_pass, overwrite=True)
    alike = [noise for noise in model.noises if noise.task == run.task] or model.noises
    noise = alike[int(np.random.default_rng(seed).integers(len(alike)))]
    series = _generated(noise, run, carrier, seed, model.fit_iterations)  # T V
    filtered = remove_drift(series, drift_basis(len(series), run.t_r, high_pass))
    # the carrier brings its own drift: without the filtered one, keep the variance as it was
    filtered *= series.std() / max(float(filtered.std()), 1e-6)
    residual = model.response.evoked_on(run, carrier)
    residual[carrier.mask] += filtered.T.astype(np.float32)
    return merge(carrier, residual, high_pass), carrier


def _generated(
    noise: TrainingNoise, run: Run, carrier: Carrier, seed: int, iterations: int
) -> np.ndarray:
    """Draw fmrisim's noise for a run's brain, in % of the mean and without it, (T, V)."""
    box = _brain_box(carrier.mask)
    mean, mask = carrier.mean[box].astype(np.float64), carrier.mask[box]
    parameters = {
        **noise.parameters,
        # it changes this list while it fits
        "auto_reg_rho": list(noise.parameters["auto_reg_rho"]),
        "max_activity": mean.max(),
        "voxel_size": _sizes(run),
        "snr": np.inf,
        "physiological_sigma": 0,
        "task_sigma": 0,
        "drift_sigma": 0,
    }
    library = _library()
    with _seeded(seed):
        drawn = library.generate_noise(
            dimensions=np.array(mask.shape),
            stimfunction_tr=[0] * run.n_volumes,  # only its length counts
            tr_duration=run.t_r,
            template=mean / mean.max(),
            mask=mask.astype(np.float64),
            noise_dict=parameters,
            iterations=[0, iterations],
        )
    series = drawn[mask].T / mean[mask] * 100
    return series - series.mean(axis=0)


def _library() -> Any:
    """Import fmrisim, only when it is asked for; BrainIAK's MPI parts stay unloaded."""
    try:
        from brainiak.utils import fmrisim
    except ImportError as error:
        raise UsageError(
            "The fmrisim baseline needs BrainIAK 0.12 or later, which cannot be imported here "
            f"({error}). Install it with: pip install 'fmrisynth[fmrisim]'"
        ) from None
    return fmrisim


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which fmrisim draws from, and silence its many warnings."""
    state = np.random.get_state()  # noqa: NPY002
    log = logging.getLogger("brainiak.utils.fmrisim")
    level = log.level
    np.random.seed(np.random.SeedSequence(seed).generate_state(1))  # noqa: NPY002
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ARMA fits that start at zero
            yield
    finally:
        log.setLevel(level)
        np.random.set_state(state)  # noqa: NPY002


def _brain_box(mask: np.ndarray) -> Box:
    """Bounding box of a mask: fmrisim's time and memory go with the box that it is given."""
    index = np.argwhere(mask)
    low, high = index.min(axis=0).tolist(), index.max(axis=0).tolist()
    x, y, z = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    return x, y, z


def _sizes(run: Run) -> list[float]:
    """Edges of a voxel, mm."""
    sizes: list[float] = np.linalg.norm(run.affine[:3, :3], axis=0).tolist()
    return sizes
