"""Hold a number together with what it is read against."""

from __future__ import annotations

from dataclasses import dataclass

from fmrisynth.evaluation.measures.resampling import NAN

__all__ = ["Estimate", "Estimates"]


@dataclass(frozen=True)
class Estimate:
    """A metric's value with what it is read against; NaN where there is none.

    Attributes
    ----------
    value : float
        The value on all participants.
    low, high : float
        95 % bootstrap interval over participants; over samples, too, where a generator
        wrote several of each run (`fmrisynth.evaluation.metrics.pooling`).
    ceiling : float
        What real data have: the same metric between real training and real
        held-out participants, or on the real held-out ones themselves.
    floor : float
        What a useless generator has: the same metric with shuffled conditions,
        participants, parcels …; `fmrisynth.evaluation.metrics.metric.Metric` says which.
    by_construction : str
        Why the value says nothing of the generator, which was given it; empty
        where it was not. The verdict leaves such an estimate out.
    """

    value: float
    low: float = NAN
    high: float = NAN
    ceiling: float = NAN
    floor: float = NAN
    by_construction: str = ""


Estimates = dict[str, Estimate]
"""Name of the row of ``metrics.tsv`` → Estimate."""
