"""Measure how near synthetic runs come to training runs and to runs never seen.

Carriers (a participant's own mean image and drift) belong to the input in
augmentation mode, so runs are compared by what the model invents: their
coarse, drift-free series without the modelled response to the events
(`fmrisynth.evaluation.measures.similarity`), in place and at the best shift in time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.measures.similarity import Similarity, similarity
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "CopyAudit",
    "OwnAudit",
    "RealPairs",
    "audit_copying",
    "audit_own_runs",
    "compare_real_pairs",
    "membership_auc",
]

RealPairs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Task → correlations of pairs of real runs of different participants, in place and shifted."""

_MOST_PAIRED = 64
"""Runs of a task whose pairs are compared."""


@dataclass(frozen=True)
class CopyAudit:
    """Similarities of the runs of a generator to real ones of the same task.

    Attributes
    ----------
    participants : tuple of str
        Participant of each synthetic run.
    to_training, to_held_out : ndarray of shape (n_synthetic,)
        Correlation of each synthetic run with its nearest real run of the same
        length, among as many training as held-out participants; NaN without one.
    to_any_training : ndarray of shape (n_synthetic,)
        The same among all training participants: a copy of any of them is a copy.
    shifted_to_training : ndarray of shape (n_synthetic,)
        The same at the best shift in time, among training runs of any length.
    members, non_members : ndarray of shape (n_runs,)
        For each real training and held-out run, its correlation with the nearest synthetic run.
    member_participants, non_member_participants : tuple of str
        Participants of those runs.
    real_pairs, shifted_real_pairs : ndarray of shape (n_pairs,)
        Correlations between real runs of different participants, in place and
        at the best shift.
    synthetic_pairs : ndarray of shape (n_pairs,)
        Correlations between synthetic runs of different participants.
    pair_runs : ndarray of int of shape (n_pairs, 2)
        Rows, in the arrays of synthetic runs, of the two runs of each synthetic pair.
    """

    participants: tuple[str, ...]
    to_training: np.ndarray
    to_held_out: np.ndarray
    to_any_training: np.ndarray
    shifted_to_training: np.ndarray
    members: np.ndarray
    non_members: np.ndarray
    member_participants: tuple[str, ...]
    non_member_participants: tuple[str, ...]
    real_pairs: np.ndarray
    shifted_real_pairs: np.ndarray
    synthetic_pairs: np.ndarray
    pair_runs: np.ndarray

    @property
    def limit(self) -> float:
        """Similarity above which a run is called a copy.

        A quarter of the way from the most similar pair of real runs of
        different participants to identity.
        """
        return _limit(self.real_pairs)

    @property
    def shifted_limit(self) -> float:
        """The same for the similarity at the best shift in time."""
        return _limit(self.shifted_real_pairs)

    @property
    def copied(self) -> np.ndarray:
        """Which synthetic runs are copies of training runs, in place or shifted: (n_synthetic,)."""
        in_place = self.to_any_training > self.limit
        return in_place | (self.shifted_to_training > self.shifted_limit)


