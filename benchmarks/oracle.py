"""How well a participant's true responses are inferred: beside an oracle that knows the variances.

For a phantom, whose truth is known. From a few runs of each participant who was not learned from,
the model infers how the participant's responses deviate from the group's. An oracle has the same
runs, the same description of their noise and the same group response, but the true covariance of
responses over participants: that of many who are simulated anew, through the same autoencoder. A
second one knows the true mean as well. Their maps are decoded and correlated with the true ones on
the model grid, in percent signal change, both less the group's: for the truth that is the mean over
the training participants. The control are other participants' true maps. Every run is the imitated
one in turn; the other runs of each task are those that follow it.

    python benchmarks/oracle.py BIDS_DIR MODEL_DIR --others 1 2 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations_with_replacement
from operator import add
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from measuring import head, row
from torch import Tensor

from fmrisynth import Model, find_runs
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.evaluation.measures.resampling import bootstrap_counts, interval
from fmrisynth.model.codec import decode_run, encode_run
from fmrisynth.model.individuals import Evidence, IndividualInference
from fmrisynth.phantom import texts
from fmrisynth.phantom.anatomy import DIRECTIONS, Head
from fmrisynth.phantom.cohort import MODELS
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.regional import regional_courses
from fmrisynth.phantom.responses import event_amplitudes, time_courses
from fmrisynth.phantom.simulation import Population
from fmrisynth.preprocess.carrier import drift_basis, remove_drift
from fmrisynth.preprocess.grid import resample
from fmrisynth.synthesis.run_statistics import SiblingReader

NEW_SEED = 1_000_003  # of participants who are nobody's
ORACLE, KNOWING = "oracle ", "knowing oracle "
KAPPAS = (1.0, 2.0, 4.0)  # by which noise may count, of which the oracle has the best


class Recorder(IndividualInference):
    """Keep what the evidence of a run is made from."""

    def evidence(self, moments: Tensor, residual: Tensor) -> Evidence:
        """Note the statistics, and reduce them."""
        self.noted = moments.double(), residual.double()
        return super().evidence(moments, residual)


@dataclass(frozen=True)
class Known:
    """What one run says, and what is expected of it.

    Attributes
    ----------
    evidence : Evidence
        Of the model's parameters.
    moments, residual : Tensor of shape (K, K), (K, D)
        Of the response, less what the model expects.
    expected : Tensor of shape (K, D)
        Coefficients.
    """

    evidence: Evidence
    moments: Tensor
    residual: Tensor
    expected: Tensor


@dataclass(frozen=True)
class Design:
    """Events of a run, regressors (N, K) and what is removed as drift."""

    events: pd.DataFrame
    regressors: np.ndarray
    drift: np.ndarray


class Space:
    """Move maps between percent signal change on a grid and the model's latents."""

    def __init__(self, model: Model) -> None:
        self.model, self.mask = model, model.latent_space.mask
        self._zero = self._raw(np.zeros((1, *model.grid.shape), np.float32))
        self._rest = self._volumes(torch.zeros(1, *model.latent_space.shift.shape))

    def _raw(self, volumes: np.ndarray) -> np.ndarray:
        grid = self.model.grid
        return encode_run(self.model.autoencoder, volumes, self.model.info.scale, grid.mask)

    def encode(self, maps: np.ndarray) -> Tensor:
        """Encode maps (n, X, Y, Z) in percent to standardised latents, (n, D)."""
        raw = torch.from_numpy(self._raw(maps) - self._zero)
        return (raw / self.model.latent_space.scale)[..., self.mask].flatten(1)

    def _volumes(self, latents: Tensor) -> np.ndarray:
        model, inside = self.model, self.model.grid.mask
        raw = model.latent_space.restore(latents)
        return decode_run(model.autoencoder, raw, model.info.scale, inside)[:, inside]

    def decode(self, latents: Tensor) -> np.ndarray:
        """Decode standardised latents (n, C, x, y, z) to percent signal change, (n, P)."""
        return self._volumes(latents.float()) - self._rest

    def boxed(self, values: Tensor) -> Tensor:
        """Put values (n, D) into the box, (n, C, x, y, z)."""
        channels = len(self.model.latent_space.shift)
        box = torch.zeros(len(values), channels, *self.mask.shape)
        box[..., self.mask] = values.float().unflatten(1, (channels, -1))
        return box


