"""Measure how much the evaluation finds in runs in which nothing happened.

``python tests/campaigns/sham_level.py DATASET FOLDER --draws 200``: every run of the dataset, rest
as a rule, gets made-up blocks of two trial types, moved and permuted anew in each draw as
``group --sham`` moves events. First and second level are those of the evaluation. Printed are the
share of active voxels (p < .01, one-sided), whose nominal level is .01, and the correlation of the
group maps of the two halves of the participants, whose nominal level is 0: means over draws
with 95 % intervals, which hold for these participants.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.sham import with_sham_events
from fmrisynth.evaluation.measures.second_level import P_VALUE, one_sample_t, t_limit
from fmrisynth.evaluation.runs.glm import (
    GlmSettings,
    design_matrix,
    fit_run,
)
from fmrisynth.runtime.progress import track

BLOCK, EVERY = 12.0, 24.0  # s
TRIAL_TYPES = "first", "second"


def with_made_up_events(run: Run, folder: Path) -> Run:
    """Give a run blocks of two trial types in turn."""
    onsets = np.arange(0.0, run.duration - BLOCK, EVERY)
    names = [TRIAL_TYPES[i % 2] for i in range(len(onsets))]
    path = folder / f"{run.label}_events.tsv"
    events = pd.DataFrame({"onset": onsets, "duration": BLOCK, "trial_type": names})
    events.to_csv(path, sep="\t", index=False)
    return replace(run, events=path)


def interval(values: list[float]) -> str:
    """Return the mean and its t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.4f} ({np.mean(values) - half:.4f} to {np.mean(values) + half:.4f})"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="BIDS dataset, all runs on one grid")
    parser.add_argument("folder", type=Path, help="receives the tables of events")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--noise-model", default=GlmSettings().noise_model)
    options = parser.parse_args(arguments)
    settings = GlmSettings(noise_model=options.noise_model)
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = [with_made_up_events(run, options.folder) for run in find_runs(options.dataset).runs]
    bolds = [load_bold(run) for run in runs]
    mask = np.all([bold.mask for bold in bolds], axis=0)
    signals = [bold.data[mask] for bold in bolds]
    participants = sorted({run.participant for run in runs})
    active: list[float] = []
    halves: list[float] = []
    for draw in track(range(options.draws), desc="Sham", unit="draw"):
        effects: dict[tuple[str, str], list[np.ndarray]] = {}
        for run, signal in zip(
            with_sham_events(runs, options.folder / "sham", draw), signals, strict=True
        ):
            events = read_events(run.events, duration=run.duration)
            design = design_matrix(events, signal.shape[1], run.t_r, run.start_time, settings)
            fitted = fit_run(signal, design, settings)
            for name, effect in zip(fitted.trial_types, fitted.effects, strict=True):
                effects.setdefault((run.participant, name), []).append(effect)
        for name in TRIAL_TYPES:
            maps = np.stack([np.mean(effects[p, name], axis=0) for p in participants])
            active.append(float((one_sample_t(maps) > t_limit(len(maps))).mean()))
            first, second = maps[::2].mean(0), maps[1::2].mean(0)
            halves.append(float(np.corrcoef(first, second)[0, 1]))
    print(f"{len(participants)} participants, {int(mask.sum())} voxels, {options.draws} draws")
    print(f"active voxels, nominal {P_VALUE}: {interval(active)}")
    print(f"correlation of halves, nominal 0: {interval(halves)}, SD {np.std(halves):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
