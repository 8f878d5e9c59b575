"""Noise with modes: distant regions fluctuate together; else it is as stationary noise is."""

import gc

import numpy as np
import pytest
import torch

from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.protocol import RunNoise
from fmrisynth.model.noise.stationary import StationaryNoise

MASK = torch.ones(8, 9, 7, dtype=torch.bool)
MASK[0] = MASK[:, 0] = False
LEFT, RIGHT = (slice(1, 3), slice(1, 3), slice(0, 3)), (slice(6, 8), slice(6, 9), slice(4, 7))
NOTHING = np.zeros((60, 0))
FRAMES = 60


def network_fields(runs=12, share=0.6, lag1=0.8, seed=0):
    """White noise, and a slow fluctuation that two distant regions have in common."""
    generator = torch.Generator().manual_seed(seed)
    fields = []
    for _ in range(runs):
        white = torch.randn(FRAMES, 1, *MASK.shape, generator=generator)
        course = torch.randn(FRAMES, generator=generator)
        for t in range(1, FRAMES):
            course[t] = lag1 * course[t - 1] + (1 - lag1**2) ** 0.5 * course[t]
        for region in (LEFT, RIGHT):
            part = white[:, 0, *region]
            shared = course.view(-1, 1, 1, 1) * share**0.5
            white[:, 0, *region] = part * (1 - share) ** 0.5 + shared
        fields.append(white * MASK)
    return fields


def fitted(fields, modes, basis=NOTHING, participants=None):
    """Noise fitted to runs, and to individual differences where participants are given."""
    noise = ModalNoise(1, MASK, modes).fit(iter(fields), basis)
    if participants:
        noise.fit_individual_differences(iter(fields), participants)
    return noise


def draws(noise, count, n_frames=FRAMES, seed=0, participant=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [noise.sample_run(n_frames, 2.0, generator, participant) for _ in range(count)]
    )


def courses(fields, region):
    """Mean of a region at every frame, (runs, frames)."""
    return torch.stack([field[:, 0, *region].mean((1, 2, 3)) for field in fields])


def coupling(fields):
    """Correlation of the two regions' courses."""
    pair = torch.stack([courses(fields, region).flatten() for region in (LEFT, RIGHT)])
    return float(torch.corrcoef(pair)[0, 1])


@pytest.fixture(scope="module")
def fields():
    return network_fields()


@pytest.fixture(scope="module")
def modal(fields):
    return fitted(fields, 4)


def test_distant_regions_fluctuate_together_as_in_the_data(fields, modal):
    expected = coupling(fields)
    assert expected > 0.8
    assert coupling(draws(modal, 12)) == pytest.approx(expected, abs=0.1)
    stationary = StationaryNoise(1, MASK).fit(fields, NOTHING)
    # every pair of voxels at that offset shares what it has of this
    assert coupling(draws(stationary, 12)) < expected - 0.25


def test_a_mode_keeps_its_own_autocorrelation(fields, modal):
    def lag1(some):
        values = courses(some, LEFT)
        return float((values[:, 1:] * values[:, :-1]).mean() / values.square().mean())

    assert lag1(draws(modal, 24)) == pytest.approx(lag1(fields), abs=0.12)


def test_the_variance_is_one_inside_the_brain_and_zero_outside(modal):
    sample = draws(modal, 24)
    variance = sample.square().mean((0, 1))[0]
    assert float(variance[MASK].mean()) == pytest.approx(1, abs=0.05)
    assert float(variance[MASK].std()) < 0.15
    assert not sample[..., ~MASK].any()


def test_modes_of_noise_alone_take_nothing_that_is_not_there():
    """Without networks, the modes' variance is measured in runs they were not fitted to."""
    fields = network_fields(share=0.0)
    noise = fitted(fields, 16)
    assert float(noise.autocovariance[:, 0].mean()) == pytest.approx(1, abs=0.1)


