"""Drawn heads move as those of the training participants do, and as none of them did."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from fmrisynth.bids.confounds import MOTION
from fmrisynth.model.motion import MotionPrior
from fmrisynth.synthesis.confounds import framewise_displacement
from fmrisynth.training.motion import fit_motion

N = 300


def true_prior() -> MotionPrior:
    """Restless participants, who differ."""
    prior = MotionPrior()
    prior.log_step += np.log(3)
    prior.burst.fill_(0.6)
    prior.memory.fill_(0.2)
    prior.spread.fill_(0.5)
    return prior


def runs_of(motions, folder):
    runs = []
    for i, motion in enumerate(motions):
        path = folder / f"{i}.tsv"
        pd.DataFrame(motion, columns=list(MOTION)).to_csv(path, sep="\t", index=False)
        runs.append(SimpleNamespace(confounds=path, n_volumes=len(motion), participant=f"{i:02d}"))
    return runs


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    motions = [true_prior().draw(N, i, i) for i in range(20)]
    return motions, fit_motion(runs_of(motions, tmp_path_factory.mktemp("motion")))


def displacements(motions):
    return np.array([framewise_displacement(m)[1:] for m in motions])


def test_drawn_motion_has_size_bursts_and_differences_of_the_learned(learned):
    motions, prior = learned
    real = displacements(motions)
    drawn = displacements([prior.draw(N, 100 + i, i) for i in range(60)])
    assert np.median(drawn) == pytest.approx(np.median(real), rel=0.35)
    for spread in (lambda d: np.log(d).std(axis=1).mean(), lambda d: np.log(d).mean(axis=1).std()):
        assert spread(drawn) == pytest.approx(spread(real), rel=0.35)
    assert float(prior.memory) == pytest.approx(0.2, abs=0.1)


def test_heads_stay_where_they_are(learned):
    motions, prior = learned
    drawn = [prior.draw(N, i, 1000 + i) for i in range(40)]
    ranges = [np.median([np.ptp(m, axis=0) for m in each], axis=0) for each in (drawn, motions)]
    np.testing.assert_allclose(ranges[0], ranges[1], rtol=0.5)


def test_a_seed_makes_a_course_and_a_participants_runs_are_alike_in_size(learned):
    prior = learned[1]
    assert np.array_equal(prior.draw(N, 1, 1), prior.draw(N, 1, 1))
    assert not np.allclose(prior.draw(N, 1, 1), prior.draw(N, 1, 2))
    sizes = np.log(displacements([prior.draw(N, p, r) for p in range(12) for r in range(3)]))
    sizes = sizes.mean(axis=1).reshape(12, 3)
    assert sizes.mean(axis=1).std() > 2 * sizes.std(axis=1).mean()


def test_two_participants_are_too_few_and_tables_without_motion_say_nothing(tmp_path):
    motions = [true_prior().draw(N, i, i) for i in range(2)]
    none = SimpleNamespace(confounds=None, n_volumes=N, participant="9")
    still = runs_of([np.zeros((N, 6))], tmp_path)
    fitted = fit_motion([*runs_of(motions, tmp_path), none])
    for prior in (fitted, fit_motion(still), fit_motion([none])):
        for name, value in MotionPrior().state_dict().items():
            assert torch.equal(getattr(prior, name), value)


def test_without_any_motion_heads_are_quiet():
    for seed in range(5):
        motion = MotionPrior().draw(N, seed, seed)
        displacement = framewise_displacement(motion)[1:]
        assert 0.02 < displacement.mean() < 0.3
        assert displacement.max() < 1.0
        assert (np.ptp(motion, axis=0) > 0).all()
