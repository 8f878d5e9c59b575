"""Give runs events that did not happen: what is found with them is found by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.runtime.files import atomic_path, make_folder
from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["with_sham_events"]


def with_sham_events(runs: Sequence[Run], folder: Path, seed: int) -> tuple[Run, ...]:
    """Move the events of runs by a random time, and permute their trial types.

    Number, durations and distances of the events stay; one that would begin after the end of
    the run begins as much after its start.

    Parameters
    ----------
    runs : sequence of Run
        Real runs; those without events are left out.
    folder : Path
        Receives the tables of events.
    seed : int
        Each run has a draw of its own, whichever others there are.

    Raises
    ------
    DataError
        When events cannot be read.
    """
    make_folder(folder)
    shams = []
    for run in runs:
        if run.events is None:
            continue
        events = read_events(run.events, duration=run.duration)[
            ["onset", "duration", "trial_type"]
        ].copy()
        rng = keyed_generator(seed, "sham", run.label)
        events["onset"] = (events["onset"] + rng.uniform(0.0, run.duration)) % run.duration
        events["trial_type"] = rng.permutation(events["trial_type"].to_numpy())
        path = folder / f"{run.label}_events.tsv"
        with atomic_path(path, durable=False) as temporary:
            events.sort_values("onset").to_csv(temporary, sep="\t", index=False)
        shams.append(replace(run, events=path))
    return tuple(shams)
