"""The noise level: ratios to a typical run that are smooth, and one where nothing is known."""

import numpy as np
import pytest
import torch
from support.tiny_model import SHAPE, ball

from fmrisynth.model.noise_level import NoiseLevel

SIZE, FACTOR = 4.0, 2
BRAIN = ball()


def typical_sd(seed=0):
    """Standard deviation of a typical run, with vessels, %."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 2, SHAPE) * (1 + 4 * (rng.random(SHAPE) > 0.95)) * BRAIN).astype("f4")


def level_of(typical, **options):
    level = NoiseLevel(BRAIN, SIZE, FACTOR, **options)
    return level.fit([typical], ["01"])


def test_the_typical_run_has_the_level_one():
    typical = typical_sd()
    level = level_of(typical)
    np.testing.assert_allclose(level.of_voxels(typical), 1, atol=1e-5)
    np.testing.assert_allclose(level.of_latents(typical), 1, atol=1e-5)


@pytest.mark.parametrize("factor", [2.0, 0.25])
def test_a_run_twice_as_loud_has_the_level_two_everywhere(factor):
    """Up to the brain's edge, and in vessels as elsewhere."""
    typical = typical_sd()
    level = level_of(typical)
    np.testing.assert_allclose(level.of_voxels(factor * typical)[BRAIN], factor, rtol=1e-4)
    latent = level.of_latents(factor * typical).numpy()
    blocks = BRAIN.reshape(8, 2, 8, 2, 8, 2).any((1, 3, 5))
    np.testing.assert_allclose(latent[blocks], factor, rtol=1e-4)
    assert (latent[~blocks] == 1).all()


def test_the_typical_level_is_the_median_over_runs():
    sds = [typical_sd() * factor for factor in (0.5, 1.0, 7.0)]
    level = NoiseLevel(BRAIN, SIZE, FACTOR).fit(sds, ["01", "02", "03"])
    np.testing.assert_allclose(level.typical_sd, sds[1])
    assert level.run_spread == 0  # one run of each participant says nothing of its others


def test_a_smooth_map_of_levels_is_recovered():
    """A slope from left to right comes back, noise in single voxels does not."""
    typical, rng = typical_sd(), np.random.default_rng(1)
    slope = 0.25 * np.linspace(-1, 1, SHAPE[0])[:, None, None]
    noisy = np.exp(slope + 0.3 * rng.standard_normal(SHAPE)) * typical
    found = np.log(level_of(typical).of_voxels(noisy))
    inner = np.zeros(SHAPE, bool)
    inner[4:12, 4:12, 4:12] = True
    assert np.abs(found - slope)[inner].max() < 0.1
    assert np.corrcoef(found[inner], np.broadcast_to(slope, SHAPE)[inner])[0, 1] > 0.95


def test_what_lies_outside_of_the_brain_has_no_say():
    typical = typical_sd()
    level, loud = level_of(typical), 1.5 * typical
    expected = level.of_voxels(loud)
    for outside in (0.0, 50.0):
        np.testing.assert_array_equal(level.of_voxels(np.where(BRAIN, loud, outside)), expected)
    assert (expected[~BRAIN] == 1).all()


def test_voxels_that_a_run_does_not_cover_take_their_neighbours_level():
    typical = typical_sd()
    cut = 3 * typical
    cut[:, :, 8:] = 0  # half of the brain was not measured
    found = level_of(typical).of_voxels(cut)
    np.testing.assert_allclose(found[BRAIN], 3, rtol=1e-3)


def test_a_run_without_a_voxel_in_common_has_the_level_one():
    level = level_of(typical_sd())
    assert (level.of_voxels(np.zeros(SHAPE, "f4")) == 1).all()


def test_levels_beyond_reason_are_limited():
    typical = typical_sd()
    level = level_of(typical)
    assert level.of_voxels(1e6 * typical).max() == pytest.approx(8)
    assert level.of_voxels(1e-6 * typical).min() == pytest.approx(1 / 8)


def test_where_it_is_disabled_every_run_has_the_level_one():
    typical = typical_sd()
    level = level_of(typical, enabled=False)
    assert (level.of_voxels(5 * typical) == 1).all()
    assert (level.of_latents(5 * typical) == 1).all()


def test_the_level_of_a_latent_voxel_is_the_geometric_mean_of_its_voxels():
    typical, rng = typical_sd(), np.random.default_rng(2)
    level = level_of(typical)
    sd = np.exp(rng.standard_normal((4, 4, 4)).repeat(4, 0).repeat(4, 1).repeat(4, 2)) * typical
    voxels = level.of_voxels(sd)
    latents = level.of_latents(sd)
    assert latents.dtype == torch.float32
    for place in ((3, 4, 4), (1, 4, 4), (2, 2, 2)):
        here = tuple(slice(FACTOR * i, FACTOR * (i + 1)) for i in place)
        inside = np.log(voxels[here][BRAIN[here]])
        assert float(latents[place]) == pytest.approx(np.exp(inside.mean()), rel=1e-5)
        assert inside.std() > 0


def test_runs_differ_as_those_of_one_participant_do():
    """Participants may differ by more: their own runs say how loud they are."""
    level = level_of(typical_sd())
    rng = np.random.default_rng(0)
    base = level.typical_sd.numpy()
    factors = np.exp(0.25 * rng.standard_normal((40, 6)) + rng.standard_normal((40, 1)))
    sds = [base * factor for factor in factors.ravel()]
    level.fit(sds, [str(p) for p in range(40) for _ in range(6)])
    assert float(level.run_spread) == pytest.approx(0.25, rel=0.1)
    generator = torch.Generator().manual_seed(0)
    drawn = np.log([level.draw_run(generator) for _ in range(500)])
    assert drawn.std() == pytest.approx(0.25, rel=0.15)
    assert level.fit(sds[:1], ["0"]).draw_run(generator) == 1


@pytest.mark.parametrize("n_seen", [1, 2, 5])
def test_runs_differ_by_their_spread_from_their_participant_however_many_others_are_seen(n_seen):
    """What the mean of other runs is off by is not drawn a second time."""
    rng, level = np.random.default_rng(6), NoiseLevel(BRAIN, SIZE, FACTOR)
    level.run_spread.fill_(0.25)
    generator = torch.Generator().manual_seed(0)
    others = np.mean(0.25 * rng.standard_normal((2000, n_seen)), axis=1)
    drawn = np.log([level.draw_run(generator, n_seen) for _ in others])
    assert (others + drawn).std() == pytest.approx(0.25, rel=0.05)
    assert (drawn.std() == 0) == (n_seen == 1)
