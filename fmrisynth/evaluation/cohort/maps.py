"""Average participants' effect maps on common voxels, and find an exact small form of them.

Every measure of activation is built from inner products of maps. `MapTable`
therefore keeps, beside the maps, their coordinates in the space they
span: a few hundred numbers instead of tens of thousands of voxels, with the
same correlations, slopes and dissimilarities. Thousands of resamples of
participants then cost seconds.

Legend: P participants, H = 2 halves of their runs, K trial types, C conditions,
N coordinates, V voxels of the common mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.spans import centred, inner_products, span_coordinates
from fmrisynth.evaluation.cohort.stored_maps import StoredMaps, store_maps
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "Condition",
    "build_supervoxel_tables",
    "build_tables",
    "common_mask",
    "group_mean",
    "merge",
    "on_mask",
    "ordered_runs",
    "weigh",
]

Condition = tuple[str, str]
"""Task and trial type."""


def group_mean(maps: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over participants, leaving out those without the condition.

    Parameters
    ----------
    maps : ndarray of shape (P, K, N)
        Participants' maps; NaN rows are missing.
    weights : ndarray of shape (P,), optional
        Weight of each participant (counts of a bootstrap sample).

    Returns
    -------
    ndarray of shape (K, N)
        NaN where no participant has the condition.
    """
    present = np.isfinite(maps[:, :, 0]).astype(float)
    if weights is not None:
        present *= weights[:, None]
    total = present.sum(axis=0)
    summed = np.einsum("pk,pkn->kn", present, np.nan_to_num(maps))
    return summed / np.where(total > 0, total, np.nan)[:, None]


def merge(maps: np.ndarray, to_conditions: np.ndarray) -> np.ndarray:
    """Average trial types into conditions, leaving out missing ones.

    Parameters
    ----------
    maps : ndarray of shape (P, K, N)
        Maps per trial type.
    to_conditions : ndarray of shape (C, K)
        1 where a trial type belongs to a condition.

    Returns
    -------
    ndarray of shape (P, C, N)
    """
    present = np.isfinite(maps[:, :, 0]).astype(float)
    count = present @ to_conditions.T
    summed = np.einsum("ck,pkn->pcn", to_conditions, np.nan_to_num(maps))
    return summed / np.where(count > 0, count, np.nan)[..., None]


def weigh(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Add trial types up into contrasts; a contrast needs all trial types that have a weight.

    Parameters
    ----------
    maps : ndarray of shape (..., K, N)
        Maps per trial type, NaN where missing.
    weights : ndarray of shape (M, K)
        Weight of each trial type in each contrast.

    Returns
    -------
    ndarray of shape (..., M, N)
    """
    present = np.isfinite(maps[..., 0])  # (…, K)
    missing = (~present[..., None, :] & (weights != 0)).any(axis=-1)  # (…, M)
    summed = np.einsum("mk,...kn->...mn", weights, np.nan_to_num(maps))
    return np.where(missing[..., None], np.nan, summed)


def ordered_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Order a participant's runs so that the first n are as varied as n can be.

    Copies told apart by ``run-`` come after every other distinction, so that
    the first two of (AP run 1, AP run 2, PA run 1, PA run 2) are AP and PA.
    """

    def key(record: RunRecord) -> tuple[int, tuple[str, ...]]:
        entities = record.run.entities
        number = entities.get("run", "0")
        rest = tuple(f"{k}-{v}" for k, v in entities.items() if k != "run")
        return (int(number) if number.isdigit() else 0, rest)

    return sorted(records, key=key)


def common_mask(records: Sequence[RunRecord]) -> tuple[np.ndarray, str | None]:
    """Voxels on which all runs are compared.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs on one reference grid.

    Returns
    -------
    mask : ndarray of bool of shape (X, Y, Z)
        Voxels in every run's mask; where that leaves less than half of the
        voxels that 80 % of the runs share, those 80 % ones.
    note : str or None
        Said in the report when the second form was needed.
    """
    counts = np.zeros(records[0].array("mask").shape, dtype=np.int32)
    for record in records:
        counts += record.array("mask")
    all_runs = counts == len(records)
    most_runs = counts >= 0.8 * len(records)
    if 2 * all_runs.sum() >= most_runs.sum():
        return all_runs, None
    return most_runs, (
        f"the masks of the runs share only {all_runs.sum()} voxels, so the "
        f"{most_runs.sum()} voxels in 80 % of them are used, and a voxel outside a run's mask "
        "counts there as no effect"
    )


def build_tables(
    sources: Mapping[str, Mapping[str, Sequence[RunRecord]]],
    conditions: Sequence[Condition],
    mask: np.ndarray,
    path: Path,
    spans: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, MapTable]]:
    """Average runs into participants' maps and find their exact coordinates.

    Parameters
    ----------
    sources : mapping
        Source → participant → its runs.
    conditions : sequence of Condition
        The K conditions.
    mask : ndarray of bool of shape (X, Y, Z)
        Common mask with V voxels.
    path : Path
        File in the work directory for the maps, so that memory holds few of them.
    spans : mapping
        Name → sources whose maps get coordinates in common. What is in one
        span does not depend on the sources of the others.

    Returns
    -------
    dict
        Name of the span → source → MapTable.
    """
    stored, n_runs, rows = _store_maps(sources, conditions, mask, path, None)
    flat = stored.reshape(-1, stored.shape[-1])
    size = 2 * len(conditions)
    parts = {source: slice(part.start * size, part.stop * size) for source, part in rows.items()}
    pairs = dict.fromkeys((a, b) for members in spans.values() for a in members for b in members)

    def table(source: str, coordinates: StoredMaps) -> MapTable:
        own = StoredMaps(path, _places(rows[source]))
        return MapTable(tuple(sources[source]), coordinates, n_runs[rows[source]], own)

    if len(flat) > flat.shape[1]:  # more maps than voxels, which are the smaller form then
        shared = _store_centred(stored, path)
        of = {source: table(source, shared.some(_places(part))) for source, part in rows.items()}
        return {name: {source: of[source] for source in members} for name, members in spans.items()}
    products = inner_products(flat, parts, list(pairs))
    tables: dict[str, dict[str, MapTable]] = {}
    for number, (name, members) in enumerate(spans.items()):
        gram = np.block([[products[a, b] for b in members] for a in members])
        found = span_coordinates(gram)
        n_maps = sum(len(sources[source]) for source in members)
        maps = found.reshape(n_maps, 2, len(conditions), found.shape[1])
        own = store_maps(_beside(path, f"coordinates-{number}"), maps, len(maps))
        tables[name], start = {}, 0
        for source in members:
            end = start + len(sources[source])
            tables[name][source] = table(source, own.some(range(start, end)))
            start = end
    return tables