def test_what_overfitted_modes_leave_is_as_slow_as_in_other_runs():
    """Modes that take the slow part of their own runs do not take it from what they never saw."""
    generator = torch.Generator().manual_seed(1)

    def slow_and_white():
        slow = torch.randn(FRAMES, 1, *MASK.shape, generator=generator)
        for t in range(1, FRAMES):
            slow[t] = 0.9 * slow[t - 1] + (1 - 0.9**2) ** 0.5 * slow[t]
        white = torch.randn(FRAMES, 1, *MASK.shape, generator=generator)
        return (slow + white) / 2**0.5 * MASK

    runs = [slow_and_white() for _ in range(8)]
    noise = fitted(runs, 40)
    other = [slow_and_white() for _ in range(8)]

    def left(some):
        axes = noise.modes.flatten(1)
        rest = [f[..., MASK].flatten(1) for f in some]
        rest = [r - r @ axes.T @ axes for r in rest]
        both = sum(float((r[1:] * r[:-1]).sum()) for r in rest)
        return both / sum(float(r.square().sum()) for r in rest)

    assert left(draws(noise, 8)) == pytest.approx(left(other), abs=0.06)
    assert left(runs) < left(other) - 0.1


def test_one_short_run_is_enough(fields):
    noise = fitted([fields[0][:20]], 64, NOTHING[:20])
    assert torch.isfinite(draws(noise, 2)).all()


def test_the_state_is_all_that_a_draw_depends_on(fields, modal):
    again = fitted(fields, 4)
    loaded = ModalNoise(1, MASK, 4)
    loaded.load_state_dict(modal.state_dict())
    one = draws(modal, 1)
    assert torch.equal(one, draws(again, 1))
    assert torch.equal(one, draws(loaded, 1))


# Individual differences


REGIONS = [
    (slice(x, x + 2), slice(y, y + 2), slice(z, z + 2))
    for x in (1, 4, 6)
    for y in (1, 4, 7)
    for z in (0, 3)
]


def participant_fields(n_participants=16, runs=4, individual=1.0, seed=0):
    """Regions whose courses each participant mixes by an own matrix; (fields, labels)."""
    generator = torch.Generator().manual_seed(seed)
    fields, labels = [], []
    for participant in range(n_participants):
        mixing = torch.eye(len(REGIONS))
        mixing = mixing + individual * 0.3 * torch.randn(mixing.shape, generator=generator)
        mixing = mixing / mixing.norm(dim=1, keepdim=True)
        for _ in range(runs):
            field = 0.3 * torch.randn(FRAMES, 1, *MASK.shape, generator=generator)
            course = torch.randn(FRAMES, len(REGIONS), generator=generator) @ mixing.T
            for index, region in enumerate(REGIONS):
                field[:, 0, *region] += course[:, index].view(-1, 1, 1, 1)
            fields.append(field * MASK)
            labels.append(f"{participant:02d}")
    spread = torch.cat(fields).square().mean(0).sqrt().clamp(min=1e-6)
    return [field / spread * MASK for field in fields], labels


def edges(field):
    """Fisher-transformed correlations of the regions' courses."""
    courses = torch.stack([field[:, 0, *region].mean((1, 2, 3)) for region in REGIONS])
    values = torch.corrcoef(courses)[*torch.triu_indices(len(REGIONS), len(REGIONS), 1)]
    return torch.atanh(values.clamp(-0.99, 0.99))


def fingerprint(fields, labels):
    """Similarity of runs of one participant less that of different participants."""
    deviations = torch.stack([edges(field) for field in fields])
    similar = torch.corrcoef(deviations - deviations.mean(0))
    same = torch.tensor([[a == b for a in labels] for b in labels])
    other = ~torch.eye(len(labels), dtype=torch.bool)
    return float(similar[same & other].mean() - similar[~same].mean())


def synthetic_participants(noise, count=12, runs=3):
    generator = torch.Generator().manual_seed(5)
    drawn = [
        noise.sample_run(FRAMES, 2.0, generator, participant)
        for participant in range(count)
        for _ in range(runs)
    ]
    return drawn, [str(participant) for participant in range(count) for _ in range(runs)]


