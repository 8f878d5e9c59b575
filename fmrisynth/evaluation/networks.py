"""Networks: connectivity between parcels that are computed from the data.

Array legend: ``B`` blocks, ``T`` volumes, ``R`` runs, ``E`` pairs of parcels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering

from fmrisynth.evaluation.blocks import residual_series
from fmrisynth.evaluation.correlation import cross_correlation
from fmrisynth.evaluation.records import RunRecord
from fmrisynth.evaluation.resampling import NAN, Figure, bootstrap_counts, interval, matched_draws

__all__ = ["Networks", "compare_networks", "connectivity", "fingerprint", "networks_of", "parcels"]

_PARCELS = 60


@dataclass(frozen=True)
class Networks:
    """Connectivity and spatial spectrum of one source's runs.

    Attributes
    ----------
    people : tuple of str
        Participant of each run.
    edges : ndarray, shape (R, E)
        Connectivity of each run.
    eigenvalues : ndarray, shape (B,)
        Share of the variance of each spatial principal component of all runs.
    """

    people: tuple[str, ...]
    edges: np.ndarray
    eigenvalues: np.ndarray

    @property
    def dimension(self) -> float:
        """Participation ratio of the components: 1 for a single one, ``B`` for white noise."""
        return float(1.0 / np.sum(self.eigenvalues**2))


def parcels(
    records: Sequence[RunRecord], keys: np.ndarray, n_parcels: int = _PARCELS
) -> np.ndarray:
    """Cluster neighbouring blocks with similar series into parcels (Ward).

    Parameters
    ----------
    records : sequence of RunRecord
        Real runs, of training participants where there are any.
    keys : ndarray of int, shape (B, 3)
        Blocks that all runs have.
    n_parcels : int
        Number of parcels; fewer when there are few blocks.

    Returns
    -------
    ndarray of int, shape (B,)
        Parcel of each block.
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
    series : ndarray, shape (B, T)
        Series of the blocks.
    labels : ndarray of int, shape (B,)
        Parcel of each block.

    Returns
    -------
    ndarray, shape (E,)
        One value for each pair of parcels.
    """
    mean = np.array([series[labels == label].mean(axis=0) for label in np.unique(labels)])
    correlations = _correlations(mean)[np.triu_indices(len(mean), 1)]
    return np.arctanh(np.clip(np.nan_to_num(correlations), -0.999, 0.999))


def networks_of(records: Sequence[RunRecord], keys: np.ndarray, labels: np.ndarray) -> Networks:
    """Measure connectivity and spatial spectrum of a source's runs, one run at a time.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of the source.
    keys : ndarray of int, shape (B, 3)
        Blocks.
    labels : ndarray of int, shape (B,)
        Parcel of each block.

    Returns
    -------
    Networks
    """
    edges, covariance = [], np.zeros((len(keys), len(keys)))
    for record in records:
        series = residual_series(record, keys).astype(np.float64)
        edges.append(connectivity(series, labels))
        # Each run weighs the same, so that one with spikes does not make the spectrum.
        covariance += series @ series.T / max(float(np.sum(series**2)), np.finfo(float).tiny)
    values = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0.0, None)
    people = tuple(record.run.participant for record in records)
    return Networks(people, np.array(edges), values / values.sum())


def fingerprint(edges: np.ndarray, people: Sequence[str]) -> tuple[float, float]:
    """Similarity of connectivity between runs of one participant and of different ones.

    Parameters
    ----------
    edges : ndarray, shape (R, E)
        Connectivity of each run.
    people : sequence of str
        Participant of each run.

    Returns
    -------
    same, different : float
        Mean correlation of the runs' deviations from the mean over runs.
    """
    deviations = cross_correlation(edges - edges.mean(axis=0), edges - edges.mean(axis=0))
    names = np.array(people)
    first, second = np.triu_indices(len(names), 1)
    equal = names[first] == names[second]
    values = deviations[first, second]
    return _mean(values[equal]), _mean(values[~equal])


def compare_networks(
    made: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> dict[str, Figure]:
    """Figures of networks of a generator beside those of real training participants.

    Parameters
    ----------
    made, real : Networks
        Generator and real held-out participants.
    training : Networks or None
        Real training participants, for the ceilings.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``fc_correlation``, ``fc_sd`` and ``fc_sd_ratio`` (within-run spread),
        ``fc_same``, ``fc_different`` and their difference ``fc_fingerprint``,
        ``pca_dimension_ratio``.
    """
    ours, theirs = _by_person(made), _by_person(real)
    shared = [name for name in theirs if name in ours]
    if not shared:
        return {}
    synthetic = np.array([ours[name].mean(axis=0) for name in shared])
    truth = np.array([theirs[name].mean(axis=0) for name in shared])
    value = _agreement(synthetic.mean(axis=0), truth.mean(axis=0))
    counts = bootstrap_counts(len(shared), rng)
    samples = np.array([_agreement(c @ synthetic, c @ truth) for c in counts])
    others = np.zeros((0, truth.shape[1]))
    if training is not None:
        others = np.array([rows.mean(axis=0) for rows in _by_person(training).values()])
    ceilings = [
        _agreement(others[b].mean(axis=0), truth[a].mean(axis=0))
        for a, b in matched_draws(len(truth), len(others), rng)
    ]
    same, different = fingerprint(made.edges, made.people)
    real_same, real_different = fingerprint(real.edges, real.people)
    spread, real_spread = _spread(made), _spread(real)
    unit = real_spread if real_spread > 0 else NAN  # no spread with fewer than two edges
    reference = _spread(training) if training is not None else NAN
    return {
        "fc_correlation": Figure(
            value, *interval(value, samples, (-1.0, 1.0)), _mean(np.array(ceilings))
        ),
        "fc_sd": Figure(spread, ceiling=real_spread),
        "fc_sd_ratio": Figure(spread / unit, ceiling=reference / unit),
        "fc_same": Figure(same, ceiling=real_same),
        "fc_different": Figure(different, ceiling=real_different),
        "fc_fingerprint": Figure(same - different, ceiling=real_same - real_different),
        "pca_dimension_ratio": Figure(
            made.dimension / real.dimension,
            ceiling=training.dimension / real.dimension if training is not None else NAN,
        ),
    }


def _correlations(series: np.ndarray) -> np.ndarray:
    return cross_correlation(series, series)


def _by_person(networks: Networks) -> Mapping[str, np.ndarray]:
    names = np.array(networks.people)
    return {str(name): networks.edges[names == name] for name in np.unique(names)}


def _spread(networks: Networks) -> float:
    """Mean over runs of the standard deviation over pairs of parcels."""
    return float(np.tanh(networks.edges).std(axis=1).mean())


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float(cross_correlation(first[None], second[None])[0, 0])


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else NAN
