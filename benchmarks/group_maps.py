"""Group activation maps of a model's network beside those of real participants, for benchmarks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fmrisynth
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.config.model import ModelConfig, SamplingConfig
from fmrisynth.evaluation.metrics.activation import measure_maps
from fmrisynth.evaluation.runs.glm import GlmSettings, design_matrix, fit_run
from fmrisynth.model.model import Model
from fmrisynth.preprocess.splits import choose_split

__all__ = ["MEASURES", "Reference", "Trained", "synthetic_maps", "train"]

GLM = GlmSettings(noise_model="ols")  # linear in the data, so that noise can be taken away
MEASURES = ("corr", "rsa", "top1", "slope")

Effects = dict[str, list[np.ndarray]]
"""Maps (X, Y, Z) of one participant's runs, by condition."""


@dataclass(frozen=True)
class Trained:
    """Hold a model, and the time that its denoiser's training took."""

    model: Model
    seconds: float
    cpu_seconds: float


def train(runs: Sequence[Run], config: ModelConfig, work_dir: Path, seed: int) -> Trained:
    """Train a model; models of one seed share caches and autoencoder in `work_dir`.

    CPU seconds are those of the whole call, times the denoiser's share of the clock.
    """
    started, cpu = time.monotonic(), time.process_time()
    model = fmrisynth.train(runs, config, work_dir=work_dir, seed=seed)
    cpu = time.process_time() - cpu
    seconds = float(model.info.provenance["seconds"]["denoiser"])
    return Trained(model, seconds, cpu * seconds / (time.monotonic() - started))


def run_effects(run: Run, series: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Fit the GLM of a run; maps (X, Y, Z) by condition, NaN outside the mask."""
    events = read_events(run.events, duration=run.duration)
    design = design_matrix(events, series.shape[3], run.t_r, run.start_time, GLM)
    fitted = fit_run(series[mask], design, GLM)
    maps = {}
    for name, effect in zip(fitted.trial_types, fitted.effects, strict=True):
        volume = np.full(mask.shape, np.nan, np.float32)
        volume[mask] = effect
        maps[f"{run.task} {name}"] = volume
    return maps


def group_maps(of_participants: Iterable[Effects]) -> dict[str, np.ndarray]:
    """Average maps over runs, then over participants."""
    means: dict[str, list[np.ndarray]] = {}
    for effects in of_participants:
        for name, maps in effects.items():
            means.setdefault(name, []).append(np.mean(maps, axis=0))
    return {name: np.mean(maps, axis=0) for name, maps in means.items()}


class Reference:
    """Hold the GLM of the real participants of one split.

    Parameters
    ----------
    runs : sequence of Run
        All runs of the dataset, on one grid.
    share : float
        Share of the participants held out.
    seed : int
        Seed of the split, as of the training.
    work_dir : pathlib.Path
        Keeps the maps, which do not depend on the split.
    """

    def __init__(self, runs: Sequence[Run], share: float, seed: int, work_dir: Path) -> None:
        self.split = choose_split((r.participant for r in runs), share, seed)
        self.effects = _real_effects(runs, work_dir / "real_effects.npz")
        self.held_out = group_maps(self.effects[p] for p in self.split.held_out)
        self.training = group_maps(self.effects[p] for p in self.split.training)

    def measure(self, maps: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Compare group maps with those of the held-out participants: `MEASURES`."""
        names = sorted(self.held_out)
        mine, real = (np.stack([m[n].ravel() for n in names]) for m in (maps, self.held_out))
        inside = np.isfinite(mine).all(0) & np.isfinite(real).all(0)
        values = measure_maps(mine[:, inside], real[:, inside], names)
        return {name: values[name] for name in MEASURES}

    def measure_training(self, draws: int = 20) -> dict[str, float]:
        """Compare as many training participants as were held out, on average over draws."""
        rng, count = np.random.default_rng(0), len(self.split.held_out)
        drawn = []
        for _ in range(draws):
            chosen = rng.choice(self.split.training, min(count, len(self.split.training)), False)
            drawn.append(self.measure(group_maps(self.effects[p] for p in chosen)))
        return {name: float(np.mean([d[name] for d in drawn])) for name in MEASURES}


def _real_effects(runs: Sequence[Run], path: Path) -> dict[str, Effects]:
    """Fit the GLM of every real run, once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{participant}|{name}|{number}": volume
            for participant, effects in _effects_of(runs).items()
            for name, maps in effects.items()
            for number, volume in enumerate(maps)
        }
        np.savez(path, **arrays)
    effects: dict[str, Effects] = {}
    for key, volume in np.load(path).items():
        participant, name, _ = key.split("|")
        effects.setdefault(participant, {}).setdefault(name, []).append(volume)
    return effects


def synthetic_maps(
    model: Model, dataset: Dataset, participants: Sequence[str], *, network_alone: bool = False
) -> dict[str, np.ndarray]:
    """Return the group maps of the synthetic runs of some participants.

    Parameters
    ----------
    model : Model
        A trained model.
    dataset : Dataset
        Its runs, whose carriers and events are used.
    participants : sequence of str
        Of whom.
    network_alone : bool
        Whether each run is synthesised a second time, from the same noise without the network,
        and its maps are taken away: what is left is what the network makes of events and carrier.
    """
    sampling = model.info.config.sampling
    whole = _written_effects(model, dataset, participants, sampling)
    if network_alone:
        noise = _written_effects(model, dataset, participants, replace(sampling, backbone=False))
        for participant, effects in whole.items():
            for name, maps in effects.items():
                pairs = zip(maps, noise[participant][name], strict=True)
                effects[name] = [both - alone for both, alone in pairs]
    return group_maps(whole.values())


def _written_effects(
    model: Model, dataset: Dataset, participants: Sequence[str], sampling: SamplingConfig
) -> dict[str, Effects]:
    """Write synthetic runs, as the participant level does, and fit their GLM."""
    chosen = [run for run in dataset.runs if run.participant in participants]
    with TemporaryDirectory() as folder:
        seed = int(model.info.provenance["seed"])
        written = fmrisynth.synthesise(
            model, chosen, Path(folder) / "out", source=dataset, sampling=sampling, seed=seed
        )
        return _effects_of(written)


def _effects_of(runs: Iterable[Run]) -> dict[str, Effects]:
    """Fit the GLM of runs; maps by participant and condition."""
    effects: dict[str, Effects] = {}
    for run in runs:
        bold = load_bold(run)
        for name, volume in run_effects(run, bold.data, bold.mask).items():
            effects.setdefault(run.participant, {}).setdefault(name, []).append(volume)
    return effects
