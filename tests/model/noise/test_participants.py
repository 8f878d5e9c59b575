"""Noise of one participant, inferred from runs: nearer to it the more runs there are."""

from dataclasses import replace

import pytest
import torch

from fmrisynth.model.noise.autocovariance import correlate_in_time, factors_in_time
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.participants import (
    mean_autocovariance,
    mean_covariance,
    relative_loudness,
    signal_per_frame,
)
from fmrisynth.model.noise.protocol import RunNoise, VoxelNoise
from fmrisynth.model.noise.stationary import StationaryNoise
from fmrisynth.preprocess.carrier import removed_basis
from tests.model.noise.test_modal import (
    FRAMES,
    MASK,
    NOTHING,
    REGIONS,
    edges,
    fitted,
    participant_fields,
)

RUNS, HIGH_PASS = 8, 1 / 40


@pytest.fixture(scope="module")
def participants():
    return participant_fields(n_participants=12, runs=RUNS)


@pytest.fixture(scope="module")
def group(participants):
    """Fitted to the first ten; the last two are new to it."""
    fields, labels = participants
    return fitted(fields[: 10 * RUNS], len(REGIONS), participants=labels[: 10 * RUNS])


def draw(noise, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [noise.sample_run(FRAMES, 2.0, generator) for _ in range(count)]


def similarity(one, other, centre):
    mean = [torch.stack([edges(f) for f in some]).mean(0) - centre for some in (one, other)]
    return float(torch.corrcoef(torch.stack(mean))[0, 1])


def test_networks_are_those_of_the_participant_and_of_nobody_else(participants, group):
    fields, _ = participants
    centre = torch.stack([edges(f) for f in fields[: 10 * RUNS]]).mean(0)
    first, second = fields[10 * RUNS : 11 * RUNS], fields[11 * RUNS :]
    known, left_out = first[: RUNS // 2], first[RUNS // 2 :]
    own = draw(group.infer([group.statistics(f) for f in known], NOTHING), RUNS)
    assert similarity(own, left_out, centre) > 0.8 * similarity(known, left_out, centre)
    other = draw(group.infer([group.statistics(f) for f in second], NOTHING), RUNS)
    assert abs(similarity(other, left_out, centre)) < 0.4


def test_few_frames_say_less_than_many(participants, group):
    fields = participants[0][10 * RUNS : 11 * RUNS]
    centre = torch.stack([edges(f) for f in draw(group, 20)]).mean(0)

    def distance(count):
        own = group.infer([group.statistics(f) for f in fields[:count]], NOTHING)
        return float((torch.stack([edges(f) for f in draw(own, 20)]).mean(0) - centre).norm())

    assert 0 < distance(1) < distance(RUNS)


def test_without_runs_or_differences_the_noise_is_the_groups(participants, group):
    fields, _ = participants
    assert group.infer([], NOTHING) is group
    alone = ModalNoise(1, MASK, len(REGIONS)).fit(fields[:4], NOTHING)
    assert not alone.signal_per_frame.any()
    assert alone.infer([alone.statistics(fields[0])], NOTHING) is alone
    stationary = StationaryNoise(1, MASK)
    assert stationary.statistics(fields[0]) is None
    assert stationary.infer([], NOTHING) is stationary


def memory(fields):
    """Lag-1 autocorrelation over all voxels and runs."""
    values = torch.stack([f[:, 0, MASK] for f in fields])
    return float((values[:, 1:] * values[:, :-1]).mean() / values.square().mean())


def test_slow_noise_is_slow_beyond_the_modes_too():
    """What the modes leave has the participant's memory, drift removed or not."""
    generator = torch.Generator().manual_seed(4)
    removed = removed_basis(FRAMES, 2.0, HIGH_PASS)
    basis = torch.from_numpy(removed).float()

    def field(lag1):
        noise = torch.randn(FRAMES, 1, *MASK.shape, generator=generator) * MASK
        for t in range(1, FRAMES):
            noise[t] = lag1 * noise[t - 1] + (1 - lag1**2) ** 0.5 * noise[t]
        flat = noise.flatten(1)
        return (flat - basis @ (basis.T @ flat)).view_as(noise)

    # the participants' variance differs too, as without it nothing is taken from them
    kinds = [(0.1, 0.7), (0.6, 1.2), (0.3, 1.0), (0.5, 0.8), (0.2, 1.3), (0.4, 1.0)]
    fields = [sd * field(lag1) for lag1, sd in kinds for _ in range(6)]
    labels = [str(i) for i in range(len(kinds)) for _ in range(6)]
    group = ModalNoise(1, MASK, 2, high_pass=HIGH_PASS).fit(fields, removed)
    group.fit_individual_differences(fields, labels)
    assert memory(draw(group, 12)) == pytest.approx(memory(fields), abs=0.04)
    for number in (0, 1):
        shown = fields[6 * number : 6 * number + 6]
        own = group.infer([group.statistics(f) for f in shown[:5]], removed)
        assert memory(draw(own, 12)) == pytest.approx(memory(shown), abs=0.05)
    assert memory(draw(group, 12)) == pytest.approx(memory(fields), abs=0.04)  # is left as it was


def test_loud_places_are_loud():
    """The variance that the modes leave is the participant's, too."""
    generator = torch.Generator().manual_seed(3)

    def field(loud):
        gain = torch.ones(MASK.shape)
        gain[:4] = loud
        return torch.randn(FRAMES, 1, *MASK.shape, generator=generator) * gain * MASK

    louds = [1.8, 0.6, 1.5, 0.7, 1.3, 0.5]
    fields = [field(loud) for loud in louds for _ in range(4)]
    scale = torch.cat(fields).square().mean(0).sqrt().clamp(min=1e-6)
    fields = [f / scale * MASK for f in fields]
    labels = [str(i) for i in range(len(louds)) for _ in range(4)]
    noise = fitted(fields, 2, participants=labels)
    own = noise.infer([noise.statistics(f) for f in fields[:4]], NOTHING)
    seen = torch.cat(draw(own, 8)).square().mean((0, 1))
    expected = torch.cat(fields[:4]).square().mean((0, 1))
    assert float(seen[:4][MASK[:4]].mean()) == pytest.approx(
        float(expected[:4][MASK[:4]].mean()), rel=0.15
    )
    assert torch.allclose(own.variance[0, MASK].mean(), seen[MASK].mean(), rtol=0.1)
    assert torch.equal(noise.variance > 0, MASK[None])


def test_voxels_are_to_be_as_in_the_runs_on_average(participants, group):
    some = [group.statistics(f) for f in participants[0][10 * RUNS : 10 * RUNS + 3]]
    assert group.infer(some, NOTHING).voxels is None
    known = [
        replace(some[0], voxels=VoxelNoise(0.1, (4.0, 0.0, 8.0))),
        replace(some[1], voxels=VoxelNoise(0.3, (6.0, 0.0, 6.0))),
        some[2],
    ]
    voxels = group.infer(known, NOTHING).voxels
    assert voxels.lag1 == pytest.approx(0.2)
    assert voxels.fwhm == pytest.approx((5.0, 0.0, 7.0))
    assert group.voxels is None


def test_the_signal_is_the_ratio_of_difference_to_chance():
    """Variances v of independent samples, of SD .3 over participants."""
    generator = torch.Generator().manual_seed(0)
    size, count = 6, 150
    participants = []
    for _ in range(count):
        sd = (1 + 0.3 * torch.randn(size, generator=generator)).clamp(min=0.1).sqrt()
        participants.append(
            [
                RunNoise(
                    torch.randn(50, size, generator=generator) * sd,
                    torch.randn(50, 1, 40, generator=generator).square().mean(0),
                    torch.ones(1),
                )
                for _ in range(4)
            ]
        )
    (loudness, signal), nothing = signal_per_frame(participants)
    # off the diagonal, each of n (n − 1) products has a variance of one per frame and no difference
    for n, found in ((1, signal[0]), (size - 1, signal[1])):
        expected = (2 * 1.09 * n + n * (n - 1)) / (0.09 * n)
        assert 1 / float(found) == pytest.approx(expected, rel=0.3)
        # the sum of n variances differs by n, and by chance of n · 2 E[v²], for each mode alike
        by_loudness = 2 * 1.09 / 0.09
        assert 1 / float(loudness[int(n > 1)]) == pytest.approx(by_loudness, rel=0.3)
    assert (signal[1:] == signal[1]).all()
    assert nothing < 0.02 * signal[1]


def test_a_participant_is_believed_of_the_modes_by_which_participants_differ():
    """The first mode's variance differs between participants; 40 others' differ by chance."""
    generator, size = torch.Generator().manual_seed(0), 41
    noise = ModalNoise(1, MASK, size)
    loud = [0.2, 0.5, 1.0, 2.0, 3.0, 1.5]

    def run(variance):
        courses = torch.randn(60, size, generator=generator)
        courses[:, 0] *= variance**0.5
        return RunNoise(courses, torch.ones(1, int(MASK.sum())), torch.eye(9)[0])

    runs = [[run(variance) for _ in range(6)] for variance in loud]
    noise.fit([torch.randn(60, 1, *MASK.shape, generator=generator) * MASK], NOTHING)
    noise.observed.copy_(torch.eye(9)[0])
    noise.signal_per_frame.copy_(signal_per_frame(runs)[0])
    loudness, known = 360 * noise.signal_per_frame / (1 + 360 * noise.signal_per_frame)
    assert known[0] > 0.9
    assert (known[1:] < 0.5).all()
    for own in (runs[0], runs[4]):
        shown = mean_covariance([r.courses for r in own]).diagonal()
        prior = 1 + loudness * (relative_loudness(shown, noise.observed[:, 0]) - 1)
        inferred = noise.infer(own, NOTHING).mode_sd.square()
        assert float(inferred[0]) == pytest.approx(float(shown[0]), rel=0.1, abs=0.1)
        torch.testing.assert_close(
            inferred, known * shown + (1 - known) * prior, atol=1e-3, rtol=1e-3
        )  # Spearman and Brown, mode by mode


def test_a_quiet_participant_is_quiet_in_modes_that_say_little_by_themselves():
    """Forty modes are as loud in each participant as an own factor, and differ by chance else."""
    generator, size = torch.Generator().manual_seed(1), 41
    factors = [0.3, 0.6, 1.0, 1.5, 2.0, 0.6]

    def run(factor):
        courses = torch.randn(60, size, generator=generator) * factor**0.5
        return RunNoise(courses, torch.ones(1, int(MASK.sum())), torch.eye(9)[0])

    runs = [[run(factor) for _ in range(6)] for factor in factors]
    signal = signal_per_frame(runs)[0]
    assert (signal[0, 8:] > 5 * signal[1, 8:]).all()
    noise = ModalNoise(1, MASK, size)
    noise.fit([torch.randn(60, 1, *MASK.shape, generator=generator) * MASK], NOTHING)
    noise.observed.copy_(torch.eye(9)[0])
    noise.signal_per_frame.copy_(signal)
    for factor, own in zip(factors, runs, strict=True):
        power = float(noise.infer(own[:1], NOTHING).mode_sd[8:].square().mean())
        assert power == pytest.approx(factor, rel=0.25)


def test_covariances_are_means_over_the_frames_of_runs():
    generator = torch.Generator().manual_seed(0)
    courses = [torch.randn(n, 3, generator=generator) for n in (5, 2)]
    torch.testing.assert_close(mean_covariance(courses), sum(c.T @ c for c in courses) / 7)
    lagged = mean_autocovariance(courses, 6).float()
    torch.testing.assert_close(lagged[:, 0], mean_covariance(courses).diagonal())
    both = sum((c[:-1] * c[1:]).sum(0) for c in courses) / (4 + 1)
    torch.testing.assert_close(lagged[:, 1], both)
    torch.testing.assert_close(lagged[:, 3], (courses[0][:-3] * courses[0][3:]).mean(0))
    assert (lagged[:, 5] == 0).all()  # no run is long enough


@pytest.mark.parametrize("n_frames", [1, 3, 40])
def test_recursion_and_factor_give_the_same_courses(n_frames):
    rows = torch.tensor([[2.0, 1.0, 0.7, 0.2], [1.0, -0.5, 0.3, 0.0]])
    white = torch.randn(2, n_frames, generator=torch.Generator().manual_seed(0))
    expected = (factors_in_time(rows, n_frames) @ white[..., None])[..., 0]
    torch.testing.assert_close(correlate_in_time(rows, white), expected, atol=1e-5, rtol=1e-5)


def test_intensities_leave_the_autocorrelation_as_it_was(participants):
    """Lags are divided by what multiplying by intensities will cost; variances stay."""
    fields, labels = participants
    noise = fitted(fields[:16], 4, participants=labels[:16])
    before = noise.autocovariance.clone()
    agreement = torch.tensor([1.0, 0.8, 0.75, *[0.7] * 13])
    noise.divide_lags(agreement, NOTHING)
    torch.testing.assert_close(noise.autocovariance[:, 0], before[:, 0])
    torch.testing.assert_close(noise.autocovariance[:, 1] * 0.8, before[:, 1], atol=1e-3, rtol=1e-3)
