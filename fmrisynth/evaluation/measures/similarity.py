"""Correlate the residual series of runs, in place and at the best shift in time.

Legend: N, M runs, B supervoxels, T volumes, F frequencies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.supervoxels import residual_series
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["Similarity", "shifted_correlation", "similarity"]

_BATCH = 16  # runs that are held beside those of the first side
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
        Runs; the second set is read in batches.
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.

    Returns
    -------
    Similarity
    """
    own = [_series(record, keys) for record in first]
    some = np.linspace(0, len(keys) - 1, min(len(keys), _MOST_SUPERVOXELS)).astype(int)
    n = 2 * max((record.run.n_volumes for record in (*first, *second)), default=1)
    thinned = _Spectra.of([series[some] for series in own], n)
    in_place = np.full((len(first), len(second)), NAN)
    shifted = np.full((len(first), len(second)), NAN)
    for start, batch in _batches(second):
        other = [_series(record, keys) for record in batch]
        columns = slice(start, start + len(batch))
        in_place[:, columns] = _in_place(own, other)
        shifted[:, columns] = _best_shift(
            thinned, _Spectra.of([series[some] for series in other], n)
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

    ``transforms`` (N, B, F) of the series with zeros after them, which keep a
    shift from coming round at the other end; ``energies``: for each run the
    energy of all supervoxels before each volume, (T + 1,).
    """

    n: int
    transforms: np.ndarray
    energies: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, runs: Sequence[np.ndarray], n: int) -> _Spectra:
        """Transform series (B, T) with zeros up to ``n`` volumes."""
        transforms = [np.fft.rfft(series, n, axis=1).astype(np.complex64) for series in runs]
        energies = [np.einsum("bt,bt->t", series, series, dtype=np.float64) for series in runs]
        return cls(n, np.array(transforms), tuple(np.cumsum([0.0, *each]) for each in energies))


def _best_shift(first: _Spectra, second: _Spectra) -> np.ndarray:
    best = np.full((len(first.energies), len(second.energies)), NAN)
    if not best.size:
        return best
    crossed = np.matmul(
        first.transforms.transpose(2, 0, 1).conj(), second.transforms.transpose(2, 1, 0)
    )  # F N M
    products = np.fft.irfft(crossed, first.n, axis=0)  # shift s of the second lies at s mod n
    for i, own in enumerate(first.energies):
        for j, other in enumerate(second.energies):
            shifts = _shifts(len(own) - 1, len(other) - 1)
            energy = _common_energy(own, other, shifts)
            values = products[shifts % first.n, i, j] / np.where(energy > 0, energy, np.inf)
            best[i, j] = values.max()
    return best


def _shifts(n: int, m: int) -> np.ndarray:
    """Shifts that leave at least half of the shorter of two runs in common."""
    least = -(-min(n, m) // 2)
    return np.arange(least - n, m - least + 1)


def _common_energy(first: np.ndarray, second: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Square root of the product of the energies that two runs have in common at each shift."""
    start = np.maximum(0, -shifts)
    stop = np.minimum(len(first) - 1, len(second) - 1 - shifts)
    own = first[stop] - first[start]
    other = second[stop + shifts] - second[start + shifts]
    return np.sqrt(np.maximum(own * other, 0.0))


def _in_place(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    correlations = np.full((len(first), len(second)), NAN)
    for length in {series.shape[1] for series in second}:
        rows = [i for i, series in enumerate(first) if series.shape[1] == length]
        columns = [j for j, series in enumerate(second) if series.shape[1] == length]
        if rows:
            a = np.array([first[i].ravel() for i in rows])
            c = np.array([second[j].ravel() for j in columns])
            correlations[np.ix_(rows, columns)] = a @ c.T
    return correlations


def _series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Residual series of a run, scaled so that the whole has unit norm: (B, T) float32."""
    series = residual_series(record, keys)
    series = series - series.mean(axis=1, keepdims=True)
    # Every supervoxel weighs the same, else a few large vessels decide.
    norm = np.linalg.norm(series, axis=1, keepdims=True)
    scaled = series / np.where(norm > 0, norm, 1.0) / np.sqrt(max(len(series), 1))
    return scaled.astype(np.float32)


def _batches(records: Sequence[RunRecord]) -> Iterator[tuple[int, Sequence[RunRecord]]]:
    for start in range(0, len(records), _BATCH):
        yield start, records[start : start + _BATCH]
