"""Tell synthetic from real runs: ``python benchmarks/told_apart.py BIDS_DIR OUTPUT_DIR…``.

The classifiers of the group level, by themselves: for 80 parcels per run, a linear classifier of
connectivity, autocorrelation at lags 1 to 3, log standard deviation, the ratio of a parcel's
standard deviation to that of its voxels, and tails, which has not seen the participant
(`fmrisynth.evaluation.measures.classifier`). An area under the curve of .5 is chance. As a control,
whole real participants are told from as many other ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.evaluation.cohort.cohort import most_common_grid
from fmrisynth.evaluation.cohort.supervoxels import common_supervoxels
from fmrisynth.evaluation.measures.classifier import ALL, FeatureTable, tell_apart
from fmrisynth.evaluation.measures.features import FEATURES, compact_parcels, run_features
from fmrisynth.evaluation.runs.records import RunRecord, summarise_usable_runs


def told(first: FeatureTable, second: FeatureTable, pairs: Sequence[tuple[str, str]]) -> str:
    """Give a row of the table: the mean AUC of each kind of features, and of all."""
    found = tell_apart(first, second, pairs, np.random.default_rng(0), n_permutations=1)
    return " | ".join(f"{found[kind].auc.mean():.2f}" for kind in (*FEATURES, ALL))


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
    real = [run for run in find_runs(options.bids_dir).runs if run.participant in held_out]
    chosen = {
        out.name: [run for run in runs if run.participant in held_out]
        for out, runs in synthetic.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        grid = most_common_grid(real)

        def summarised(runs: Sequence) -> list[RunRecord]:
            records, _ = summarise_usable_runs(runs, grid, work_dir=Path(folder))
            return [record for record in records if record is not None]

        records = summarised(real)
        keys = common_supervoxels(records)
        labels = compact_parcels(keys)

        def measured(records: Sequence[RunRecord]) -> FeatureTable:
            return FeatureTable.of(
                [run_features(record, keys, labels) for record in records],
                [record.run.participant for record in records],
            )

        table = measured(records)
        names = sorted(set(table.participants))
        halves = zip(names[0::2], names[1::2], strict=False)
        print("| AUC |", " | ".join((*FEATURES, ALL)), "|")
        print("|---|" + "---|" * (len(FEATURES) + 1))
        if len(names) >= 4:
            print("| real against real |", told(table, table, list(halves)), "|")
        for name, runs in chosen.items():
            other = measured(summarised(runs))
            pairs = [(label, label) for label in names if label in other.participants]
            print(f"| {name} |", told(table, other, pairs), "|")


if __name__ == "__main__":
    main()