def test_runs_of_one_synthetic_participant_share_networks_as_real_ones_do():
    fields, labels = participant_fields()
    noise = fitted(fields, len(REGIONS), participants=labels)
    real = fingerprint(fields, labels)
    assert real > 0.7
    assert fingerprint(*synthetic_participants(noise)) == pytest.approx(real, rel=0.25)


def test_no_real_participants_networks_are_copied():
    """No synthetic participant is as similar to a real one as two runs of a real one are."""
    fields, labels = participant_fields()
    noise = fitted(fields, len(REGIONS), participants=labels)
    drawn = torch.stack([edges(field) for field in synthetic_participants(noise, 40, 1)[0]])
    real = torch.stack([edges(field) for field in fields])
    real = torch.stack([real[i : i + 4].mean(0) for i in range(0, len(real), 4)])
    both = torch.corrcoef(torch.cat([drawn - drawn.mean(0), real - real.mean(0)]))
    assert float(both[: len(drawn), len(drawn) :].max()) < fingerprint(fields, labels)


def test_participants_without_differences_get_the_same_networks():
    fields, labels = participant_fields(individual=0.0)
    noise = fitted(fields, len(REGIONS), participants=labels)
    assert abs(fingerprint(*synthetic_participants(noise))) < 0.06
    one, other = draws(noise, 1, participant=1), draws(noise, 1, participant=2)
    assert float((one - other).square().mean() / one.square().mean()) < 0.05


def test_participants_have_unit_variance_on_average():
    fields, labels = participant_fields()
    noise = fitted(fields, len(REGIONS), participants=labels)
    variance = torch.stack(synthetic_participants(noise, 30, 1)[0]).square().mean((0, 1))[0]
    assert float(variance[MASK].mean()) == pytest.approx(1, abs=0.06)


def test_each_participant_is_as_loud_as_the_group_whatever_its_networks():
    """One mode of a hundred times the power does not decide how loud somebody is."""
    fields, labels = participant_fields()
    noise = fitted(fields, len(REGIONS), participants=labels)
    noise.autocovariance[0] *= 100
    noise.differences *= 2

    def power(participant):
        return float(draws(noise, 8, participant=participant).square().sum())

    loud = [power(participant) for participant in range(8)]
    noise.differences.zero_()
    assert loud == pytest.approx([power(0)] * 8, rel=0.15)


def test_without_components_all_participants_are_the_same():
    fields, labels = participant_fields(n_participants=4)
    for components, alike in ((0, True), (2, False)):
        noise = ModalNoise(1, MASK, len(REGIONS), components).fit(fields, NOTHING)
        noise.fit_individual_differences(fields, labels)
        assert torch.equal(draws(noise, 1, participant=1), draws(noise, 1, participant=2)) == alike


def test_one_participants_runs_are_held_at_a_time():
    fields, labels = participant_fields(n_participants=6)
    held = []

    def counted():
        for field in fields:
            held.append(sum(type(found) is RunNoise for found in gc.get_objects()))
            yield field

    noise = ModalNoise(1, MASK, len(REGIONS), 2).fit(fields, NOTHING)
    noise.fit_individual_differences(counted(), labels)
    of_one = max(labels.count(label) for label in labels)
    assert 0 < max(held) <= 2 * of_one < len(fields)


def test_what_is_no_modes_adds_nothing_to_the_modes(fields):
    """Stationary noise has a part in every pattern: it would blur what goes together."""
    noise = fitted(fields, 4)
    axes = noise.modes.flatten(1)
    courses = torch.cat([f[..., MASK].flatten(1) @ axes.T for f in draws(noise, 40)])
    expected = noise.autocovariance[:, 0]
    assert courses.square().mean(0).numpy() == pytest.approx(expected.numpy(), rel=0.15)
