"""How often a GLM finds an effect where nothing happened: random designs on runs of any dataset.

Each run is fitted with designs that nobody was scanned with, by nilearn's first-level model with
cosines slower than 128 s. The share of voxels with p < .05 (two-sided) is .05 where the model of
the noise holds. Four columns tell why it does not:

- ols: without any model of the autocorrelation;
- ar1: with an AR(1) model of each voxel, as nilearn has it by default;
- phases: the same of the runs with random phases, that is Gaussian, stationary noise of the same
  spectra. What differs from "ar1" comes from bursts, tails and changes of level;
- exact: of AR(1) noise with each voxel's coefficient. What differs from .05 comes from the
  length of the run; what "phases" has beyond it, from spectra that no AR(1) process has.

"group" is the share of voxels with p < .05 in a t test of the effects over participants (one run of
each), who all have the same random design: .05 where nothing that is locked to time is shared.

"lag1" to "lag3" are the autocorrelations of the residuals, as they are and after whitening: of
spectra that AR(1) describes, those after whitening are near 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix, run_glm
from scipy import stats

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_bold_runs
from fmrisynth.bids.selection import Selection

HIGH_PASS = 1 / 128  # Hz
LEVEL = 0.05
BLOCK, EVERY = 12.0, 30.0  # s: length of a block, and of the time that holds one
BINS = 100  # classes of the AR(1) coefficient, nilearn's default
FIRST = ("ols", "ar1", "phases", "exact")
LAGS = ("lag1", "lag2", "lag3", "white1", "white2", "white3")
COLUMNS = (*FIRST, "group", *LAGS)


def random_design(run: BoldRun, rng: np.random.Generator) -> np.ndarray:
    """Draw a design (T, K): the response to blocks at random times, drift, constant."""
    starts = np.arange(0.0, run.n_volumes * run.t_r - EVERY + 1e-9, EVERY)
    onsets = starts + rng.uniform(0.0, EVERY - BLOCK, len(starts))
    events = pd.DataFrame({"onset": onsets, "duration": BLOCK, "trial_type": "block"})
    times = run.t_r * np.arange(run.n_volumes)
    design = make_first_level_design_matrix(
        times, events, hrf_model="glover", drift_model="cosine", high_pass=HIGH_PASS
    )
    return np.asarray(design.to_numpy(), dtype=float)  # the block's column comes first


def percent(values: np.ndarray) -> np.ndarray:
    """Express a signal (T, V) in percent of its mean; NaN where that is not positive."""
    mean = values.mean(axis=0, dtype=float)
    return 100.0 * (values / np.where(mean > 0, mean, np.nan) - 1.0)


def random_phases(series: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a series (T, V) random phases; amplitudes at all frequencies stay."""
    spectrum = np.fft.rfft(series, axis=0)
    phases = np.exp(2j * np.pi * rng.random(spectrum.shape))
    phases[0] = 1.0
    if len(series) % 2 == 0:
        phases[-1] = 1.0
    return np.fft.irfft(spectrum * phases, len(series), axis=0)


