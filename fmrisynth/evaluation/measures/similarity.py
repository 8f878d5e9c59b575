"""Correlate the residual series of runs, in place and at the best shift in time.

Legend: N, M runs, B supervoxels, T volumes, F frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.cohort.supervoxels import residual_series
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["Similarity", "shifted_correlation", "similarity"]

_BATCH = 16  # runs of the second side that are held beside some of the first
_MOST_HELD = 128  # runs of the first side that are held
_MOST_SUPERVOXELS = 300  # of the shifted comparison, which costs a transform per supervoxel


@dataclass(frozen=True)
class Similarity:
    """Correlations between two sets of runs.

    Attributes
    ----------
    in_place : ndarray of shape (N, M)
        Correlation of the series of all supervoxels; NaN for runs of different length.
    shifted : ndarray of shape (N, M)
        The largest correlation over shifts in time that leave at least half of
        the shorter run in common.
    """

    in_place: np.ndarray
    shifted: np.ndarray


def similarity(
    first: Sequence[RunRecord], second: Sequence[RunRecord], keys: np.ndarray
) -> Similarity:
    """Compare every run of one set with every run of another.

    Parameters
    ----------
    first, second : sequence of RunRecord
        Runs; both sets are read in batches.
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.

    Returns
    -------
    Similarity
    """
    some = np.linspace(0, len(keys) - 1, min(len(keys), _MOST_SUPERVOXELS)).astype(int)
    n = 2 * max((record.run.n_volumes for record in (*first, *second)), default=1)
    in_place = np.full((len(first), len(second)), NAN)
    shifted = np.full((len(first), len(second)), NAN)
    for rows in slices(len(first), _MOST_HELD):
        own = [_series(record, keys) for record in first[rows]]
        spectra = _Spectra.of([series[some] for series in own], n)
        flat, n_own = _by_length(own), len(own)
        del own  # while as many are held once more
        for columns in slices(len(second), _BATCH):
            other = [_series(record, keys) for record in second[columns]]
            in_place[rows, columns] = _in_place(flat, _by_length(other), (n_own, len(other)))
            shifted[rows, columns] = _best_shift(
                spectra, _Spectra.of([series[some] for series in other], n)
            )
    return Similarity(in_place, shifted)


def shifted_correlation(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Correlate runs at every shift in time, by FFT, and keep the best.

    Parameters
    ----------
    first, second : sequence of ndarray of shape (B, T)
        Series of N and M runs, which may differ in length.

    Returns
    -------
    ndarray of shape (N, M)
        ``max over s of Σ a(b, t) c(b, t + s) / sqrt(Σ a² Σ c²)``, the sums over
        supervoxels and over the volumes that both have at that shift.
    """
    n = 2 * max((series.shape[1] for series in (*first, *second)), default=1)
    return _best_shift(_Spectra.of(first, n), _Spectra.of(second, n))


@dataclass(frozen=True)
class _Spectra:
    """Runs in the form in which shifts are compared.

    ``transforms`` (F, N, B) of the series with zeros after them, which keep a
    shift from coming round at the other end; ``energies``: for each length, the rows of the runs
    that have it, and the energy of all supervoxels before each volume, (rows, T + 1).
    """

    n: int
    transforms: np.ndarray
    energies: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, runs: Sequence[np.ndarray], n: int) -> _Spectra:
        """Transform series (B, T) with zeros up to ``n`` volumes."""
        width = len(runs[0]) if runs else 0
        transforms = np.empty((n // 2 + 1, len(runs), width), dtype=np.complex64)
        for row, series in enumerate(runs):
            transforms[:, row] = np.fft.rfft(series, n, axis=1).T
        energies = []
        for rows in _rows_by_length(runs).values():
            power = [
                np.einsum("bt,bt->t", runs[r], runs[r], dtype=np.dtype(np.float64)) for r in rows
            ]
            energies.append((np.array(rows), np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)))
        return cls(n, transforms, tuple(energies))


def _best_shift(first: _Spectra, second: _Spectra) -> np.ndarray:
    best = np.full((first.transforms.shape[1], second.transforms.shape[1]), NAN)
    if not best.size:
        return best
    crossed = np.matmul(first.transforms.conj(), second.transforms.transpose(0, 2, 1))  # F N M
    products = np.fft.irfft(crossed, first.n, axis=0)  # shift s of the second lies at s mod n
    for rows, own in first.energies:
        for columns, other in second.energies:
            shifts = _shifts(own.shape[1] - 1, other.shape[1] - 1)
            energy = _common_energy(own, other, shifts)
            values = products[np.ix_(shifts % first.n, rows, columns)]
            values /= np.where(energy > 0, energy, np.inf)
            best[np.ix_(rows, columns)] = values.max(axis=0)
    return best


def _shifts(n: int, m: int) -> np.ndarray:
    """Shifts that leave at least half of the shorter of two runs in common."""
    least = -(-min(n, m) // 2)
    return np.arange(least - n, m - least + 1)


def _common_energy(first: np.ndarray, second: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Square root of the product of the energies that runs have in common at each shift: (S, N, M).

    First and second are cumulated energies (N, T + 1) and (M, T + 1).
    """
    start = np.maximum(0, -shifts)
    stop = np.minimum(first.shape[1] - 1, second.shape[1] - 1 - shifts)
    own = (first[:, stop] - first[:, start]).T[:, :, None]
    other = (second[:, stop + shifts] - second[:, start + shifts]).T[:, None]
    return np.sqrt(np.maximum(own * other, 0.0))


def _rows_by_length(runs: Sequence[np.ndarray]) -> dict[int, list[int]]:
    """List the runs (B, T) of each length T."""
    rows: dict[int, list[int]] = {}
    for row, series in enumerate(runs):
        rows.setdefault(series.shape[1], []).append(row)
    return rows


def _by_length(runs: Sequence[np.ndarray]) -> dict[int, tuple[list[int], np.ndarray]]:
    """Stack the series (B, T) of runs of each length T: rows, and ndarray (rows, B · T)."""
    rows = _rows_by_length(runs)
    return {n: (own, np.array([runs[i].ravel() for i in own])) for n, own in rows.items()}


def _in_place(
    first: Mapping[int, tuple[list[int], np.ndarray]],
    second: Mapping[int, tuple[list[int], np.ndarray]],
    shape: tuple[int, int],
) -> np.ndarray:
    correlations = np.full(shape, NAN)
    for length in first.keys() & second.keys():
        (rows, own), (columns, other) = first[length], second[length]
        correlations[np.ix_(rows, columns)] = own @ other.T
    return correlations


def _series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Residual series of a run, scaled so that the whole has unit norm: (B, T) float32."""
    series = residual_series(record, keys)
    series = series - series.mean(axis=1, keepdims=True)
    # Every supervoxel weighs the same, else a few large vessels decide.
    norm = np.linalg.norm(series, axis=1, keepdims=True)
    scaled = series / np.where(norm > 0, norm, 1.0) / np.sqrt(max(len(series), 1))
    return scaled.astype(np.float32)