def audit_copying(
    synthetic: Sequence[RunRecord],
    held_out: Sequence[RunRecord],
    training: Sequence[RunRecord],
    keys: np.ndarray,
    real_pairs: RealPairs,
    rng: np.random.Generator,
    *,
    own_participants: bool = False,
) -> CopyAudit:
    """Compare every synthetic run with every real run of its task.

    Parameters
    ----------
    synthetic, held_out, training : sequence of RunRecord
        Runs of a generator, of real held-out and of real training participants.
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.
    real_pairs : mapping
        From `compare_real_pairs` of the same real runs.
    rng : numpy.random.Generator
        Draws the training participants of the nearest-run comparison.
    own_participants : bool
        The "generator" are the held-out runs themselves: runs are compared
        with those of other participants only, and to keep the numbers equal
        every training run misses one participant as well.

    Returns
    -------
    CopyAudit
    """
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    participants: dict[str, list[str]] = defaultdict(list)
    matched = _matched_participants(held_out, training, rng, spare=int(own_participants))
    for task in sorted({r.run.task for r in synthetic}):
        generated, seen, unseen = (
            [r for r in records if r.run.task == task]
            for records in (synthetic, training, held_out)
        )
        if not seen or not unseen:
            continue
        to_seen, to_unseen = similarity(generated, seen, keys), similarity(generated, unseen, keys)
        if own_participants:
            _without_own(to_unseen, generated, unseen)
            _without_one(to_seen, generated, rng)
        chosen = np.array([r.run.participant in matched for r in seen])
        parts["to_training"].append(_nearest(to_seen.in_place[:, chosen], 1))
        parts["to_held_out"].append(_nearest(to_unseen.in_place, 1))
        parts["to_any_training"].append(_nearest(to_seen.in_place, 1))
        parts["shifted_to_training"].append(_nearest(to_seen.shifted, 1))
        parts["members"].append(_nearest(to_seen.in_place, 0))
        parts["non_members"].append(_nearest(to_unseen.in_place, 0))
        parts["real_pairs"].append(real_pairs[task][0])
        parts["shifted_real_pairs"].append(real_pairs[task][1])
        pairs = _different_pairs(generated[:_MOST_PAIRED], keys)
        parts["synthetic_pairs"].append(pairs[0])
        parts["pair_runs"].append(pairs[2] + len(participants["synthetic"]))
        for name, records in (("synthetic", generated), ("members", seen), ("non_members", unseen)):
            participants[name] += [r.run.participant for r in records]

    def joined(name: str) -> np.ndarray:
        return np.concatenate(parts[name]) if parts[name] else np.zeros(0)

    return CopyAudit(
        participants=tuple(participants["synthetic"]),
        to_training=joined("to_training"),
        to_held_out=joined("to_held_out"),
        to_any_training=joined("to_any_training"),
        shifted_to_training=joined("shifted_to_training"),
        members=joined("members"),
        non_members=joined("non_members"),
        member_participants=tuple(participants["members"]),
        non_member_participants=tuple(participants["non_members"]),
        real_pairs=joined("real_pairs"),
        shifted_real_pairs=joined("shifted_real_pairs"),
        synthetic_pairs=joined("synthetic_pairs"),
        pair_runs=joined("pair_runs").reshape(-1, 2).astype(int),
    )


def compare_real_pairs(
    held_out: Sequence[RunRecord], training: Sequence[RunRecord], keys: np.ndarray
) -> RealPairs:
    """Compare real runs of each task with those of other participants, for every audit.

    Parameters
    ----------
    held_out, training : sequence of RunRecord
        Runs of real participants.
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.

    Returns
    -------
    dict
    """
    pairs = {}
    for task in sorted({r.run.task for r in (*training, *held_out)}):
        records = [r for r in (*training, *held_out) if r.run.task == task]
        pairs[task] = _different_pairs(_some(records), keys)[:2]
    return pairs


@dataclass(frozen=True)
class OwnAudit:
    """Similarities of runs written for training participants to the real runs learned from.

    Attributes
    ----------
    participants : tuple of str
        Participant of each synthetic run.
    nearest : ndarray of shape (n_synthetic,)
        Correlation of each with the nearest real run of its participant and
        task, the run that it imitates included.
    copied : ndarray of bool of shape (n_synthetic,)
        Which are copies of a training run, in place or shifted: more similar
        than a quarter of the way from the most similar pair of real runs, of
        one participant or of two, to identity.
    real_nearest : ndarray of shape (n_real,)
        Correlation of each real run with the nearest other one of its
        participant and task; NaN without one.
    """

    participants: tuple[str, ...]
    nearest: np.ndarray
    copied: np.ndarray
    real_nearest: np.ndarray


