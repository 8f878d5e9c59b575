"""What each figure, its ceiling and its floor mean; and why some have none.

The ceiling is what real data reach, and the floor what a useless generator
has. Which real data and what kind of uselessness differs from figure to
figure. Where a figure has no ceiling or no floor, the text begins with "none"
and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MEANINGS", "Meaning", "describe", "meaning_of"]


@dataclass(frozen=True)
class Meaning:
    """How to read a figure.

    Attributes
    ----------
    figure : str
        What it is, with its unit where it has one.
    ceiling, floor : str
        What they are, or "none" and why.
    """

    figure: str
    ceiling: str
    floor: str


_OTHERS = "the same between as many real training and real held-out people"
_TRAINING = "the same of real training runs"
_REAL = "the same of the real held-out runs"
_SHUFFLED = "conditions shuffled"
_NO_WORST = "none: too much and too little are both wrong, and neither has an end"
_SIZE = f"{_NO_WORST}; a ratio of 1 is right"

MEANINGS: Mapping[str, Meaning] = {
    "corr": Meaning("correlation of group maps, mean over conditions", _OTHERS, _SHUFFLED),
    "rsa": Meaning("Spearman correlation of dissimilarities", _OTHERS, _SHUFFLED),
    "rsa_pearson": Meaning("Pearson correlation of dissimilarities", _OTHERS, _SHUFFLED),
    "rsa_pairs": Meaning(
        "pairs of conditions that RSA rests on", "none: a number, not a score", "none: a number"
    ),
    "top1": Meaning("share of conditions recognised", _OTHERS, _SHUFFLED),
    "slope": Meaning("slope of synthetic on real group maps", _OTHERS, _SHUFFLED),
    "dice": Meaning(
        "Dice overlap of the strongest 5 % of the voxels", _OTHERS, "every other condition's map"
    ),
    "dice_z": Meaning(
        "Dice overlap of second-level z-maps, p < .01 uncorrected", _OTHERS,
        "every other condition's map",
    ),
    "temporal_sd": Meaning("temporal standard deviation, %", _TRAINING, _SIZE),
    "tsnr": Meaning("temporal signal-to-noise ratio", _TRAINING, _SIZE),
    **{
        f"lag{lag}": Meaning(f"autocorrelation at lag {lag}", _TRAINING, "0, white noise")
        for lag in range(1, 6)
    },
    "fwhm": Meaning("spatial smoothness, mm", _TRAINING, "0, white noise"),
    **{
        f"power_q{q}": Meaning(
            f"share of the power in quarter {q} of the band", _TRAINING, "0.25, white noise"
        )
        for q in range(1, 5)
    },
    "temporal_sd_ratio": Meaning("synthetic / real", f"{_TRAINING}, over held-out", _SIZE),
    "tsnr_ratio": Meaning("synthetic / real", f"{_TRAINING}, over held-out", _SIZE),
    "lag1_ratio": Meaning("synthetic / real", f"{_TRAINING}, over held-out", "0, white noise"),
    "fwhm_ratio": Meaning("synthetic / real", f"{_TRAINING}, over held-out", "0, white noise"),
    "course_correlation": Meaning(
        "correlation of the mean course around a condition's epochs with the real one",
        _OTHERS, "every other condition's course",
    ),
    "course_canonical": Meaning(
        "correlation of the mean course with the canonical response to the events", _REAL,
        "every other condition's course",
    ),
    "peak_latency_error": Meaning(
        "|synthetic − real| time of the peak, s", "training people's", "every other condition's"
    ),
    "undershoot_error": Meaning(
        "|synthetic − real| depth after the response over its peak", "training people's",
        "every other condition's",
    ),
    "peak_latency": Meaning(
        "time of the peak, s", "the real held-out one", "none: a time, which has no worst"
    ),
    "undershoot": Meaning(
        "depth after the response over its peak", "the real held-out one",
        "none: any depth may be a response's",
    ),
    "individual_identification": Meaning(
        "share of participants recognised from their synthetic maps",
        "one half of the real runs from the other", "participants taken for each other",
    ),
    "individual_correlation": Meaning(
        "correlation with the own real maps, without the group map",
        "one half of the real runs with the other", "participants taken for each other",
    ),
    "diversity_participants_ratio": Meaning(
        "variance of maps between participants beyond noise, synthetic / real",
        "training people / held-out people", "0, everybody the same",
    ),
    "map_variance_ratio": Meaning(
        "variance of maps between participants with their noise, synthetic / real",
        "training people / held-out people", "the noise alone, everybody the same",
    ),
    "diversity_runs_ratio": Meaning(
        "variance of effects between runs of one person and task, synthetic / real",
        "training people / held-out people", "0, the same run again",
    ),
    "diversity_samples_ratio": Meaning(
        "variance of effects between samples of one run / between real runs of one person",
        "training people / held-out people", "0, the same sample again",
    ),
    "sample_correlation": Meaning(
        "correlation between samples of one run, beyond what is evoked",
        "real runs of one person and task", "1, the same sample again",
    ),
    "fc_correlation": Meaning(
        "correlation of the mean connectivity with the real one", _OTHERS, "parcels shuffled"
    ),
    "fc_sd": Meaning(
        "spread of connectivity within a run", _REAL,
        "parcels shifted in time against each other",
    ),
    "fc_sd_ratio": Meaning(
        "the same, synthetic / real", f"{_TRAINING}, over held-out",
        "parcels shifted in time against each other",
    ),
    "fc_same": Meaning(
        "similarity of connectivity between runs of one person", _REAL, "participants shuffled"
    ),
    "fc_different": Meaning(
        "similarity of connectivity between different people", _REAL, "participants shuffled"
    ),
    "fc_fingerprint": Meaning("fc_same − fc_different", _REAL, "participants shuffled"),
    "pca_dimension_ratio": Meaning(
        "number of spatial components (participation ratio), synthetic / real",
        f"{_TRAINING}, over held-out", _NO_WORST,
    ),
    **{
        f"variance_{name}": Meaning(
            f"share of the variance of volumes that {text} explains", _REAL,
            "labels shuffled among runs that are alike in the other two factors",
        )
        for name, text in (
            ("participant", "the participant"),
            ("phase_encoding", "the phase-encoding direction"),
            ("task", "the task"),
        )
    },
    "copied_share": Meaning(
        "share of synthetic runs that are copies of training runs, also shifted in time",
        "0, which is what people who were never trained on have", "1, all are copies",
    ),
    "nearest_training": Meaning(
        "correlation with the nearest training run", "the same with held-out runs, the control",
        "1, a copy",
    ),
    "membership_auc": Meaning(
        "how well training runs are told from held-out ones by their nearest synthetic run",
        "0.5, not at all", "1, always",
    ),
    "sample_similarity": Meaning(
        "correlation between synthetic runs of different people, beyond what is evoked",
        "the same between real runs", "1, everybody has the same run",
    ),
    "decoding_synthetic": Meaning(
        "accuracy on real held-out runs, trained on synthetic ones of other people",
        "trained on as many real people", "chance",
    ),
    "decoding_real": Meaning(
        "accuracy, trained on n real people",
        "none: it is real data, and the base of the two below", "chance",
    ),
    "decoding_both": Meaning(
        "accuracy, trained on n real people and the synthetic ones",
        "trained on as many more real people (none where there are not enough of them)", "chance",
    ),
    "decoding_gain": Meaning(
        "decoding_both − decoding_real",
        "the gain from as many more real people (none where there are not enough of them)",
        "synthetic maps with shuffled labels",
    ),
}  # fmt: skip
"""Metric without brackets and ending of level → how to read it."""


def meaning_of(metric: str) -> Meaning:
    """Find how to read a figure.

    Parameters
    ----------
    metric : str
        Its name in the table, such as ``corr_contrast[left > right]``.

    Returns
    -------
    Meaning

    Raises
    ------
    KeyError
        When no figure has this name.
    """
    base = metric.partition("[")[0]
    for ending in ("_trial_type", "_contrast"):
        base = base.removesuffix(ending)
    return MEANINGS[base]


def describe() -> dict[str, object]:
    """Describe the columns and metrics of ``metrics.tsv``, as a BIDS sidecar does.

    Returns
    -------
    dict
        JSON-able.
    """
    levels = {
        metric: f"{meaning.figure} — ceiling: {meaning.ceiling}; floor: {meaning.floor}"
        for metric, meaning in MEANINGS.items()
    }
    return {
        "metric": {
            "Description": (
                "Name of the figure. Names in brackets are those of a condition, or a number of "
                "participants; the ending _trial_type or _contrast says what the conditions are."
            ),
            "Levels": levels,
        },
        "generator": {"Description": "What wrote the runs; 'real' is real data in its place."},
        "value": {"Description": "The figure on real held-out participants."},
        "ci_low": {"Description": "Lower end of the 95 % bootstrap interval over participants."},
        "ci_high": {"Description": "Upper end of the 95 % bootstrap interval over participants."},
        "ceiling": {"Description": "What real data reach; see the levels of metric."},
        "floor": {"Description": "What a useless generator has; see the levels of metric."},
    }
