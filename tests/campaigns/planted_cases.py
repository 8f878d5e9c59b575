"""Plant known faults in a phantom cohort and print what the verdict says of each.

``python -m fmrisynth.phantom DATASET`` first, then
``python tests/campaigns/planted_cases.py DATASET OUT``. The phantom's own model scans its
held-out participants again, so that one "generator" is real data, and others are real data
with one thing wrong. Of a cohort with ``--realism full``, and of real runs with implanted responses
(``--noise-from``), those are used that are made of its runs alone, with a Gaussian surrogate that
only the rules of realism may see; cohorts with ``--n-runs 2``, and runs that ``halved_runs.py``
cut, give repetitions for them. The exit status is 1 when a fault is not seen by a rule that should
see it, or when real data fail a rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import detrend

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs, is_finished, write_synthetic_run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import write_metrics
from fmrisynth.evaluation.metrics.verdict import count, judge
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.evaluation.runs.glm import GlmSettings, design_matrix, fit_run, percent_signal_change
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.fields import weighted_sum
from fmrisynth.phantom.noise import draw_noise, draw_spikes, draw_thermal, storage_step
from fmrisynth.phantom.responses import Response, event_amplitudes, time_courses
from fmrisynth.phantom.simulation import Population, build_session, draw_participant

INTENSITY = 10_000.0
SHIFT = 11  # volumes, of the shifted copies

Maker = Callable[[Run, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A generator with a known fault.

    ``seen_by``: rules of which at least one must fail; none for real data. ``only``: no
    other rule may.
    """

    name: str
    seen_by: tuple[str, ...]
    make: Maker
    only: bool = False


@dataclass(frozen=True)
class Fault:
    """What is wrong with a repeated scan."""

    amplitude: float = 1.0
    group_mean: bool = False
    individual: float = 1.0
    one_map: bool = False
    white: bool = False


class Scanner:
    """Scans participants of the phantom again, as they are or with a fault."""

    def __init__(self, config: PhantomConfig) -> None:
        self.config, self.population = config, Population.build(config)

    def scan(self, run: Run, fault: Fault, rng: np.random.Generator) -> np.ndarray:
        """Volumes (X, Y, Z, T) of the participant, task and events of a real run."""
        config, population = self.config, self.population
        participant = draw_participant(population, int(run.participant) - 1)
        if fault.group_mean:
            alike = Response(
                np.ones_like(participant.response.gain),
                np.zeros_like(participant.response.displacement),
                0.0,
            )
            participant = replace(participant, response=alike)
        if fault.individual != 1.0:
            own = participant.response
            wider = replace(
                own,
                gain=np.maximum(1.0 + fault.individual * (own.gain - 1.0), 0.0),
                displacement=fault.individual * own.displacement,
            )
            participant = replace(participant, response=wider)
        session = build_session(population, participant, run.entities["dir"])
        rows = [i for i, (task, _) in enumerate(population.conditions) if task == run.task]
        maps = session.maps[rows]
        if fault.one_map:
            maps = np.repeat(session.maps.mean(axis=0, keepdims=True), len(rows), axis=0)
        events = read_events(run.events)
        courses = time_courses(
            events,
            event_amplitudes(events, rng),
            [population.conditions[i][1] for i in rows],
            participant.response.latency,
            config.t_r * np.arange(config.n_volumes),
        )
        noise = draw_noise(
            session.noise, session.head, participant.connectivity, population.grid,
            n_volumes=config.n_volumes, t_r=config.t_r, rng=rng,
        )  # fmt: skip
        if fault.white:
            noise = noise[rng.permutation(len(noise))]
        percent = fault.amplitude * weighted_sum(courses, maps) + noise
        signal = (1.0 + 0.01 * percent) * session.head.mean
        signal += draw_thermal(session.noise, signal.shape, rng)
        for volume, displacement in draw_spikes(config.n_volumes, config.spikes, rng).items():
            signal[volume] += displacement.astype(np.float32) @ session.head.gradient
        shape = population.grid.shape
        volumes = np.zeros((len(signal), int(np.prod(shape))), np.float32)
        # As coarse as the cohort's images, else a classifier tells the two by the rounding.
        step = storage_step(config)
        volumes[:, session.head.index] = np.maximum(np.rint(signal / step), 0.0) * step * INTENSITY
        return np.transpose(volumes.reshape(-1, *shape[::-1]), (3, 2, 1, 0))


