"""Keep how variance and coupling change with the trial types, participant by participant.

Legend: P participants, K trial types, N parcels, D pairs of parcels, each with itself as well,
W sets of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.measures.features import modulation
from fmrisynth.evaluation.runs.records import RunRecord
from fmrisynth.runtime.stored_rows import StoredRows

__all__ = ["Modulations", "measure_modulations"]

_AT_ONCE = 64  # participants


@dataclass(frozen=True)
class Modulations:
    """Modulations of some participants, which lie on the disk.

    Attributes
    ----------
    places : mapping
        Participant → row.
    rows : StoredRows
        Mean over the runs of each participant, (P, K, D); NaN for trial types without a run.
    """

    places: Mapping[str, int]
    rows: StoredRows

    def means(self, rows: Sequence[int], weights: np.ndarray) -> np.ndarray:
        """Average over participants with several sets of weights at once.

        Parameters
        ----------
        rows : sequence of int
            Rows of the participants.
        weights : ndarray of shape (W, P)
            Weights of these.

        Returns
        -------
        ndarray of shape (W, K, D)
            NaN for trial types that nobody with a weight has.
        """
        n_types, n_pairs = self.rows.shape[1:]
        total = np.zeros((len(weights), n_types * n_pairs), np.float32)
        number = np.zeros((len(weights), n_types))
        for part in slices(len(rows), _AT_ONCE):
            own = self.rows.take(rows[part])
            number += weights[:, part] @ np.isfinite(own[..., 0])
            np.nan_to_num(own, copy=False)
            total += weights[:, part].astype(np.float32) @ own.reshape(len(own), total.shape[1])
        means = total.reshape(len(weights), n_types, n_pairs)
        means /= np.where(number > 0, number, np.nan).astype(np.float32)[..., None]
        return means


def measure_modulations(
    runs: Sequence[RunRecord],
    trial_types: Sequence[tuple[str, str]],
    keys: np.ndarray,
    labels: np.ndarray,
    folder: Path,
) -> Modulations:
    """Average the modulations over the runs of each participant.

    Parameters
    ----------
    runs : sequence of RunRecord
        Runs of one source.
    trial_types : sequence of (str, str)
        The K pairs of task and trial type.
    keys : ndarray of int of shape (B, 3)
        Supervoxels.
    labels : ndarray of int of shape (B,)
        Compact parcel of each.
    folder : pathlib.Path
        Where they lie.

    Returns
    -------
    Modulations
    """
    place = {pair: k for k, pair in enumerate(trial_types)}
    upper = np.triu_indices(int(labels.max()) + 1)
    of_participants: dict[str, list[RunRecord]] = {}
    for record in runs:
        of_participants.setdefault(record.run.participant, []).append(record)
    shape = (len(of_participants), len(place), len(upper[0]))
    stored = StoredRows(folder, shape)
    for row, records in enumerate(of_participants.values()):
        total, number = np.zeros(shape[1:]), np.zeros(len(place))
        for record in records:
            for name, change in modulation(record, keys, labels).items():
                if (k := place.get((record.run.task, name))) is not None:
                    total[k] += change[upper]
                    number[k] += 1
        stored[row] = total / np.where(number > 0, number, np.nan)[:, None]
    return Modulations({name: row for row, name in enumerate(of_participants)}, stored)
