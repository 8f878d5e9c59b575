"""The surprise at runs under the noise that is inferred from their participant's other runs.

The courses of the noise's modes in each run of the held-out participants are Gaussian with a
covariance: the group's, or the one inferred from the participant's other runs, as for writing that
run. Negative log likelihood per value (nats, less the constant), averaged over frames, runs and
participants, of the first modes and of all; the difference is paired, with Student's 95 % interval
over participants.

    python benchmarks/noise_likelihood.py BIDS_DIR MODEL_DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import head, machine, row
from scipy.stats import t as student
from torch import Tensor

from fmrisynth import Model, find_runs
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.protocol import RunNoise
from fmrisynth.preprocess.carrier import removed_basis
from fmrisynth.synthesis.run_statistics import SiblingReader

FIRST = 64  # modes


def covariance(noise: ModalNoise) -> Tensor:
    """Compute the covariance of the modes' courses in runs, (K, K) float64."""
    variance = noise.window_autocovariance[:, 0].double()  # as seen, without mean and drift
    if noise.axes is None:
        return variance.diag()
    axes = noise.axes.double()
    return axes * variance @ axes.T


def surprise(courses: Tensor, expected: Tensor, count: int) -> float:
    """Compute the negative log likelihood of a value of the first courses, of (N, K)."""
    values, size = courses[:, :count].double(), min(count, courses.shape[1])
    root = torch.linalg.cholesky(expected[:count, :count] + 1e-9 * torch.eye(size))
    white = torch.linalg.solve_triangular(root, values.T, upper=False)
    spread = white.square().sum() / (2 * values.numel())
    return float(root.diagonal().log().sum() / size + spread)


def compare(
    runs: Sequence[RunNoise], noise: ModalNoise, removed: Sequence[np.ndarray]
) -> np.ndarray:
    """Average over a participant's runs: (first, all) by (group, inferred), (2, 2)."""
    counts, found = (FIRST, noise.observed.shape[0]), []
    for i, run in enumerate(runs):
        inferred = noise.infer([other for j, other in enumerate(runs) if j != i], removed[i])
        assert isinstance(inferred, ModalNoise)  # as the group's is
        both = covariance(noise), covariance(inferred)
        courses = run.courses.float()
        found.append([[surprise(courses, matrix, count) for matrix in both] for count in counts])
    return np.mean(found, axis=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("model_dir", type=Path)
    options = parser.parse_args()
    model = Model.load(options.model_dir)
    noise, high_pass = model.noise, model.info.config.preprocess.high_pass
    if not isinstance(noise, ModalNoise) or not model.response.prior.present:
        raise SystemExit(f"{options.model_dir} holds no noise that differs between participants.")
    reader = SiblingReader(model, model.response.inference(), None)
    known: dict[str, list[tuple[RunNoise, np.ndarray]]] = {}
    for run in find_runs(options.bids_dir).runs:
        if model.info.split.role(run.participant) != "held_out":
            continue
        statistics = reader.read(run)[1]
        if statistics is not None and statistics.noise is not None:
            basis = removed_basis(run.n_volumes, run.t_r, high_pass)
            known.setdefault(run.participant, []).append((statistics.noise, basis))
    found = np.array(
        [
            compare([run for run, _ in mine], noise, [basis for _, basis in mine])
            for mine in known.values()
        ]
    )
    print(machine("cpu"))
    print(head("modes", "participants", "group", "inferred", "difference"))
    for k, modes in enumerate((f"first {FIRST}", f"all {noise.observed.shape[0]}")):
        group, inferred = found[:, k, 0], found[:, k, 1]
        change = inferred - group
        half = student.ppf(0.975, len(change) - 1) * change.std(ddof=1) / len(change) ** 0.5
        mean = change.mean()
        interval = f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"
        print(row(modes, len(found), f"{group.mean():.4f}", f"{inferred.mean():.4f}", interval))


if __name__ == "__main__":
    main()
