"""Carriers that are nobody's vary as real ones do, and are no nearer to those learned from."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from support.tiny_model import HIGH_PASS, SHAPE, affine_of, ball, make_run

from fmrisynth.preprocess.grid import Grid
from fmrisynth.training import carriers
from fmrisynth.training.carriers import _axes, _left_out, fit_carriers
from fmrisynth.training.prepare import sample_runs

INSIDE = ball()
GRID = Grid(SHAPE, affine_of(), INSIDE)
N_VOLUMES = 80
MEAN = 0.3 * np.linspace(-1, 1, SHAPE[0])[:, None, None] * np.ones(SHAPE)


def logs_of(count, seed=0):
    """Mean images and logarithms of noise levels: two traits that drive both, and smooth rest."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(99).standard_normal((2, 2, *SHAPE))
    shapes = np.array([[gaussian_filter(s, 3) for s in pair] for pair in shapes])
    shapes *= 0.1 / shapes.std(axis=(2, 3, 4), keepdims=True)
    out = []
    for _ in range(count):
        rest = np.stack([gaussian_filter(rng.standard_normal(SHAPE), 1.5) for _ in range(2)])
        rest *= 0.1 / rest.std()
        out.append(np.tensordot(rng.standard_normal(2), shapes, axes=1) + rest)
    return np.array(out) + MEAN


def runs_of(logs):
    return [
        SimpleNamespace(
            run=SimpleNamespace(participant=f"{i:02d}"),
            mean=(1 + one[0]) * INSIDE,
            noise_sd=np.exp(one[1]) * INSIDE,
            drift_sd=2.0 * INSIDE,
        )
        for i, one in enumerate(logs)
    ]


def prior_of(runs):
    return fit_carriers(SimpleNamespace(runs=runs, grid=GRID), 0)


def fit(logs):
    return prior_of(runs_of(logs))


@pytest.fixture(scope="module")
def learned():
    return logs_of(24)


@pytest.fixture(scope="module")
def prior(learned):
    return fit(learned)


@pytest.fixture(scope="module")
def like():
    """A run, whose grid and length drawn carriers get."""
    return make_run(n_volumes=N_VOLUMES)


def draw(prior, like, participant, run=0):
    return prior.draw(GRID, like, HIGH_PASS, participant, run)


def drawn_logs(prior, like, count):
    carriers = [draw(prior, like, p) for p in range(count)]
    return np.array([[c.mean[INSIDE] / 1000, np.log(c.noise_sd[INSIDE])] for c in carriers])


def centred(logs):
    """Images without their scale: a scanner's units mean nothing."""
    return logs - np.median(logs, axis=2, keepdims=True) * np.array([1, 0])[:, None]


def test_drawn_carriers_vary_as_real_ones(learned, prior, like):
    drawn = centred(drawn_logs(prior, like, 60))
    real = centred(logs_of(200, seed=5)[:, :, INSIDE])
    for kind in (0, 1):
        ratio = drawn[:, kind].var(0).mean() / real[:, kind].var(0).mean()
        assert ratio == pytest.approx(1, abs=0.3)
    assert np.corrcoef(drawn.mean(0).ravel(), real.mean(0).ravel())[0, 1] > 0.9


def test_nobody_is_nearer_to_whom_the_model_learned_from_than_new_participants_are(
    learned, prior, like
):
    training = centred(learned[:, :, INSIDE])[:, 0]

    def nearest(logs):
        images = centred(logs)[:, 0]
        return np.array([np.square(training - image).mean(1).min() for image in images])

    drawn = nearest(drawn_logs(prior, like, 60))
    new = nearest(logs_of(60, seed=7)[:, :, INSIDE])
    nearer = np.mean(drawn[:, None] < new[None])
    assert 0.3 < nearer < 0.7
    # the measure sees copies
    assert np.mean(nearest(learned[:, :, INSIDE])[:, None] < new[None]) == 1.0


def test_components_are_no_more_like_whom_they_were_learned_from_than_like_others(learned, prior):
    components = prior.components.numpy()[..., INSIDE].reshape(len(prior.components), -1)
    components = components[np.abs(components).any(axis=1)]
    assert len(components) == len(learned) // 3

    def likest(logs):
        deviations = (logs - learned.mean(0))[:, :, INSIDE].reshape(len(logs), -1)
        both = np.corrcoef(components[:2], deviations)
        return np.abs(both[:2, 2:]).max()

    assert likest(learned) < likest(logs_of(24, seed=11)) + 0.1


def test_the_same_participant_has_one_image_and_every_run_its_drift(prior, like):
    first, again, other = draw(prior, like, 1, 0), draw(prior, like, 1, 1), draw(prior, like, 2, 0)
    assert np.array_equal(first.mean, again.mean)
    assert np.array_equal(first.noise_sd, again.noise_sd)
    assert not np.array_equal(first.drift, again.drift)
    assert not np.array_equal(first.mean, other.mean)
    drifts = [draw(prior, like, 1, r).drift for r in range(20)]
    sd = np.sqrt(np.mean([np.square(d).sum(0) for d in drifts], axis=0) / N_VOLUMES)
    assert np.median(sd[INSIDE]) == pytest.approx(2.0, rel=0.25)


def test_the_mean_participant(prior, like):
    typical = prior.typical(GRID, like)
    assert np.array_equal(typical.mask, INSIDE)
    assert np.median(typical.mean[INSIDE]) == pytest.approx(1000, rel=1e-3)
    assert not len(typical.drift)


def test_noise_outside_of_a_participants_brain_is_not_taken_for_silence(like):
    """Brains end at different places: at their edges, drawn noise is as loud as real noise is."""
    logs = logs_of(12)
    logs[:, 1] = 0.1 * logs[:, 1]
    runs = runs_of(logs)
    for i, run in enumerate(runs):
        if i % 2:
            run.noise_sd[: SHAPE[0] // 2] = 0
    drawn = np.array([draw(prior_of(runs), like, p).noise_sd[INSIDE] for p in range(20)])
    real = np.concatenate([run.noise_sd[run.noise_sd > 0] for run in runs])
    assert 0.5 * real.min() < drawn.min()
    assert drawn.max() < 2 * real.max()


def test_few_participants_are_not_learned_from():
    assert not bool(fit(logs_of(5)).present)
    assert bool(fit(logs_of(6)).present)


@pytest.mark.parametrize("kind", ["all differ", "some are alike"])
def test_who_is_left_out_has_no_part_in_the_axes(kind):
    flat = np.random.default_rng(0).standard_normal((9, 40)) + 5
    flat = flat if kind == "all differ" else flat[[0, 1, 2, 3, 0, 1, 2, 3, 0]]
    weights, rest = _left_out(flat, 3)
    for out, own in enumerate(flat):
        others = np.delete(flat, out, axis=0)
        axes, deviation = _axes(others, 3), own - others.mean(0)
        np.testing.assert_allclose(np.abs(weights[out]), np.abs(deviation @ axes.T), atol=1e-9)
        np.testing.assert_allclose(rest[out], deviation - deviation @ axes.T @ axes, atol=1e-9)


def test_images_are_read_of_no_more_participants_than_memory_is_meant_for(monkeypatch):
    """Those that are read decide everything but the drift, which is the median over all runs."""
    runs = runs_of(logs_of(20))
    monkeypatch.setattr(carriers, "MOST_PARTICIPANTS", 12)
    chosen = [runs[i] for i in sample_runs(20, 0, 12)]
    for found, expected in zip(
        prior_of(runs).state_dict().values(), prior_of(chosen).state_dict().values(), strict=True
    ):
        assert found.equal(expected)
