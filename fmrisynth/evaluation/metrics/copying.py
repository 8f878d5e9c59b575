"""Judge whether synthetic runs are copies of training runs, and whether they repeat each other."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.measures.copying import (
    CopyAudit,
    audit_copying,
    audit_own_runs,
    membership_auc,
)
from fmrisynth.evaluation.measures.resampling import bootstrap_counts, finite_mean, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import (
    BOTH_GROUPS,
    at_most,
    like_chance,
    little_above_ceiling,
)
from fmrisynth.evaluation.metrics.uses import INDIVIDUALS, PRIVACY

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_BOOTSTRAP = 200

METRICS = (
    Metric(
        "copied_share",
        section="copying",
        bounds=PROPORTION,
        label="Runs copied from training runs",
        what="share of synthetic runs that are copies of training runs, also shifted in time",
        ceiling="0, which is what participants who were never trained on have",
        floor="1, all are copies",
        rule=Rule("none", at_most(0.0), BOTH_GROUPS),
        use=PRIVACY,
    ),
    Metric(
        "nearest_training",
        section="copying",
        bounds=CORRELATION,
        label="Likeness to the nearest training run",
        what="correlation with the nearest training run",
        ceiling="the same with held-out runs, the control",
        floor="1, a copy",
    ),
    Metric(
        "membership_auc",
        section="copying",
        bounds=PROPORTION,
        label="Training runs told from held-out ones (AUC)",
        what="how well training runs are told from held-out ones by their nearest synthetic run",
        ceiling="0.5, not at all",
        floor="1, always",
        rule=Rule("at most 0.6", like_chance(0.6), BOTH_GROUPS),
        use=PRIVACY,
    ),
    Metric(
        "copied_share_training",
        section="copying",
        bounds=PROPORTION,
        label="Runs for training participants copied from training runs",
        what="share of the synthetic runs for training participants that are copies of training "
        "runs, the imitated one included, also shifted in time",
        ceiling="0, no copy",
        floor="1, all are copies",
        rule=Rule("none", at_most(0.0), "synthetic runs for training participants", optional=True),
        use=PRIVACY,
    ),
    Metric(
        "nearest_own",
        section="copying",
        bounds=CORRELATION,
        label="Likeness to the nearest own run, training participants",
        what="correlation of synthetic runs for training participants with the participant's "
        "nearest real run",
        ceiling="the same of the participants' real runs, with their other ones",
        floor="1, a copy",
    ),
    Metric(
        "sample_similarity",
        section="diversity",
        bounds=CORRELATION,
        label="Runs of different participants alike, beyond what is evoked",
        what="correlation between synthetic runs of different participants, beyond what is evoked",
        ceiling="the same between real runs",
        floor="1, all participants have the same run",
        rule=Rule("at most 0.1 above real runs", little_above_ceiling(0.1), BOTH_GROUPS),
        use=INDIVIDUALS,
    ),
)
"""What this family computes."""


def compare(comparison: Comparison) -> Estimates:
    """Estimate how far a generator's runs are copies.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``copied_share`` (synthetic runs that are copies of training runs, in
        place or shifted), ``nearest_training`` (its ceiling is the same for
        held-out runs, the control), ``membership_auc`` and
        ``sample_similarity`` (mean correlation between synthetic runs of
        different participants; its ceiling is that between real ones, its
        floor 1). Empty without training participants. ``copied_share_training``
        and ``nearest_own`` where there are runs for training participants.
    """
    audit = comparison.measurements.audits.get(comparison.source)
    return (_compare(comparison, audit) if audit is not None else {}) | _own(comparison)


def compare_real(comparison: Comparison) -> Estimates:
    """Estimate the same with held-out participants in the generator's place for each other.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`; empty without training participants, or with a single held-out one.
    """
    cohort = comparison.cohort
    if cohort.training is None or len(cohort.participants[comparison.source]) < 2:
        return {}
    audit = audit_copying(
        comparison.runs,
        comparison.runs,
        comparison.training_runs,
        cohort.keys,
        comparison.measurements.real_pairs,
        comparison.random("training participants"),
        own_participants=True,
    )
    return _compare(comparison, audit)


def _compare(comparison: Comparison, audit: CopyAudit) -> Estimates:
    if not len(audit.to_training):
        return {}
    auc = membership_auc(audit.members, audit.non_members)
    rng = comparison.random("bootstrap of runs to tell")
    samples = np.array([_resampled_auc(audit, rng) for _ in range(_N_BOOTSTRAP)])
    names, index = np.unique(np.array(audit.participants), return_inverse=True)
    counts = bootstrap_counts(len(names), comparison.random("bootstrap"), _N_BOOTSTRAP)

    def mean(
        values: np.ndarray, runs: np.ndarray, low: float, ceiling: float, floor: float
    ) -> Estimate:
        """Average over runs, or pairs of runs, resampled by participant."""
        usable = np.isfinite(values)
        values, runs = values[usable], runs[usable]
        value = finite_mean(values)
        drawn = [n[index[runs]].prod(axis=1) for n in counts] if len(values) else []
        means = np.array([w @ values / w.sum() for w in drawn if w.sum() > 0])
        return Estimate(value, *interval(value, means, len(names), (low, 1.0)), ceiling, floor)

    single = np.arange(len(audit.copied))[:, None]
    n_smaller = min(
        len(set(labels)) for labels in (audit.member_participants, audit.non_member_participants)
    )
    control, real_pairs = finite_mean(audit.to_held_out), finite_mean(audit.real_pairs)
    return {
        "copied_share": mean(audit.copied.astype(float), single, 0.0, 0.0, 1.0),
        "nearest_training": mean(audit.to_training, single, -1.0, control, 1.0),
        "membership_auc": Estimate(auc, *interval(auc, samples, n_smaller, (0.0, 1.0)), 0.5, 1.0),
        "sample_similarity": mean(audit.synthetic_pairs, audit.pair_runs, -1.0, real_pairs, 1.0),
    }


def _own(comparison: Comparison) -> Estimates:
    """Estimate how far runs for training participants are copies of what was learned from."""
    synthetic = comparison.cohort.for_training.get(comparison.source, ())
    if not synthetic or not comparison.training_runs:
        return {}
    audit = audit_own_runs(synthetic, comparison.training_runs, comparison.cohort.keys)
    names, index = np.unique(np.array(audit.participants), return_inverse=True)
    rng = comparison.random("bootstrap of training participants")
    counts = bootstrap_counts(len(names), rng, _N_BOOTSTRAP)
    references = {
        "copied_share_training": (audit.copied.astype(float), (0.0, 1.0), 0.0),
        "nearest_own": (audit.nearest, (-1.0, 1.0), finite_mean(audit.real_nearest)),
    }
    estimates = {}
    for name, (values, bounds, ceiling) in references.items():
        usable = np.isfinite(values)
        weights = counts[:, index] * usable
        samples = weights @ np.nan_to_num(values) / np.maximum(weights.sum(axis=1), 1)
        value = finite_mean(values)
        limits = interval(value, samples, len(names), bounds)
        estimates[name] = Estimate(value, *limits, ceiling, 1.0)
    return estimates


def _resampled_auc(audit: CopyAudit, rng: np.random.Generator) -> float:
    drawn = []
    for scores, participants in (
        (audit.members, np.array(audit.member_participants)),
        (audit.non_members, np.array(audit.non_member_participants)),
    ):
        names = np.unique(participants)
        sample = rng.choice(names, len(names))
        drawn.append(np.concatenate([scores[participants == name] for name in sample]))
    return membership_auc(*drawn)


FAMILY = Family(
    "copying",
    "Are synthetic runs new, or copies of training runs or of each other?",
    METRICS,
    compare,
    compare_real,
)