class Copier:
    """Puts what training runs do in time into the carriers of held-out participants."""

    def __init__(self, training: Sequence[Run]) -> None:
        self.training = training
        self.participants = sorted({run.participant for run in training})

    def copy(self, run: Run, shift: int) -> np.ndarray:
        """One training participant's run, moved in time."""
        donor = self.participants[int(run.participant) % len(self.participants)]
        (source,) = [r for r in self._alike(run) if r.participant == donor]
        return self._put(run, np.roll(_change(source), shift, axis=3))

    def mean(self, run: Run) -> np.ndarray:
        """The mean of all training participants' runs."""
        alike = self._alike(run)
        total = np.zeros((*run.shape, run.n_volumes))
        for source in alike:
            total += _change(source) / len(alike)
        return self._put(run, total)

    def _alike(self, run: Run) -> list[Run]:
        return [r for r in self.training if _kind(r) == _kind(run)]

    @staticmethod
    def _put(run: Run, change: np.ndarray) -> np.ndarray:
        return load_bold(run).data.mean(axis=3, keepdims=True) * change


def _change(run: Run) -> np.ndarray:
    """Signal of a run over its mean, 1 where there is none."""
    data = load_bold(run).data
    mean = data.mean(axis=3, keepdims=True)
    return np.divide(data, mean, out=np.ones_like(data), where=mean > 0.05 * mean.max())


class Exchanger:
    """Gives held-out participants each other's runs, or surrogates of their own.

    ``spare``: repetitions of the held-out runs that are not compared; without them the runs of the
    other phase encoding are taken, so that group maps rest on the very data compared with.
    """

    def __init__(self, held_out: Sequence[Run], spare: Sequence[Run]) -> None:
        self.held_out, self.spare = held_out, spare
        self.participants = sorted({run.participant for run in held_out})

    def exchange(self, run: Run) -> np.ndarray:
        """What the next participant did, in this one's carrier."""
        place = self.participants.index(run.participant) + 1
        other = self.participants[place % len(self.participants)]
        (source,) = [r for r in self.held_out if r.participant == other and _kind(r) == _kind(run)]
        return load_bold(run).data.mean(axis=3, keepdims=True) * _change(source)

    def _repetition(self, run: Run) -> Run:
        """Another run of the participant and task, with the same phase encoding if there is one."""
        alike = self._others(run, self.spare or self.held_out)
        return next((r for r in alike if _kind(r) == _kind(run)), alike[0])

    def _others(self, run: Run, among: Sequence[Run]) -> list[Run]:
        """Other runs of the participant and task."""
        kind = (run.participant, run.task)
        return [r for r in among if (r.participant, r.task) == kind and r is not run]

    def surrogate(self, run: Run, rng: np.random.Generator) -> np.ndarray:
        """A Gaussian process with the covariance of another run of the participant and task.

        The phases of what the participant's responses do not explain are drawn anew, the same for
        all voxels (Prichard & Theiler 1994, Physical Review Letters 73, 951-954); the responses
        follow this run's events. They are fitted to all other runs of participant and task:
        those fitted to one run hold its noise along the events, which would come twice.
        """
        source = self._repetition(run)
        bold, other = load_bold(run), load_bold(source)
        fitted = [(r, load_bold(r)) for r in self._others(run, [*self.spare, *self.held_out])]
        inside = bold.mask & np.logical_and.reduce([b.mask for _, b in fitted])
        x, y = (_design(r) for r in (run, source))
        percent = percent_signal_change(other.data[inside])
        effects = np.mean(
            [fit_run(b.data[inside], _design(r), GlmSettings()).effects for r, b in fitted], axis=0
        )
        # Drift stays in: the comparison takes it out, and slow noise beside it if that was done
        # before. With its mirror image after it, a course ends where it begins, as the transform
        # takes it to; a jump would whiten short runs.
        evoked = effects.T @ y.to_numpy()[:, : len(effects)].T
        noise = detrend(percent - evoked, axis=1)
        spectrum = np.fft.rfft(np.concatenate([noise, noise[:, ::-1]], axis=1), axis=1)
        phases = np.exp(2j * np.pi * rng.random(spectrum.shape[1]))
        phases[0], phases[-1] = 1.0, 1.0
        change = np.fft.irfft(spectrum * phases, 2 * noise.shape[1], axis=1)[:, : run.n_volumes]
        change += effects.T @ x.to_numpy()[:, : len(effects)].T
        made = np.repeat(bold.data.mean(axis=3, keepdims=True), run.n_volumes, axis=3)
        made[inside] *= 1.0 + change / 100.0
        return made


