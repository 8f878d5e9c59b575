"""Write simulated runs as files: those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs, is_finished, write_synthetic_run
from fmrisynth.preprocess.carrier import Carrier
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.randomness import keyed_seed
from fmrisynth.runtime.workers import Map

__all__ = ["Simulate", "write_simulated_runs"]

Simulate = Callable[[Run, int], tuple[np.ndarray, Carrier]]
"""From a run to imitate and a seed to (X, Y, Z, T) in its units, and its carrier."""


def write_simulated_runs(
    name: str,
    fit: Callable[[], Simulate],
    imitated: Sequence[Run],
    out: Path,
    seed: int,
    remarks: Mapping[str, Any] | None = None,
    each: Map = map,
) -> tuple[Run, ...]:
    """Write one simulated run for each of those imitated, as files.

    Parameters
    ----------
    name : str
        Of the simulator, for its provenance.
    fit : callable
        Estimates the simulator; called only when a run is missing.
    imitated : sequence of Run
        Runs that give carrier and events.
    out : pathlib.Path
        Scratch directory; finished runs in it are kept.
    seed : int
        Of all noise; each run has its own, whichever others are written.
    remarks : mapping, optional
        Further fields of the provenance.
    each : Map
        Simulates the runs.

    Returns
    -------
    tuple of Run
        All finished runs of `out`.
    """
    provenance: dict[str, Any] = {"Generator": name, "RandomSeed": seed, **(remarks or {})}
    missing = [run for run in imitated if not is_finished(out, run, provenance=provenance)]
    if missing:
        write = partial(_write, simulate=fit(), out=out, provenance=provenance)
        written = each(write, missing)
        for _ in track(written, total=len(missing), desc=f"Simulating ({name})", unit="run"):
            pass
    return find_synthetic_runs(out)


def _write(run: Run, *, simulate: Simulate, out: Path, provenance: Mapping[str, Any]) -> None:
    """Write the simulated run of one run."""
    seed = keyed_seed(provenance["RandomSeed"], provenance["Generator"], run.label)
    data, carrier = simulate(run, seed)
    write_synthetic_run(out, run, data, carrier.mask, provenance=provenance)
