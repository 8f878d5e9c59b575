"""Copying: synthetic runs that are nearer to training runs than to runs never seen.

Carriers (a participant's own mean image and drift) belong to the input in
augmentation mode, so runs are compared by what the model invents: their
coarse, drift-free series without the modelled response to the events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fmrisynth.evaluation.blocks import residual_series
from fmrisynth.evaluation.records import RunRecord
from fmrisynth.evaluation.resampling import NAN, Figure, interval

__all__ = ["CopyAudit", "audit_copying", "copy_figures", "membership_auc"]


@dataclass(frozen=True)
class CopyAudit:
    """Similarities of the runs of a generator to real ones, same task and length.

    Attributes
    ----------
    to_training, to_held_out : ndarray, shape (n_synthetic,)
        Correlation of each synthetic run with its nearest real run, among as
        many training as held-out participants.
    to_any_training : ndarray, shape (n_synthetic,)
        The same among all training participants: a copy of any of them is a copy.
    members, non_members : ndarray, shape (n_runs,)
        For each real training and held-out run, its correlation with the nearest synthetic run.
    member_people, non_member_people : tuple of str
        Participants of those runs.
    real_pairs : ndarray, shape (n_pairs,)
        Correlations between real runs of different participants.
    synthetic_pairs : ndarray, shape (n_pairs,)
        Correlations between synthetic runs (of any participants).
    """

    to_training: np.ndarray
    to_held_out: np.ndarray
    to_any_training: np.ndarray
    members: np.ndarray
    non_members: np.ndarray
    member_people: tuple[str, ...]
    non_member_people: tuple[str, ...]
    real_pairs: np.ndarray
    synthetic_pairs: np.ndarray

    @property
    def limit(self) -> float:
        """Similarity above which a run is called a copy.

        A quarter of the way from the most similar pair of real runs of
        different participants to identity.
        """
        if not len(self.real_pairs):
            return NAN
        most = float(self.real_pairs.max())
        return most + 0.25 * (1.0 - most)


def audit_copying(
    synthetic: Sequence[RunRecord],
    held_out: Sequence[RunRecord],
    training: Sequence[RunRecord],
    keys: np.ndarray,
    rng: np.random.Generator,
) -> CopyAudit:
    """Compare every synthetic run with every real run of its task and length.

    Parameters
    ----------
    synthetic, held_out, training : sequence of RunRecord
        Runs of a generator, of real held-out and of real training participants.
    keys : ndarray of int, shape (B, 3)
        Blocks that all runs have.
    rng : numpy.random.Generator
        Draws the training participants of the nearest-run comparison.

    Returns
    -------
    CopyAudit
    """
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    people: dict[str, list[str]] = defaultdict(list)
    groups = sorted({(r.run.task, r.run.n_volumes) for r in synthetic})
    matched = _matched_people(held_out, training, rng)
    for group in groups:
        made, seen, unseen = (
            [r for r in records if (r.run.task, r.run.n_volumes) == group]
            for records in (synthetic, training, held_out)
        )
        if not seen or not unseen:
            continue
        vectors = [_vectors(records, keys) for records in (made, seen, unseen)]
        to_seen, to_unseen = vectors[0] @ vectors[1].T, vectors[0] @ vectors[2].T
        chosen = np.array([r.run.participant in matched for r in seen])
        parts["to_training"].append(
            to_seen[:, chosen].max(axis=1) if chosen.any() else np.full(len(made), NAN)
        )
        parts["to_held_out"].append(to_unseen.max(axis=1))
        parts["to_any_training"].append(to_seen.max(axis=1))
        parts["members"].append(to_seen.max(axis=0))
        parts["non_members"].append(to_unseen.max(axis=0))
        people["members"] += [r.run.participant for r in seen]
        people["non_members"] += [r.run.participant for r in unseen]
        parts["real_pairs"].append(_pairs([*seen, *unseen], np.concatenate(vectors[1:])))
        parts["synthetic_pairs"].append((vectors[0] @ vectors[0].T)[np.triu_indices(len(made), 1)])

    def joined(name: str) -> np.ndarray:
        return np.concatenate(parts[name]) if parts[name] else np.zeros(0)

    return CopyAudit(
        joined("to_training"),
        joined("to_held_out"),
        joined("to_any_training"),
        joined("members"),
        joined("non_members"),
        tuple(people["members"]),
        tuple(people["non_members"]),
        joined("real_pairs"),
        joined("synthetic_pairs"),
    )


def membership_auc(members: np.ndarray, non_members: np.ndarray) -> float:
    """Area under the curve of guessing membership from the nearest synthetic run.

    Parameters
    ----------
    to_any_training : ndarray, shape (n_synthetic,)
        The same among all training participants: a copy of any of them is a copy.
    members, non_members : ndarray, shape (n_runs,)
        Scores of training and of held-out runs.

    Returns
    -------
    float
        0.5 when the scores tell nothing, 1 when every member scores higher.
    """
    n, m = len(members), len(non_members)
    if not n or not m:
        return NAN
    ranks = rankdata(np.concatenate([members, non_members]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def copy_figures(audit: CopyAudit, rng: np.random.Generator) -> dict[str, Figure]:
    """Figures of a copying audit.

    Parameters
    ----------
    audit : CopyAudit
        From `audit_copying`.
    rng : numpy.random.Generator
        Source of randomness of the interval over participants.

    Returns
    -------
    dict
        ``copied_share`` (synthetic runs that are copies of training runs),
        ``nearest_training`` (its ceiling is the same for held-out runs, the
        control), ``membership_auc`` and ``sample_similarity`` (mean
        correlation between synthetic runs; its ceiling is that between real
        runs of different participants).
    """
    if not len(audit.to_training):
        return {}
    auc = membership_auc(audit.members, audit.non_members)
    samples = np.array([_resampled_auc(audit, rng) for _ in range(200)])
    return {
        "copied_share": Figure(float(np.mean(audit.to_any_training > audit.limit))),
        "nearest_training": Figure(
            float(np.mean(audit.to_training)), ceiling=float(np.mean(audit.to_held_out))
        ),
        "membership_auc": Figure(auc, *interval(auc, samples, (0.0, 1.0)), floor=0.5),
        "sample_similarity": Figure(
            float(np.mean(audit.synthetic_pairs)) if len(audit.synthetic_pairs) else NAN,
            ceiling=float(np.mean(audit.real_pairs)),
        ),
    }


def _vectors(records: Sequence[RunRecord], keys: np.ndarray) -> np.ndarray:
    """Residual series of runs as unit vectors: (n_runs, B·T)."""
    rows = []
    for record in records:
        series = residual_series(record, keys)
        series = series - series.mean(axis=1, keepdims=True)
        # Every block weighs the same, else a few large vessels decide.
        norm = np.linalg.norm(series, axis=1, keepdims=True)
        rows.append((series / np.where(norm > 0, norm, 1.0)).ravel() / np.sqrt(len(series)))
    return np.array(rows, dtype=np.float32)


def _pairs(records: Sequence[RunRecord], vectors: np.ndarray) -> np.ndarray:
    people = np.array([r.run.participant for r in records])
    first, second = np.triu_indices(len(records), 1)
    different = people[first] != people[second]
    return (vectors @ vectors.T)[first[different], second[different]]


def _matched_people(
    held_out: Sequence[RunRecord], training: Sequence[RunRecord], rng: np.random.Generator
) -> set[str]:
    """Draw as many training participants as there are held-out ones: more would be nearer."""
    people = sorted({r.run.participant for r in training})
    size = min(len(people), len({r.run.participant for r in held_out}))
    return {str(person) for person in rng.choice(people, size, replace=False)} if people else set()


def _resampled_auc(audit: CopyAudit, rng: np.random.Generator) -> float:
    drawn = []
    for scores, people in (
        (audit.members, np.array(audit.member_people)),
        (audit.non_members, np.array(audit.non_member_people)),
    ):
        names = np.unique(people)
        sample = rng.choice(names, len(names))
        drawn.append(np.concatenate([scores[people == name] for name in sample]))
    return membership_auc(*drawn)