class Oracle:
    """Infer responses with the covariance of many simulated participants.

    Parameters
    ----------
    coefficients : Tensor of shape (S, K, D)
        Of simulated participants.
    inference : IndividualInference
        With the covariance Σ of the noise over latents.
    together : ndarray of shape (K, K), bool
        Which regressors are of one task.
    """

    def __init__(
        self, coefficients: Tensor, inference: IndividualInference, together: np.ndarray
    ) -> None:
        self.mean = coefficients.mean(0).double()
        self.deviations = (coefficients - self.mean.float()) / (len(coefficients) - 1) ** 0.5
        free = torch.stack([inference._without_noise(one.double()) for one in self.deviations])
        self._free = free.float()
        self._gram = {
            (k, m): self.deviations[:, k] @ self._free[:, m].T
            for k, m in combinations_with_replacement(range(coefficients.shape[1]), 2)
            if together[k, m]
        }

    def deviation(self, runs: Sequence[Known], kappa: float, mean: Tensor | None = None) -> Tensor:
        """Infer a participant's deviation, (K, D), from a mean, or from what the model expects."""
        moments = torch.stack([run.moments for run in runs]).sum(0)
        rest = torch.stack([run.residual for run in runs]).sum(0)
        if mean is not None:
            rest = rest + sum(run.moments @ (run.expected - mean) for run in runs)
        f = torch.zeros(len(self._free), len(self._free), dtype=torch.float64)
        for (k, m), gram in self._gram.items():
            part = float(moments[k, m]) * gram
            f += part if k == m else part + part.T
        scores = torch.einsum("skd,kd->s", self._free, rest.float()).double()
        weights = torch.linalg.solve(torch.eye(len(f)).double() + f / kappa, scores / kappa)
        return torch.einsum("s,skd->kd", weights.float(), self.deviations)


