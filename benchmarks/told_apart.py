"""Tell synthetic from real runs: ``python benchmarks/told_apart.py BIDS_DIR OUTPUT_DIR…``.

A logistic regression learns to tell the two apart, from all participants but one, and is tested
on the one left out. What it is given, for 80 parcels per run: connectivity (Fisher z); the
autocorrelation at lags 1 to 3; the log standard deviation; and the standard deviation of the
parcel's mean over the mean of its voxels'. An area under the curve of .5 is chance. As a control,
one half of the participants' real runs is told from the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.preprocess.carrier import split

N_PARCELS = 80
HIGH_PASS = 1 / 128
FEATURES = ("connectivity", "lags", "log SD", "SD ratio")


def parcels_of(mask: np.ndarray) -> np.ndarray:
    """Divide a brain into compact parcels; -1 outside, (X, Y, Z)."""
    labels = np.full(mask.shape, -1)
    labels[mask] = KMeans(N_PARCELS, n_init=1, random_state=0).fit_predict(np.argwhere(mask))
    return labels


def features_of(run: Run, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Measure one run.

    Parameters
    ----------
    run : Run
        On the grid of the parcels.
    labels : ndarray of shape (X, Y, Z)
        Parcel of each voxel.
    """
    carrier, residual = split(load_bold(run), HIGH_PASS)
    inside = carrier.mask & (labels >= 0)
    series, parcel = residual[inside].T, labels[inside]  # T V
    count = np.maximum(np.bincount(parcel, minlength=N_PARCELS), 1)
    average = np.zeros((len(parcel), N_PARCELS), np.float32)
    average[np.arange(len(parcel)), parcel] = 1 / count[parcel]
    mean = series @ average  # T 80
    power = np.maximum(np.square(mean).sum(0), 1e-9)
    lags = [(mean[k:] * mean[:-k]).sum(0) / power for k in (1, 2, 3)]
    pairs = np.triu_indices(N_PARCELS, 1)
    correlation = np.nan_to_num(np.corrcoef(mean.T))[pairs]
    deviation = np.maximum(mean.std(0), 1e-6)
    return {
        "connectivity": np.arctanh(np.clip(correlation, -0.999, 0.999)),
        "lags": np.concatenate(lags),
        "log SD": np.log(deviation),
        "SD ratio": deviation / np.maximum(series.std(0) @ average, 1e-6),
    }


def told_apart(
    real: np.ndarray, other: np.ndarray, real_who: Sequence[str], other_who: Sequence[str]
) -> float:
    """Return the area under the curve of a classifier that has not seen the participant."""
    x = np.concatenate([real, other])
    y = np.repeat([0, 1], [len(real), len(other)])
    who = np.array([*real_who, *other_who])
    score = np.zeros(len(y))
    for label in np.unique(who):
        out = who == label
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        score[out] = model.fit(x[~out], y[~out]).decision_function(x[out])
    return float(roc_auc_score(y, score))


def measure(runs: Sequence[Run], labels: np.ndarray, title: str) -> dict[str, np.ndarray]:
    """Measure all runs, features by name as (runs, values)."""
    rows = [features_of(run, labels) for run in tqdm(runs, desc=title, unit="run")]
    return {name: np.stack([row[name] for row in rows]) for name in FEATURES}


def main() -> None:
    """Print one row per output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("outputs", type=Path, nargs="+", metavar="output_dir")
    options = parser.parse_args()
    synthetic = {out: find_synthetic_runs(out) for out in options.outputs}
    held_out = {
        run.participant
        for runs in synthetic.values()
        for run in runs
        if run.metadata[PROVENANCE_KEY].get("ParticipantRole", "held_out") != "training"
    }
    real = [r for r in find_runs(options.bids_dir).runs if r.participant in held_out]
    labels = parcels_of(load_bold(real[0]).mask)
    measured = measure(real, labels, "real")
    who = [run.participant for run in real]
    print("| AUC |", " | ".join(FEATURES), "|")
    print("|---|" + "---|" * len(FEATURES))
    half = np.arange(len(real)) % 2 == 0
    labels_a = [w for w, h in zip(who, half, strict=True) if h]
    labels_b = [w for w, h in zip(who, half, strict=True) if not h]
    control = [
        told_apart(measured[name][half], measured[name][~half], labels_a, labels_b)
        for name in FEATURES
    ]
    print("| real against real |", " | ".join(f"{auc:.2f}" for auc in control), "|")
    for out, runs in synthetic.items():
        chosen = [run for run in runs if run.participant in held_out]
        other = measure(chosen, labels, out.name)
        row = [
            told_apart(measured[name], other[name], who, [r.participant for r in chosen])
            for name in FEATURES
        ]
        print(f"| {out.name} |", " | ".join(f"{auc:.2f}" for auc in row), "|")


if __name__ == "__main__":
    main()