def build_supervoxel_tables(
    sources: Mapping[str, Mapping[str, Sequence[RunRecord]]],
    conditions: Sequence[Condition],
    mask: np.ndarray,
    path: Path,
    average: sparse.csr_array,
) -> dict[str, MapTable]:
    """Average runs into participants' maps on supervoxels, whose centred values are coordinates.

    Parameters
    ----------
    sources, conditions, mask, path
        As for `build_tables`.
    average : sparse array of shape (B, V)
        Averages the voxels of the mask into supervoxels.

    Returns
    -------
    dict
        Source → MapTable, with supervoxels in place of voxels.
    """
    stored, n_runs, rows = _store_maps(sources, conditions, mask, path, average)
    shared = _store_centred(stored, path)
    return {
        source: MapTable(
            tuple(sources[source]),
            shared.some(_places(part)),
            n_runs[part],
            StoredMaps(path, _places(part)),
        )
        for source, part in rows.items()
    }


def _store_centred(maps: np.ndarray, path: Path) -> StoredMaps:
    """Write the centred maps of all participants (P, 2, K, V), which are coordinates."""
    return store_maps(_beside(path, "centred"), (centred(own) for own in maps), len(maps))


def _beside(path: Path, name: str) -> Path:
    """Name a file after another one."""
    return path.with_name(f"{path.stem}-{name}.npy")


def _places(part: slice) -> tuple[int, ...]:
    return tuple(range(part.start, part.stop))


def _store_maps(
    sources: Mapping[str, Mapping[str, Sequence[RunRecord]]],
    conditions: Sequence[Condition],
    mask: np.ndarray,
    path: Path,
    average: sparse.csr_array | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, slice]]:
    """Write the maps of all participants, (P, 2, K, V): maps, numbers of runs, rows by source."""
    n_conditions = len(conditions)
    n_voxels = int(mask.sum()) if average is None else average.shape[0]
    n_participants = sum(len(participants) for participants in sources.values())
    stored = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(n_participants, 2, n_conditions, n_voxels)
    )
    n_runs = np.zeros((n_participants, 2, n_conditions), dtype=int)
    rows: dict[str, slice] = {}
    row = 0
    for source, participants in sources.items():
        start = row
        for records in participants.values():
            maps, n_runs[row] = _participant_maps(records, conditions, mask)
            if average is not None:
                maps = (average @ maps.reshape(-1, maps.shape[-1]).T).T
            stored[row] = maps.reshape(2, n_conditions, n_voxels)
            row += 1
        rows[source] = slice(start, row)
    stored.flush()
    return stored, n_runs, rows


def _participant_maps(
    records: Sequence[RunRecord], conditions: Sequence[Condition], mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean effect of each half of a participant's runs: (2, K, V) and the number of runs."""
    maps = np.zeros((2, len(conditions), int(mask.sum())), dtype=np.float32)
    n_runs = np.zeros((2, len(conditions)), dtype=int)
    place = {condition: index for index, condition in enumerate(conditions)}
    for record in ordered_runs(records):
        own, own_mask = record.arrays("effects", "mask")
        effects = on_mask(own, own_mask, mask)
        for trial_type, effect in zip(record.trial_types, effects, strict=True):
            k = place.get((record.run.task, trial_type))
            if k is None:
                continue
            half = int(n_runs[1, k] < n_runs[0, k])
            n_runs[half, k] += 1
            maps[half, k] += (effect - maps[half, k]) / n_runs[half, k]
    return maps, n_runs


def on_mask(values: np.ndarray, own: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Move values (…, V_own) from a run's mask to the common one; 0 outside the run's own."""
    index = np.full(own.shape, -1, dtype=np.int64)
    index[own] = np.arange(int(own.sum()))
    places = index[common]
    return np.where(places >= 0, values[..., np.maximum(places, 0)], np.float32(0.0))