def _kind(run: Run) -> tuple[str, str | None]:
    """Task and direction of phase encoding, in which runs must agree to stand for each other."""
    return run.task, run.entities.get("dir")


def _design(run: Run) -> pd.DataFrame:
    events = read_events(run.events, duration=run.duration)
    return design_matrix(events, run.n_volumes, run.t_r, run.start_time, GlmSettings())


REALISM = (
    "told_apart", "kurtosis_ratio", "level_sd_ratio", "dynamic_fc_ratio", "coupling_correlation",
)  # fmt: skip
"""Rules that see what a Gaussian lacks."""


def cases(scanner: Scanner | None, copier: Copier, exchanger: Exchanger) -> tuple[Case, ...]:
    """All generators, real data first; without a scanner those that are made of the runs alone."""
    of_runs = (
        Case("copies", ("copied_share",), lambda run, _: copier.copy(run, 0)),
        Case("shifted copies", ("copied_share",), lambda run, _: copier.copy(run, SHIFT)),
        Case("mean run", ("sample_similarity",), lambda run, _: copier.mean(run)),
        Case("exchanged", ("individual_correlation",), lambda run, _: exchanger.exchange(run)),
    )
    if scanner is None:
        # Without repetitions, it is too like the real maps as well.
        only = bool(exchanger.spare)
        return (*of_runs, Case("surrogate", REALISM, exchanger.surrogate, only))

    def scan(**fault: float | bool) -> Maker:
        return lambda run, rng: scanner.scan(run, Fault(**fault), rng)  # type: ignore[arg-type]

    return (
        Case("real again", (), scan()),
        *of_runs,
        Case("group mean", ("diversity_participants_ratio", "individual_correlation"),
             scan(group_mean=True)),
        Case("no condition", ("rsa", "top1", "corr"), scan(one_map=True)),
        Case("white noise", ("lag1_ratio",), scan(white=True)),
        Case("half effect", ("slope",), scan(amplitude=0.5)),
        Case("double effect", ("slope",), scan(amplitude=2.0)),
        Case("thrice the variance", ("diversity_participants_ratio",),
             scan(individual=np.sqrt(3.0))),
        # Of a cohort that is Gaussian, it is as good as real data.
        *([Case("surrogate", (), exchanger.surrogate)] if exchanger.spare else []),
    )  # fmt: skip


def write(case: Case, number: int, runs: Sequence[Run], out: Path) -> tuple[Run, ...]:
    """Write the runs of a case that are not there yet."""
    provenance = {"Case": case.name, "Sample": 1}
    for index, run in enumerate(runs):
        if not is_finished(out, run, provenance=provenance):
            made = case.make(run, np.random.default_rng([77, number, index]))
            mask = load_bold(run).mask
            write_synthetic_run(out, run, made.astype(np.float32), mask, provenance=provenance)
    return find_synthetic_runs(out)