def autoregressive(rho: np.ndarray, n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw stationary AR(1) noise of unit variance, (T, V)."""
    noise = rng.standard_normal((n_volumes, len(rho)))
    noise[1:] *= np.sqrt(1.0 - rho**2)
    for t in range(1, n_volumes):
        noise[t] += rho * noise[t - 1]
    return noise


def share_found(series: np.ndarray, design: np.ndarray, noise_model: str) -> float:
    """Return the share of voxels whose first column has p < .05."""
    labels, results = run_glm(series, design, noise_model=noise_model, bins=BINS)
    found = 0
    for label in np.unique(labels):
        contrast = results[label].Tcontrast(np.eye(design.shape[1])[0])
        p = 2.0 * stats.t.sf(np.abs(contrast.t), contrast.df_den)
        found += int((p < LEVEL).sum())
    return found / series.shape[1]


def autocorrelation(residuals: np.ndarray, lag: int) -> np.ndarray:
    """Return the autocorrelation of residuals (T, V) at a lag, (V,)."""
    return (residuals[lag:] * residuals[:-lag]).sum(axis=0) / np.square(residuals).sum(axis=0)


def measure(run: BoldRun, n_designs: int, n_voxels: int, seed: int) -> dict[str, float]:
    """Return the values of `COLUMNS` of a run."""
    rng = np.random.default_rng(seed)
    bold = load_bold(run)
    series = percent(bold.data[bold.mask].T)
    series = series[:, np.isfinite(series).all(axis=0) & (series.std(axis=0) > 0)]
    series = series[:, rng.permutation(series.shape[1])[:n_voxels]]
    designs = [random_design(run, rng) for _ in range(n_designs)]
    drift = designs[0][:, 1:]
    residuals = series - drift @ np.linalg.lstsq(drift, series, rcond=None)[0]
    rho = autocorrelation(residuals, 1)
    white = residuals[1:] - rho * residuals[:-1]
    surrogates = {
        "phases": random_phases(residuals, rng),
        "exact": autoregressive(rho, run.n_volumes, rng),
    }
    values = {
        "ols": np.mean([share_found(series, design, "ols") for design in designs]),
        "ar1": np.mean([share_found(series, design, "ar1") for design in designs]),
    }
    for name, noise in surrogates.items():
        values[name] = np.mean([share_found(noise, design, "ar1") for design in designs])
    for lag in (1, 2, 3):
        values[f"lag{lag}"] = np.median(autocorrelation(residuals, lag))
        values[f"white{lag}"] = np.median(autocorrelation(white, lag))
    return {name: float(value) for name, value in values.items()}


def group_shares(runs: Sequence[BoldRun], n_designs: int) -> list[float]:
    """Return the share of voxels that a t test over participants finds, design by design."""
    first = {run.participant: run for run in reversed(runs)}
    length = min(run.n_volumes for run in first.values())
    same = [run for run in first.values() if run.shape == runs[0].shape and run.t_r == runs[0].t_r]
    bolds = [load_bold(run) for run in same]
    brain = np.all([bold.mask for bold in bolds], axis=0)
    series = [percent(bold.data[brain].T[:length]) for bold in bolds]
    usable = np.all([np.isfinite(s).all(axis=0) & (s.std(axis=0) > 0) for s in series], axis=0)
    rng, shares = np.random.default_rng(0), []
    for _ in range(n_designs):
        inverse = np.linalg.pinv(random_design(replace(same[0], n_volumes=length), rng))[0]
        effects = np.stack([inverse @ s[:, usable] for s in series])
        shares.append(float((stats.ttest_1samp(effects, 0.0).pvalue < LEVEL).mean()))
    return shares


def chosen_runs(dataset: Path, selection: Selection) -> Sequence[BoldRun]:
    """Find the runs of an output of fmrisynth, else those of a BIDS dataset."""
    synthetic = [
        run
        for run in find_synthetic_runs(dataset)
        if (not selection.participants or run.participant in selection.participants)
        and (not selection.tasks or run.task in selection.tasks)
    ]
    return synthetic or find_bold_runs(dataset, selection=selection)


def cell(values: pd.Series) -> str:
    """Write a mean with its standard error."""
    return f"{values.mean():.3f} ± {values.sem():.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each dataset: means over runs or designs, and their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="BIDS datasets or outputs")
    parser.add_argument("-t", "--task", nargs="+", default=(), help="tasks; all by default")
    parser.add_argument("--participants", nargs="+", default=(), help="labels; all by default")
    parser.add_argument("--designs", type=int, default=10, help="random designs of each run")
    parser.add_argument("--voxels", type=int, default=500, help="random voxels of each run")
    options = parser.parse_args(arguments)
    selection = Selection(participants=tuple(options.participants), tasks=tuple(options.task))
    print("| dataset | runs |", " | ".join(COLUMNS), "|")
    print("|---|---|" + "---|" * len(COLUMNS))
    for dataset in options.datasets:
        runs = chosen_runs(dataset, selection)
        rows = pd.DataFrame(
            [measure(run, options.designs, options.voxels, i) for i, run in enumerate(runs)]
        )
        columns = {name: rows[name] for name in rows}
        if len({run.participant for run in runs}) > 2:
            columns["group"] = pd.Series(group_shares(runs, 4 * options.designs))
        cells = [cell(columns[name]) if name in columns else "" for name in COLUMNS]
        print(f"| {dataset.name} | {len(rows)} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
