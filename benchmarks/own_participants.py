"""How much a participant's own synthetic runs are the participant's: one, two, three other runs.

A model is given a few runs of each held-out participant, and writes each of them from the others.
The report's own metrics are printed for `--individuals own` and `drawn`: the likeness to the real
run that is imitated, over what the other runs allow (the bound), over that of the participant's
real other runs, and with other participants (the floor); runs of a participant alike in maps and
in networks, and differences between participants, synthetic over real.

    python benchmarks/own_participants.py BIDS_DIR MODEL_DIR --others 1 2 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measuring import head, row

from fmrisynth import Model, evaluate, find_runs, synthesise
from fmrisynth.bids.dataset import Run
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.runs.glm import GlmSettings

CHOICES = ("own", "drawn")
COLUMNS = (
    "other runs a task",
    "individuals",
    "own r",
    "bound",
    "r / bound",
    "real other run",
    "r / real",
    "other participants'",
    "networks of a participant, synthetic / real",
    "runs of a participant, synthetic / real",
    "participants, synthetic / real",
)


def some_runs(runs: Sequence[Run], count: int) -> list[Run]:
    """Keep the first runs of each participant and task, by number and then by direction."""
    kept: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.entities.get("run", "")):
        group = kept.setdefault((run.participant, run.task), [])
        if len(group) < count:
            group.append(run)
    return [run for group in kept.values() for run in group]


def described(estimates: Estimates, real: Estimates) -> list[str]:
    """Return the cells of a row of the table, beside the participants' real other runs."""
    missing = Estimate(float("nan"))
    own, other = (of.get("individual_correlation", missing) for of in (estimates, real))
    networks = estimates.get("fc_fingerprint", missing)
    return [
        with_interval(own),
        f"{own.ceiling:.3f}",
        f"{own.value / own.ceiling:.2f}",
        f"{other.value:.3f}",
        f"{own.value / other.value:.2f}",
        f"{own.floor:.3f}",
        with_interval(networks, over=networks.ceiling),
        *(
            with_interval(estimates.get(f"diversity_{name}_ratio", missing))
            for name in ("runs", "participants")
        ),
    ]


def with_interval(estimate: Estimate, over: float = 1.0) -> str:
    """Write an estimate with its interval over participants, as a share of something."""
    value, low, high = (x / over for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print a row for each number of other runs and each choice of individuals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--others", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--nprocs", type=int, default=1)
    options = parser.parse_args()
    model, dataset = Model.load(options.model_dir), find_runs(options.bids_dir)
    split, settings = model.info.split, GlmSettings(trial_types=model.info.vocabulary.trial_types)
    print(head(*COLUMNS))
    for count in options.others:
        runs = some_runs(dataset.runs, count + 1)
        training, held_out = (
            [run for run in runs if split.role(run.participant) == role]
            for role in ("training", "held_out")
        )
        with tempfile.TemporaryDirectory() as folder:
            generators = {
                choice: synthesise(
                    model,
                    held_out,
                    Path(folder, choice),
                    source=replace(dataset, runs=tuple(runs)),
                    individuals=choice,
                )
                for choice in CHOICES
            }
            found = evaluate(
                held_out,
                training,
                generators,
                work_dir=Path(folder, "work"),
                nprocs=options.nprocs,
                settings=settings,
                progress=False,
            )
        real = found.estimates["real"]
        for choice in CHOICES:
            print(row(count, choice, *described(found.estimates[choice], real)), flush=True)


if __name__ == "__main__":
    main()
