"""Give the maps of one source's participants, of which memory holds what is being read.

Legend: P participants, H = 2 halves of their runs, K trial types, C conditions, N coordinates,
V voxels of the common mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.stored_maps import StoredMaps

__all__ = ["MapTable"]

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MapTable:
    """The participants' maps of one source (real held-out, a generator, …).

    Attributes
    ----------
    participants : tuple of str
        The ``P`` participants.
    coordinates : StoredMaps
        Mean effect over the runs of each half, (P, H, K, N); arbitrary where ``n_runs`` is 0.
    n_runs : ndarray of int of shape (P, H, K)
        Number of runs behind each map.
    voxels : StoredMaps
        The maps themselves, percent signal change.
    """

    participants: tuple[str, ...]
    coordinates: StoredMaps
    n_runs: np.ndarray
    voxels: StoredMaps

    def whole(self, of: Change | None = None) -> np.ndarray:
        """Mean over all runs of each participant: (P, K, N), NaN where there is none.

        Parameters
        ----------
        of : callable, optional
            Makes of some participants' maps, (p, K, N), what is kept of them, (p, C, N).
        """
        return self._gathered(lambda part, maps: _weighted(maps, self.n_runs[part]), of)

    def half(self, index: np.ndarray, of: Change | None = None) -> np.ndarray:
        """Return one half of the runs, chosen per participant by ``index`` (P,): (P, K, N).

        Parameters
        ----------
        index : ndarray of int of shape (P,)
            0 or 1.
        of : callable, optional
            As for `whole`.
        """

        def chosen(part: slice, maps: np.ndarray) -> np.ndarray:
            rows, half = np.arange(len(maps)), index[part]
            there = self.n_runs[part][rows, half] > 0
            return np.where(there[..., None], maps[rows, half], np.nan)

        return self._gathered(chosen, of)

    def of_type(self, trial_type: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the halves of the runs, (P, H, N), of one trial type, and their mean, (P, N)."""
        halves = np.empty((len(self.participants), 2, self.coordinates.n_values))
        for part, maps in self.coordinates.pieces(trial_type):
            halves[part] = maps
        runs = self.n_runs[:, :, trial_type]
        whole = _weighted(halves[:, :, None], runs[..., None])[:, 0]
        halves[runs == 0] = np.nan
        return halves, whole

    def _gathered(
        self, make: Callable[[slice, np.ndarray], np.ndarray], of: Change | None
    ) -> np.ndarray:
        """Go through the coordinates piece by piece, so that memory holds what is made of them."""
        made: np.ndarray | None = None
        for part, maps in self.coordinates.pieces():
            piece = make(part, maps)
            piece = piece if of is None else of(piece)
            if made is None:
                made = np.empty((len(self.participants), *piece.shape[1:]))
            made[part] = piece
        return np.zeros((0, self.n_runs.shape[-1], 0)) if made is None else made

    def condition_voxels(
        self, weights: np.ndarray, of: Callable[[np.ndarray], np.ndarray], half: int | None = None
    ) -> np.ndarray:
        """Read one condition's maps, so that memory holds no other: (P, V).

        Parameters
        ----------
        weights : ndarray of shape (K,)
            Weight of each trial type in the condition; the others are not read.
        of : callable
            (1, k, V) maps of those trial types → (1, 1, V) map of the condition.
        half : int, optional
            0 or 1: one half of the runs; all runs when left out.

        Returns
        -------
        ndarray of shape (P, V)
            NaN for participants without the condition.
        """
        used = np.flatnonzero(weights)
        halves = slice(None) if half is None else slice(half, half + 1)
        maps = np.empty((len(self.participants), self.voxels.n_values), dtype=np.float32)
        for participant, stored in enumerate(self.voxels):
            runs = self.n_runs[participant, halves][:, used]
            own = stored[halves][:, used]
            maps[participant] = of(_weighted(own[None], runs[None]))[0, 0]
        return maps

    def group_maps(self) -> np.ndarray:
        """Mean over participants of their mean over runs, in voxels: (K, V), NaN for none."""
        total = np.zeros((self.n_runs.shape[-1], self.voxels.n_values))
        count = np.zeros(len(total))
        # one at a time: the maps lie on disk
        for stored, runs in zip(self.voxels, self.n_runs, strict=True):
            maps = _weighted(stored[None], runs[None])[0]
            present = np.isfinite(maps[:, 0])
            total[present] += maps[present]
            count += present
        return total / np.where(count > 0, count, np.nan)[:, None]

    @property
    def has_halves(self) -> bool:
        """Whether most maps rest on at least two runs; a few may lack one that was unusable."""
        present = self.n_runs.sum(axis=1) > 0
        both = self.n_runs.min(axis=1) > 0
        return bool(present.any() and 2 * both.sum() >= present.sum())

    @property
    def halved(self) -> tuple[str, ...]:
        """Participants with at least one condition in both halves of their runs."""
        both = (self.n_runs.min(axis=1) > 0).any(axis=1)
        return tuple(
            participant for participant, has in zip(self.participants, both, strict=True) if has
        )

    def of(self, participants: Sequence[str]) -> MapTable:
        """Keep some of the participants, in the order given."""
        rows = [self.participants.index(participant) for participant in participants]
        return MapTable(
            tuple(participants),
            self.coordinates.some(rows),
            self.n_runs[rows],
            self.voxels.some(rows),
        )


def _weighted(maps: np.ndarray, n_runs: np.ndarray) -> np.ndarray:
    """Combine halves (P, H, K, N) by their number of runs: (P, K, N), NaN where there is none."""
    total = n_runs.sum(axis=1)
    weights = n_runs / np.where(total > 0, total, 1)[:, None]
    out = np.einsum("phk,phkn->pkn", weights, maps)
    return np.where(total[..., None] > 0, out, np.nan)
