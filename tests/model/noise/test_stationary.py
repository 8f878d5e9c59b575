"""The diffusion's noise: variance, autocorrelation, stationarity, repeatability."""

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from support.tiny_model import ball, smooth_fields

from fmrisynth.model.noise.autocovariance import autoregression, extended_autocovariance
from fmrisynth.model.noise.stationary import StationaryNoise
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.preprocess.carrier import remove_drift, removed_basis

MASK = torch.from_numpy(ball((10, 12, 10)))
LAG1 = 0.6
NOTHING = np.zeros((60, 0))  # the fields made here have no drift taken out of them


@pytest.fixture(scope="module")
def fields():
    return smooth_fields(MASK, count=6, length=60, lag1=LAG1)


@pytest.fixture(scope="module")
def coloured(fields):
    return StationaryNoise(1, MASK).fit(fields, NOTHING)


@pytest.fixture(params=["white", "coloured"])
def noise(request):
    return WhiteNoise(1, MASK) if request.param == "white" else request.getfixturevalue("coloured")


def draws(noise, count, n_frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([noise.sample_run(n_frames, 2.0, generator) for _ in range(count)])[:, :, 0]


def lag_correlation(series, lag=1):
    """Correlation over (draw, frame, X, Y, Z) between frames `lag` apart, inside the brain."""
    inside = series[:, :, MASK]
    return float((inside[:, lag:] * inside[:, :-lag]).mean() / inside.square().mean())


def neighbour_correlation(series, axis):
    """Correlation between neighbouring voxels that both lie in the brain."""
    inside = MASK & MASK.roll(-1, axis)
    inside.select(axis, MASK.shape[axis] - 1).fill_(False)
    product = (series * series.roll(-1, axis + 2))[:, :, inside]
    return float(product.mean() / series[:, :, MASK].square().mean())


def test_unit_variance_inside_and_zero_outside(noise):
    sample = draws(noise, 40, 12)
    assert sample.dtype == torch.float32
    assert (sample[:, :, ~MASK] == 0).all()
    variance = sample[:, :, MASK].square().mean((0, 1))
    assert float(variance.mean()) == pytest.approx(1.0, abs=0.04)
    # 40 draws of correlated frames leave a spread of about 0.15 at a voxel
    assert float(variance.min()) > 0.5
    assert float(variance.max()) < 1.7
    assert float(sample[:, :, MASK].mean()) == pytest.approx(0.0, abs=0.05)


def test_white_noise_has_no_autocorrelation():
    sample = draws(WhiteNoise(1, MASK), 20, 20)
    assert lag_correlation(sample) == pytest.approx(0, abs=0.02)
    assert neighbour_correlation(sample, 0) == pytest.approx(0, abs=0.02)


def test_the_colour_of_a_known_field_comes_back(fields, coloured):
    sample = draws(coloured, 12, 40)
    known = torch.stack([f[:, 0] for f in fields])
    assert lag_correlation(sample) == pytest.approx(LAG1, abs=0.06)
    assert lag_correlation(sample, 2) == pytest.approx(LAG1**2, abs=0.08)
    for axis in range(3):
        expected = neighbour_correlation(known, axis)
        assert neighbour_correlation(sample, axis) == pytest.approx(expected, abs=0.06)


def test_colour_depends_on_the_data():
    """A slow field gives slow noise, a fast one fast noise."""
    found = []
    for lag1 in (0.2, 0.8):
        data = smooth_fields(MASK, count=4, length=60, lag1=lag1)
        noise = StationaryNoise(1, MASK).fit(data, NOTHING)
        found.append(lag_correlation(draws(noise, 12, 40)))
    assert found == pytest.approx([0.2, 0.8], abs=0.1)


def test_once_the_drift_is_removed_the_noise_is_as_the_data():
    """Data come without mean and drift; noise loses them too, and is the same after that."""
    basis = removed_basis(60, 2.0, 1 / 128)
    slow = smooth_fields(MASK, count=8, length=60, lag1=0.8)
    data = [torch.from_numpy(remove_drift(f.numpy(), basis)).float() for f in slow]
    variance = torch.cat(data)[:, 0, MASK].square().mean()
    data = [f / variance.sqrt() for f in data]
    sample = draws(StationaryNoise(1, MASK).fit(data, basis), 16, 60)
    cleaned = torch.stack([torch.from_numpy(remove_drift(s.numpy(), basis)) for s in sample])
    known = torch.stack(data)[:, :, 0]
    assert float(cleaned[..., MASK].square().mean()) == pytest.approx(1, abs=0.05)
    for lag in (1, 2, 4):
        expected = lag_correlation(known, lag)
        assert lag_correlation(cleaned, lag) == pytest.approx(expected, abs=0.06)
    assert float(sample[..., MASK].square().mean()) > 1.05  # it had a drift to lose


def test_windows_of_training_are_as_those_of_a_run_without_its_drift():
    """What the network is trained with is what it meets when a whole run is made."""
    basis = removed_basis(60, 2.0, 1 / 128)
    slow = smooth_fields(MASK, count=8, length=60, lag1=0.8)
    data = [torch.from_numpy(remove_drift(f.numpy(), basis)).float() for f in slow]
    variance = torch.cat(data)[:, 0, MASK].square().mean()
    noise = StationaryNoise(1, MASK).fit([f / variance.sqrt() for f in data], basis)
    runs = torch.stack(
        [torch.from_numpy(remove_drift(s.numpy(), basis)) for s in draws(noise, 16, 60)]
    )
    generator = torch.Generator().manual_seed(1)
    windows = torch.stack([noise.sample_window(16, generator) for _ in range(60)])[:, :, 0]
    cut = torch.cat([runs[:, start : start + 16] for start in range(0, 45, 4)])
    assert float(windows[..., MASK].square().mean()) == pytest.approx(1, abs=0.06)
    for lag in (1, 2, 4, 8, 12):
        assert lag_correlation(windows, lag) == pytest.approx(lag_correlation(cut, lag), abs=0.08)
    # noise that still has its drift is slower than what is learned from
    assert lag_correlation(draws(noise, 30, 16), 4) > lag_correlation(windows, 4) + 0.1


def test_each_voxel_has_its_own_speed():
    """Half of the brain is slow, half fast, in the data as in the noise."""
    slow = smooth_fields(MASK, count=6, length=60, lag1=0.7)
    fast = smooth_fields(MASK, count=6, length=60, lag1=0.3)
    left = torch.zeros(MASK.shape, dtype=torch.bool)
    left[: MASK.shape[0] // 2] = True
    data = [torch.where(left, a, b) for a, b in zip(slow, fast, strict=True)]
    sample = draws(StationaryNoise(1, MASK).fit(data, NOTHING), 16, 40)
    lag1 = (sample[:, 1:] * sample[:, :-1]).mean((0, 1)) / sample.square().mean((0, 1))
    assert float(lag1[MASK & left].mean()) == pytest.approx(0.7, abs=0.08)
    assert float(lag1[MASK & ~left].mean()) == pytest.approx(0.3, abs=0.08)


def test_channels_keep_their_correlation():
    base = smooth_fields(MASK, count=4, length=60)
    other = [f.roll(7, 0) for f in base]
    mixed = [torch.cat([a, 0.8 * a + 0.6 * b], dim=1) for a, b in zip(base, other, strict=True)]
    noise = StationaryNoise(2, MASK).fit(mixed, NOTHING)
    generator = torch.Generator().manual_seed(0)
    sample = torch.stack([noise.sample_run(20, 2.0, generator) for _ in range(20)])[..., MASK]
    products = torch.einsum("dncp,dnep->ce", sample, sample) / sample[:, :, 0].numel()
    assert float(products[0, 1]) == pytest.approx(0.8, abs=0.06)
    assert products.diagonal().tolist() == pytest.approx([1, 1], abs=0.08)


def test_a_window_of_a_long_draw_is_as_a_draw_of_its_length(noise):
    """Wherever the window lies: variance, temporal and spatial correlation."""
    length, total = 8, 40
    long = draws(noise, 50, total)
    own = draws(noise, 50, length, seed=1)
    for start in (0, 5, total - length):
        window = long[:, start : start + length]
        for lag in (1, 4, 7):
            expected = lag_correlation(own, lag)
            assert lag_correlation(window, lag) == pytest.approx(expected, abs=0.06)
        assert neighbour_correlation(window, 1) == pytest.approx(
            neighbour_correlation(own, 1), abs=0.05
        )
        variance = float(window[..., MASK].square().mean())
        assert variance == pytest.approx(float(own[..., MASK].square().mean()), abs=0.06)


def test_draws_follow_the_generator_alone(noise):
    torch.manual_seed(1)
    first = draws(noise, 2, 5, seed=4)
    torch.manual_seed(2)
    again = draws(noise, 2, 5, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, draws(noise, 2, 5, seed=5))
    assert not torch.equal(first[0], first[1])  # the generator moves on


def test_fitting_is_repeatable_and_leaves_the_global_generator_alone(fields):
    torch.manual_seed(1)
    one = StationaryNoise(1, MASK).fit(fields, NOTHING)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(2)
    other = StationaryNoise(1, MASK).fit(iter(fields), NOTHING)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_state_is_all_that_a_draw_depends_on(coloured):
    loaded = StationaryNoise(1, MASK)
    loaded.load_state_dict(coloured.state_dict())
    assert torch.equal(draws(coloured, 1, 6), draws(loaded, 1, 6))


@pytest.mark.parametrize("lengths", [(24,), (5,), (24, 9), (24, 3)])
def test_one_short_run_and_runs_of_different_length_fit(lengths):
    data = [smooth_fields(MASK, count=1, length=n)[0] for n in lengths]
    basis = removed_basis(lengths[0], 2.0, 1 / 128)
    sample = draws(StationaryNoise(1, MASK).fit(data, basis), 4, 30)
    assert torch.isfinite(sample).all()
    assert 0.5 < float(sample[..., MASK].square().mean()) < 3


def test_the_autoregression_solves_its_equations():
    lags = 0.7 ** np.arange(6)
    assert autoregression(lags) == pytest.approx([0.7, 0, 0, 0, 0], abs=1e-12)
    extended = extended_autocovariance(lags, 40)
    assert extended == pytest.approx(0.7 ** np.arange(40))
    assert extended_autocovariance(lags, 3) == pytest.approx(lags[:3])


@pytest.mark.parametrize("lag1", [-0.5, 0.0, 0.6, 0.95])
@pytest.mark.parametrize("removed", [False, True])
def test_the_extension_is_positive_definite(lag1, removed):
    basis = removed_basis(60, 2.0, 1 / 128) if removed else NOTHING
    data = smooth_fields(MASK, count=2, length=60, lag1=lag1)
    if removed:
        data = [torch.from_numpy(remove_drift(f.numpy(), basis)).float() for f in data]
    rows = StationaryNoise(1, MASK).fit(data, basis).autocovariance.flatten(0, 1)
    for row in rows.double().numpy():
        assert row[0] > 0
        for length in (4, 9, 80, 300):
            extended = extended_autocovariance(row / row[0], length)
            assert np.linalg.eigvalsh(toeplitz(extended))[0] > 0
