"""Measures of single runs and their ratios."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fmrisynth.evaluation.metrics.run_measures import compare_runs
from fmrisynth.evaluation.metrics.timeseries import MEASURES


def test_a_measure_that_is_zero_for_real_runs_has_no_ratio():
    """Runs without any smoothness, of which the width of a Gaussian cannot be told."""
    record = SimpleNamespace(
        temporal_sd=2.0, tsnr=50.0, autocorrelation=np.full(5, 0.2), fwhm=np.zeros(3),
        spectrum=np.full(24, 1 / 24), run=None,
    )  # fmt: skip
    runs = [
        SimpleNamespace(**vars(record) | {"run": SimpleNamespace(participant=p, task="a", label=p)})
        for p in ("01", "02")
    ]
    estimates = compare_runs(MEASURES, runs, runs, runs, np.random.default_rng(0))
    assert estimates["fwhm"].value == 0
    assert np.isnan(estimates["fwhm_ratio"].value)
    assert estimates["temporal_sd_ratio"].value == estimates["lag1_ratio"].ceiling == 1
