"""Measure networks: connectivity between parcels that are computed from the data.

Legend: B supervoxels, T volumes, R runs, P participants, E pairs of parcels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.cohort.supervoxels import residual_series
from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.runs.records import RunRecord
from fmrisynth.runtime.stored_rows import StoredRows

__all__ = ["Networks", "connectivity", "networks_of", "parcels"]

_PARCELS = 60
_MOST_SUPERVOXELS = 250
_AT_ONCE = 32  # participants' covariances, on either side


@dataclass(frozen=True)
class Networks:
    """Connectivity and spatial spectrum of one source's runs.

    Attributes
    ----------
    participants : tuple of str
        Participant of each run.
    edges : ndarray of shape (R, E)
        Connectivity of each run.
    eigenvalues : ndarray of shape (B,)
        Share of the variance of each spatial principal component of all runs.
    unrelated : ndarray of shape (R,)
        Standard deviation over pairs of parcels of each run's correlations when
        every parcel's series is shifted by a time of its own: what is left
        without any network.
    products : ndarray of shape (P, P)
        Inner products of the covariances between (some of) the supervoxels of the
        participants, sorted by label, each scaled to a trace of 1.
    """

    participants: tuple[str, ...]
    edges: np.ndarray
    eigenvalues: np.ndarray
    unrelated: np.ndarray
    products: np.ndarray

    @property
    def dimension(self) -> float:
        """Participation ratio of the components: 1 for a single one, ``B`` for white noise."""
        return float(1.0 / np.sum(self.eigenvalues**2))


def parcels(
    records: Sequence[RunRecord], keys: np.ndarray, n_parcels: int = _PARCELS
) -> np.ndarray:
    """Cluster neighbouring supervoxels with similar series into parcels (Ward).

    Parameters
    ----------
    records : sequence of RunRecord
        Real runs, of training participants where there are any.
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.
    n_parcels : int
        Number of parcels; fewer when there are few supervoxels.

    Returns
    -------
    ndarray of int of shape (B,)
        Parcel of each supervoxel.
    """
    profile = np.zeros((len(keys), len(keys)))
    for record in records:
        profile += np.nan_to_num(_correlations(residual_series(record, keys)))
    distance = np.abs(keys[:, None] - keys[None]).sum(axis=-1)
    model = AgglomerativeClustering(
        n_clusters=max(2, min(n_parcels, len(keys) // 4)),
        connectivity=sparse.csr_matrix(distance == 1),
    )
    return model.fit_predict(profile / max(len(records), 1))


def connectivity(series: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Correlation between the mean series of parcels, Fisher-transformed.

    Parameters
    ----------
    series : ndarray of shape (B, T)
        Series of the supervoxels.
    labels : ndarray of int of shape (B,)
        Parcel of each supervoxel.

    Returns
    -------
    ndarray of shape (E,)
        One value for each pair of parcels.
    """
    mean = np.array([series[labels == label].mean(axis=0) for label in np.unique(labels)])
    correlations = _correlations(mean)[np.triu_indices(len(mean), 1)]
    return np.arctanh(np.clip(np.nan_to_num(correlations), -0.999, 0.999))


def networks_of(
    records: Sequence[RunRecord], keys: np.ndarray, labels: np.ndarray, folder: Path
) -> Networks:
    """Measure connectivity and spatial spectrum of a source's runs, one run at a time.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of the source.
    keys : ndarray of int of shape (B, 3)
        Blocks.
    labels : ndarray of int of shape (B,)
        Parcel of each supervoxel.
    folder : pathlib.Path
        Where covariances of participants lie meanwhile.

    Returns
    -------
    Networks
    """
    edges, unrelated = [], []
    participants = tuple(record.run.participant for record in records)
    place = {name: row for row, name in enumerate(sorted(set(participants)))}
    covariance = np.zeros((len(keys), len(keys)))
    some = np.linspace(0, len(keys) - 1, min(len(keys), _MOST_SUPERVOXELS)).astype(int)
    own = StoredRows(folder, (len(place), len(some) ** 2))
    rng = np.random.default_rng(0)  # fixed shifts: the measure must not depend on a seed
    for record in records:
        series = residual_series(record, keys).astype(np.float64)
        edges.append(connectivity(series, labels).astype(np.float32))
        means = np.array([series[labels == label].mean(axis=0) for label in np.unique(labels)])
        unrelated.append(_unrelated(means, rng))
        # Each run weighs the same, so that one with spikes does not make the spectrum.
        covariance += series @ series.T / max(float(np.sum(series**2)), np.finfo(float).tiny)
        thinned = _unit(series[some])
        row = place[record.run.participant]
        own[row] = own[row] + (thinned @ thinned.T).ravel()
    values = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0.0, None)
    return Networks(
        participants, np.array(edges), values / values.sum(), np.array(unrelated), _products(own)
    )


def _unrelated(means: np.ndarray, rng: np.random.Generator) -> float:
    """Spread of the correlations of parcels (N, T) that are shifted against each other."""
    shifts = rng.integers(0, means.shape[1], len(means))
    moved = np.array([np.roll(row, shift) for row, shift in zip(means, shifts, strict=True)])
    return float(np.nanstd(_correlations(moved)[np.triu_indices(len(means), 1)]))


def _unit(series: np.ndarray) -> np.ndarray:
    """Scale series (B, T) so that their covariance has a trace of 1."""
    return (series / max(float(np.linalg.norm(series)), np.finfo(float).tiny)).astype(np.float32)


def _products(covariances: StoredRows) -> np.ndarray:
    """Inner products of participants' covariances (P, B · B), scaled to a trace of 1: (P, P)."""
    n = len(covariances)
    size = isqrt(covariances.shape[1])
    products, traces = np.zeros((n, n)), np.zeros(n)
    parts = list(slices(n, _AT_ONCE))
    for k, rows in enumerate(parts):
        first = covariances.take(range(n)[rows])
        traces[rows] = first[:, :: size + 1].sum(axis=1)
        for columns in parts[: k + 1]:
            second = first if columns == rows else covariances.take(range(n)[columns])
            products[rows, columns] = first @ second.T
            products[columns, rows] = products[rows, columns].T
    return products / np.outer(traces, traces)


def _correlations(series: np.ndarray) -> np.ndarray:
    return cross_correlation(series, series)