class Truth:
    """Read and simulate the true responses of a phantom's participants."""

    def __init__(self, bids_dir: Path, model: Model) -> None:
        self.folder, self.model = bids_dir / texts.TRUTH, model
        written = json.loads((self.folder / "config.json").read_text())
        written = {k: tuple(v) if isinstance(v, list) else v for k, v in written.items()}
        self.config = PhantomConfig(**written)
        self.population = Population.build(replace(self.config, seed=NEW_SEED))
        order = self.population.conditions
        self.rows = [order.index(tuple(c)) for c in model.info.vocabulary.trial_types]
        self.brain = model.grid.mask

    def _on_grid(self, maps: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Move maps (X, Y, Z, n) to the model grid, (n, X, Y, Z)."""
        grid = self.model.grid
        moved = np.moveaxis(
            resample(maps.astype(np.float32), affine, grid.affine, grid.shape), 3, 0
        )
        return np.ascontiguousarray(moved * grid.mask)

    def written(self, label: str) -> np.ndarray:
        """Read a participant's maps, the mean of both directions, (V, P)."""
        maps = []
        for direction in DIRECTIONS:
            name = f"sub-{label}_dir-{direction}_desc-amplitude.nii.gz"
            image = nib.load(self.folder / f"sub-{label}" / name)
            self.affine = image.affine
            maps.append(self._on_grid(image.get_fdata(dtype=np.float32), image.affine))
        return np.mean(maps, axis=0)[self.rows][:, self.brain]

    def simulate(self, index: int, designs: Mapping[str, Design]) -> np.ndarray:
        """Simulate a participant's coefficients of the regressors, (K, X, Y, Z)."""
        population, config = self.population, self.config
        draw, image, _ = MODELS[config.realism]
        participant = draw(population, index)
        times = config.t_r * np.arange(config.n_volumes)
        coefficients = []
        for direction in DIRECTIONS:
            session = image(population, participant, direction)
            effect = np.zeros((2 * len(self.rows), session.maps.shape[1]), np.float32)
            for task, design in designs.items():
                chosen = [i for i, (name, _) in enumerate(population.conditions) if name == task]
                types = [population.conditions[i][1] for i in chosen]
                common = design.events, event_amplitudes(design.events), types
                if config.realism == "full":
                    weights = population.weights[chosen] * participant.regional.gain[chosen]
                    courses = regional_courses(*common, weights, participant.regional, times)
                    patterns = session.profiles
                else:
                    courses = time_courses(*common, participant.response.latency, times)
                    patterns = session.maps[chosen]
                courses = remove_drift(courses, design.drift)
                fitted = np.linalg.lstsq(design.regressors, courses, rcond=1e-6)[0]
                effect += (fitted @ patterns).astype(np.float32)
            coefficients.append(self._whole(effect, session.head))
        return np.mean(coefficients, axis=0)

    def _whole(self, maps: np.ndarray, head: Head) -> np.ndarray:
        """Move maps (n, voxels of the head) to the model grid, (n, X, Y, Z)."""
        shape = self.population.grid.shape
        out = np.zeros((len(maps), int(np.prod(shape))), np.float32)
        out[:, head.index] = maps * head.mask
        return self._on_grid(out.reshape(-1, *shape[::-1]).transpose(3, 2, 1, 0), self.affine)


def designs_of(model: Model, runs: Sequence[Run]) -> dict[str, Design]:
    """Take the design of one run of each task."""
    out, high_pass = {}, model.info.config.preprocess.high_pass
    for run in {run.task: run for run in reversed(runs)}.values():
        events = read_events(run.events, duration=run.duration)
        evoked = model.info.vocabulary.design(run, events, run.n_volumes, high_pass).evoked
        drift = drift_basis(run.n_volumes, run.t_r, high_pass)
        out[run.task] = Design(events, evoked.reshape(run.n_volumes, -1).astype(float), drift)
    return out


@torch.no_grad()
def read_known(model: Model, runs: Sequence[Run]) -> list[Known]:
    """Reduce runs as synthesis does."""
    response = model.response
    recorder = Recorder(response.prior, response.coefficients, response.synthetic_maps)
    reader, out = SiblingReader(model, recorder, None), []
    for run in runs:
        carrier, statistics = reader.read(run)
        mean = carrier.mean / np.median(carrier.mean[carrier.mask])
        moved = resample(mean, carrier.affine, model.grid.affine, model.grid.shape)
        moved[~model.grid.mask] = 0
        expected = response.expectation(torch.from_numpy(moved)).flatten(0, 1)
        mask = model.latent_space.mask
        known = expected[..., mask].flatten(1).double()
        out.append(Known(statistics.response, *recorder.noted, known))
    return out


def correlation(maps: np.ndarray, truth: np.ndarray) -> float:
    """Correlate maps (V, P) over voxels, averaged over trial types."""
    a, b = (m - m.mean(1, keepdims=True) for m in (maps, truth))
    size = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return float(np.mean((a * b).sum(1) / np.maximum(size, 1e-12)))


def choices(runs: Sequence[Run], count: int) -> list[list[int]]:
    """Choose as many runs of each task as others, for each run that is imitated."""
    by_task: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        by_task.setdefault(run.task, []).append(index)
    longest = max(len(own) for own in by_task.values())
    return [
        [own[(first + step) % len(own)] for own in by_task.values() for step in range(count)]
        for first in range(longest)
    ]


def described(values: np.ndarray, own: np.ndarray | None = None) -> str:
    """Write a mean over participants, or a ratio of two, with its interval."""
    counts = bootstrap_counts(len(values), np.random.default_rng(0), 2000)
    below = np.ones(len(values)) if own is None else own
    value, samples = values.sum() / below.sum(), (counts @ values) / (counts @ below)
    low, high = interval(float(value), samples, len(values), (-np.inf, np.inf))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def infer(
    model: Model, space: Space, oracle: Oracle, runs: Sequence[Known], group: Tensor
) -> dict[str, np.ndarray]:
    """Decode all inferences from the same runs, (V, P) each."""
    inference = model.response.inference()
    evidence = reduce(add, [run.evidence for run in runs])
    delta = inference.deviation(inference.posterior(evidence).mean)[:, 0]
    anatomy = space.boxed(torch.stack([run.expected for run in runs]).mean(0) - group)[0::2]
    latents = {"model": anatomy + delta}
    for kappa in KAPPAS:
        latents[f"{ORACLE}{kappa}"] = anatomy + space.boxed(oracle.deviation(runs, kappa))[0::2]
        known = oracle.deviation(runs, kappa, oracle.mean) + oracle.mean - group
        latents[f"{KNOWING}{kappa}"] = space.boxed(known)[0::2]
    return {name: space.decode(values) for name, values in latents.items()}


def best(values: Mapping[str, np.ndarray], oracle: str) -> np.ndarray:
    """Choose how much noise counts, for the oracle's good."""
    return max((own for name, own in values.items() if name.startswith(oracle)), key=np.mean)


def main() -> None:
    """Print a row for each number of other runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--others", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--simulated", type=int, default=1000, help="participants of the oracle")
    options = parser.parse_args()
    model, dataset = Model.load(options.model_dir), find_runs(options.bids_dir)
    space, truth, split = Space(model), Truth(options.bids_dir, model), model.info.split
    judged = sorted({r.participant for r in dataset.runs} - set(split.training))
    group_truth = np.mean([truth.written(label) for label in split.training], axis=0)
    deviations = [truth.written(label) - group_truth for label in judged]
    designs = designs_of(model, dataset.runs)
    tasks = np.repeat([task for task, _ in model.info.vocabulary.trial_types], 2)
    oracle = Oracle(
        torch.stack([space.encode(truth.simulate(i, designs)) for i in range(options.simulated)]),
        model.response.inference(),
        tasks[:, None] == tasks,
    )
    expectation = model.response.expectation(None).detach().flatten(0, 1)
    group = expectation[..., space.mask].flatten(1).double()
    found: dict[int, dict[str, np.ndarray]] = {count: {} for count in options.others}
    for number, label in enumerate(judged):
        runs = sorted(
            (r for r in dataset.runs if r.participant == label), key=lambda r: r.bold.name
        )
        known = read_known(model, runs)
        for count, values in found.items():
            chosen = choices(runs, count)
            for indices in chosen:
                maps = infer(model, space, oracle, [known[i] for i in indices], group)
                likeness = {name: correlation(m, deviations[number]) for name, m in maps.items()}
                others = [d for d in deviations if d is not deviations[number]]
                likeness["others"] = np.mean([correlation(maps["model"], d) for d in others])
                for name, value in likeness.items():
                    rows = values.setdefault(name, np.zeros(len(judged)))
                    rows[number] += value / len(chosen)
    print(head("other runs", "model", "oracle", "model / oracle", "oracle with the true mean",
               "model / that", "other participants'"))  # fmt: skip
    for count, values in found.items():
        own, oracles = values["model"], (best(values, ORACLE), best(values, KNOWING))
        cells = [cell for o in oracles for cell in (described(o), described(own, o))]
        print(row(count, described(own), *cells, described(values["others"])), flush=True)


if __name__ == "__main__":
    main()