def verdict(evaluation: Evaluation, case: Case) -> bool:
    """Print a case's verdict and tell whether it is the one expected."""
    found = judge(evaluation.estimates[case.name], evaluation.estimates[REAL])
    if case.name == REAL:
        # Halves of participants with one run each have no interval that a rule could ask.
        found = tuple(
            j
            if np.isfinite(j.estimate.high - j.estimate.low)
            else replace(j, reason=j.reason or "it has no interval")
            for j in found
        )
    failed = [j.metric.name for j in found if j.passed is False]
    print(f"\n== {case.name}")
    for j in found:
        said = {True: "pass", False: "FAIL", None: "not judged"}[j.passed]
        figure = j.estimate
        print(
            f"  {j.metric.name:29s} {said:10s} {figure.value:7.3f} [{figure.low:.3f}, "
            f"{figure.high:.3f}] ceiling {figure.ceiling:.3f} floor {figure.floor:.3f}"
            f"{'  ' + j.reason if j.reason else ''}"
        )
    right = any(metric in failed for metric in case.seen_by) if case.seen_by else not failed
    right = right and not (case.only and set(failed) - set(case.seen_by))
    expected = f"one of {', '.join(case.seen_by)}" if case.seen_by else "nothing"
    tally = count(found)
    print(f"  {tally.met} met, {tally.missed} missed, {tally.not_judged} not judged")
    print(f"  expected to fail: {expected}; failed: {', '.join(failed) or 'nothing'} → "
          f"{'as expected' if right else 'NOT AS EXPECTED'}")  # fmt: skip
    return right


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="from python -m fmrisynth.phantom")
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", nargs="+", metavar="LABEL", help="default: every fourth")
    parser.add_argument("--work-dir", type=Path, help="cache of first-level results")
    parser.add_argument("--nprocs", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="names of cases; default: all")
    chosen = parser.parse_args()
    start = time.monotonic()
    settings = json.loads((chosen.dataset / "derivatives/truth/config.json").read_text())
    known = {key: settings[key] for key in PhantomConfig.__dataclass_fields__ if key in settings}
    config = PhantomConfig(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
    )
    dataset = find_runs(chosen.dataset)
    labels = sorted({run.participant for run in dataset.runs})
    held_out = chosen.held_out or labels[3::4]
    compared = [run for run in dataset.runs if run.entities.get("run", "1").lstrip("0") == "1"]
    real = [run for run in compared if run.participant in held_out]
    training = [run for run in compared if run.participant not in held_out]
    spare = [r for r in dataset.runs if r.participant in held_out and r not in compared]
    simulated = "noise_from" not in settings and settings.get("realism", "gaussian") == "gaussian"
    scanner = Scanner(config) if simulated else None
    planted = cases(scanner, Copier(training), Exchanger(real, spare))
    planted = tuple(case for case in planted if case.name in (chosen.only or [case.name]))
    generators = {}
    for number, case in enumerate(planted):
        out = chosen.out / case.name.replace(" ", "-")
        generators[case.name] = write(case, number, real, out)
        print(f"{case.name}: {len(generators[case.name])} runs, {time.monotonic() - start:.0f} s",
              flush=True)  # fmt: skip
    evaluation = evaluate(
        real,
        training,
        generators,
        work_dir=chosen.work_dir or chosen.out / "records",
        nprocs=chosen.nprocs,
        progress=False,
    )
    write_metrics(evaluation, chosen.out / "metrics.tsv")
    itself = Case(REAL, (), lambda run, _: load_bold(run).data)
    right = [verdict(evaluation, case) for case in (itself, *planted)]
    print(f"\n{sum(right)} of {len(right)} as expected, {time.monotonic() - start:.0f} s")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