def audit_own_runs(
    synthetic: Sequence[RunRecord], training: Sequence[RunRecord], keys: np.ndarray
) -> OwnAudit:
    """Compare runs written for training participants with the training runs of their task.

    Parameters
    ----------
    synthetic, training : sequence of RunRecord
        Synthetic runs and real runs, of training participants.
    keys : ndarray of int of shape (B, 3)
        Supervoxels that all runs have.
    """
    participants: list[str] = []
    nearest, real_nearest = [np.zeros(0)], [np.zeros(0)]
    copied = [np.zeros(0, dtype=bool)]
    for task in sorted({r.run.task for r in synthetic}):
        generated, real = (
            [r for r in records if r.run.task == task] for records in (synthetic, training)
        )
        if not real:
            continue
        own = [np.array([r.run.participant for r in records]) for records in (generated, real)]
        found, retest = similarity(generated, real, keys), similarity(real, real, keys)
        np.fill_diagonal(retest.in_place, NAN)
        np.fill_diagonal(retest.shifted, NAN)
        in_place = _nearest(found.in_place, 1) > _limit(retest.in_place.ravel())
        shifted = _nearest(found.shifted, 1) > _limit(retest.shifted.ravel())
        copied.append(in_place | shifted)
        for each, measured, names in ((nearest, found, own[0]), (real_nearest, retest, own[1])):
            same = names[:, None] == own[1][None]
            each.append(_nearest(np.where(same, measured.in_place, NAN), 1))
        participants += [str(name) for name in own[0]]
    return OwnAudit(
        tuple(participants),
        np.concatenate(nearest),
        np.concatenate(copied),
        np.concatenate(real_nearest),
    )


def membership_auc(members: np.ndarray, non_members: np.ndarray) -> float:
    """Area under the curve of guessing membership from the nearest synthetic run.

    Parameters
    ----------
    members, non_members : ndarray of shape (n_runs,)
        Scores of training and of held-out runs.

    Returns
    -------
    float
        0.5 when the scores tell nothing, 1 when every member scores higher.
    """
    members = members[np.isfinite(members)]
    non_members = non_members[np.isfinite(non_members)]
    n, m = len(members), len(non_members)
    if not n or not m:
        return NAN
    ranks = rankdata(np.concatenate([members, non_members]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def _limit(pairs: np.ndarray) -> float:
    pairs = pairs[np.isfinite(pairs)]
    if not len(pairs):
        return NAN
    most = float(pairs.max())
    return most + 0.25 * (1.0 - most)


def _nearest(similarities: np.ndarray, axis: int) -> np.ndarray:
    """Largest value along an axis; NaN where there is none."""
    if not similarities.shape[axis]:
        return np.full(similarities.shape[1 - axis], NAN)
    best = np.where(np.isfinite(similarities), similarities, -np.inf).max(axis=axis)
    return np.where(np.isfinite(best), best, NAN)


def _some(records: Sequence[RunRecord]) -> Sequence[RunRecord]:
    """Take some of many runs, evenly: pairs grow with the square of their number."""
    if len(records) <= _MOST_PAIRED:
        return records
    return [records[i] for i in np.linspace(0, len(records) - 1, _MOST_PAIRED).astype(int)]


def _different_pairs(
    records: Sequence[RunRecord], keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare runs of different participants: in place, shifted, and which runs, (n, 2)."""
    measured = similarity(records, records, keys)
    participants = np.array([r.run.participant for r in records])
    first, second = np.triu_indices(len(records), 1)
    different = participants[first] != participants[second]
    first, second = first[different], second[different]
    in_place, shifted = measured.in_place[first, second], measured.shifted[first, second]
    return in_place, shifted, np.stack([first, second], axis=1)


def _without_own(
    measured: Similarity, generated: Sequence[RunRecord], others: Sequence[RunRecord]
) -> None:
    """Leave out pairs of runs of one participant."""
    for i, first in enumerate(generated):
        for j, second in enumerate(others):
            if first.run.participant == second.run.participant:
                measured.in_place[i, j] = measured.shifted[i, j] = NAN


def _without_one(
    measured: Similarity, generated: Sequence[RunRecord], rng: np.random.Generator
) -> None:
    """Leave out a random participant of the generator for every real run."""
    participants = np.array([r.run.participant for r in generated])
    names = np.unique(participants)
    if len(names) > 1:
        for j in range(measured.in_place.shape[1]):
            rows = participants == rng.choice(names)
            measured.in_place[rows, j] = NAN


def _matched_participants(
    held_out: Sequence[RunRecord],
    training: Sequence[RunRecord],
    rng: np.random.Generator,
    spare: int,
) -> set[str]:
    """Draw as many training participants as there are held-out ones: more would be nearer."""
    participants = sorted({r.run.participant for r in training})
    size = min(len(participants), len({r.run.participant for r in held_out}) - spare)
    return (
        {str(participant) for participant in rng.choice(participants, size, replace=False)}
        if participants
        else set()
    )
