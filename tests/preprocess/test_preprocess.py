"""Carrier and residual, the model grid, splits, windows, designs, and the cache."""

import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import make_first_level_design_matrix
from scipy.ndimage import gaussian_filter

from fmrisynth.bids.dataset import find_runs
from fmrisynth.bids.images import Bold, load_bold
from fmrisynth.config.model import PreprocessConfig
from fmrisynth.errors import DataError
from fmrisynth.preprocess.design import design_of
from fmrisynth.preprocess.grid import Grid, choose_grid, resample
from fmrisynth.preprocess.splits import choose_split
from fmrisynth.preprocess.store import Frames, RunData, load_run_data, prepare_runs, run_key
from fmrisynth.preprocess.volumes import drift_basis, merge, remove_drift, split
from fmrisynth.preprocess.windows import joining_weights, window_starts

HIGH_PASS = 1 / 128
SHAPE = (7, 8, 6)


def make_bold(n_volumes=100, t_r=2.0, seed=0):
    """Anatomy, noise, a linear trend and a slow wave, in a box of brain."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    mean = rng.uniform(500, 1500, SHAPE)
    times = np.arange(n_volumes) * t_r
    slow = 0.02 * times / times[-1] + 0.01 * np.cos(2 * np.pi * times / 180)
    noise = 0.01 * rng.standard_normal((*SHAPE, n_volumes))
    data = mean[..., None] * (1 + slow + noise)
    return Bold(data.astype(np.float32), np.diag([4.0, 4, 4, 1]), mask, t_r)


# Carrier and residual


@pytest.mark.parametrize(("n_volumes", "t_r"), [(100, 2.0), (12, 2.0), (61, 0.72), (90, 3.3)])
def test_merge_is_the_inverse_of_split(n_volumes, t_r):
    bold = make_bold(n_volumes, t_r)
    carrier, residual = split(bold, HIGH_PASS)
    again = merge(carrier, residual, HIGH_PASS)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again[bold.mask], bold.data[bold.mask], rtol=2e-6, atol=2e-3)
    assert (again[~bold.mask] == 0).all()


def test_residuals_have_no_mean_and_no_drift():
    bold = make_bold()
    carrier, residual = split(bold, HIGH_PASS)
    series = residual[bold.mask].T
    assert np.abs(series.mean(0)).max() < 1e-3
    basis = drift_basis(len(series), bold.t_r, HIGH_PASS)
    assert basis.shape[1] >= 2
    assert np.abs(basis.T @ series).max() < 1e-2 * np.linalg.norm(series, axis=0).max()
    assert (residual[~bold.mask] == 0).all()
    np.testing.assert_allclose(carrier.noise_sd[bold.mask], series.std(0), rtol=1e-4)
    # 1 % of white noise was put in
    assert float(np.median(carrier.noise_sd[bold.mask])) == pytest.approx(1.0, abs=0.1)


def test_residuals_are_percent_of_the_voxels_own_mean():
    bold = make_bold()
    brighter = replace(bold, data=bold.data * np.float32(7.5))
    one, other = split(bold, HIGH_PASS)[1], split(brighter, HIGH_PASS)[1]
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_voxels_without_signal_leave_the_carriers_mask():
    bold = make_bold()
    data = bold.data.copy()
    data[2, 2, 2] *= 1e-3
    data[3, 3, 3] = 0
    carrier, residual = split(replace(bold, data=data), HIGH_PASS)
    expected = bold.mask.copy()
    expected[2, 2, 2] = expected[3, 3, 3] = False
    assert (carrier.mask == expected).all()
    assert np.isfinite(residual).all()
    assert (residual[~expected] == 0).all()


@pytest.mark.parametrize(("n_volumes", "t_r"), [(8, 2.0), (48, 2.0), (284, 0.72)])
def test_the_drift_basis_is_orthonormal_and_spans_nilearns(n_volumes, t_r):
    basis = drift_basis(n_volumes, t_r, HIGH_PASS)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-8)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-6)
    theirs = make_first_level_design_matrix(
        np.arange(n_volumes) * t_r, drift_model="cosine", high_pass=HIGH_PASS
    ).to_numpy()
    assert np.abs(remove_drift(theirs, basis)).max() < 1e-6


# The grid


def ellipsoid(shape, centre=None):
    axes = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = (np.array(shape) - 1) / 2 if centre is None else np.array(centre)
    return (((axes - centre) / (np.array(shape) * 0.35)) ** 2).sum(-1) < 1


def affine_of(size=4.0, origin=(-30.0, -40, -20), rotation=0.0, flip=False):
    affine = np.eye(4)
    turn = np.array(
        [
            [np.cos(rotation), -np.sin(rotation), 0],
            [np.sin(rotation), np.cos(rotation), 0],
            [0, 0, 1],
        ]
    )
    affine[:3, :3] = turn @ np.diag([-size if flip else size, size, size])
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize(
    "affine", [affine_of(), affine_of(rotation=0.3), affine_of(flip=True)], ids=str
)
def test_on_one_lattice_the_voxels_are_copied(affine, multiple):
    mask = ellipsoid((17, 20, 15))
    data = np.random.default_rng(0).random((17, 20, 15), np.float32)
    grid = choose_grid([(mask, affine)], 4.0, multiple)
    assert all(n % multiple == 0 for n in grid.shape)
    assert grid.mask.sum() == mask.sum()
    moved = resample(data, affine, grid.affine, grid.shape)
    np.testing.assert_array_equal(np.sort(moved[grid.mask]), np.sort(data[mask]))
    back = resample(moved, grid.affine, affine, data.shape)
    np.testing.assert_array_equal(back[mask], data[mask])
    assert np.prod(grid.shape) < mask.size or multiple > 1  # cropped to the brain


def test_a_field_of_view_that_is_shifted_by_whole_voxels_stays_on_the_lattice():
    first, second = affine_of(), affine_of(origin=(-30.0 + 8, -40 - 4, -20))
    mask = ellipsoid((17, 20, 15))
    grid = choose_grid([(mask, first), (mask, second)], None, 2)
    data = np.random.default_rng(0).random((17, 20, 15), np.float32)
    for affine in (first, second):
        moved = resample(data, affine, grid.affine, grid.shape)
        assert set(np.unique(moved)) <= set(np.unique(data)) | {0.0}
        assert set(np.unique(data[mask])) <= set(np.unique(moved))


@pytest.mark.parametrize(
    "affine",
    [
        affine_of(2.0),
        affine_of(3.1),
        affine_of(2.5, rotation=0.2),
        affine_of(2.5, flip=True),
        affine_of(6.0),
    ],
    ids=["2", "3.1", "oblique", "left-handed", "6"],
)
def test_other_voxel_sizes_are_resampled_to_the_same_place(affine):
    """A smooth image has the same values at the same place in the world, on either grid."""
    size = float(np.linalg.norm(affine[:3, 0]))
    shape = tuple(round(n / size) for n in (90, 110, 80))
    mask = ellipsoid(shape)
    grid = choose_grid([(mask, affine)], 4.0, 2)
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), 4.0)
    assert np.sign(np.linalg.det(grid.affine)) == np.sign(np.linalg.det(affine))

    def wave(matrix, dims):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in dims], indexing="ij"), -1)
        x, y, z = np.moveaxis(index @ matrix[:3, :3].T + matrix[:3, 3], -1, 0)
        return (10 + np.sin(x / 25) + np.cos(y / 30) + z / 40).astype(np.float32)

    moved = resample(wave(affine, shape), affine, grid.affine, grid.shape)
    inner = gaussian_filter(grid.mask.astype(float), 1.5) > 0.9
    assert inner.sum() > 200
    np.testing.assert_allclose(moved[inner], wave(grid.affine, grid.shape)[inner], atol=0.06)
    # the brain keeps its volume and its centre
    volume = mask.sum() * size**3
    assert grid.mask.sum() * 64 == pytest.approx(volume, rel=0.1)
    centre = np.argwhere(mask).mean(0) @ affine[:3, :3].T + affine[:3, 3]
    found = np.argwhere(grid.mask).mean(0) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    np.testing.assert_allclose(found, centre, atol=1.5)


def test_a_voxel_needs_its_share_of_the_masks():
    affine = affine_of()
    small, large = ellipsoid((16, 16, 16)), np.ones((16, 16, 16), bool)
    both = choose_grid([(small, affine), (large, affine)], None, 1, share=1.0)
    any_ = choose_grid([(small, affine), (large, affine)], None, 1, share=0.5)
    assert both.mask.sum() == small.sum()
    assert any_.mask.sum() == large.sum()


def test_resampling_leaves_zeros_where_there_is_no_data():
    data = np.ones((4, 4, 4, 3), np.float32)
    far = affine_of(origin=(500.0, 0, 0))
    assert (resample(data, affine_of(), far, (3, 3, 3)) == 0).all()
    assert resample(data, affine_of(), far, (3, 3, 3)).shape == (3, 3, 3, 3)


def test_a_grid_refuses_a_mask_of_another_shape():
    with pytest.raises(DataError, match="shape"):
        Grid((3, 3, 3), np.eye(4), np.ones((3, 3, 4), bool))


# The split


@given(
    st.sets(st.text("abc019", min_size=1, max_size=4), min_size=1, max_size=30),
    st.floats(0, 0.9),
    st.integers(0, 10**6),
)
def test_every_participant_has_one_role(labels, share, seed):
    found = choose_split([*labels, *labels], share, seed)
    assert set(found.training) | set(found.held_out) == labels
    assert not set(found.training) & set(found.held_out)
    assert found.training
    assert len(found.training) + len(found.held_out) == len(labels)
    assert bool(found.held_out) == (len(labels) > 1)
    assert list(found.training) == sorted(found.training)
    assert found == choose_split(sorted(labels, reverse=True), share, seed)
    for label in labels:
        expected = "training" if label in found.training else "held_out"
        assert found.role(label) == expected
    assert found.role("nobody") == "unseen"


def test_the_split_follows_its_share_and_seed():
    labels = [f"{i:02d}" for i in range(20)]
    assert len(choose_split(labels, 0.25, 0).held_out) == 5
    assert len({choose_split(labels, 0.25, seed).held_out for seed in range(8)}) > 4


# Windows


@given(st.integers(1, 30), st.integers(0, 90), st.integers(1, 30))
def test_windows_cover_the_run_and_their_weights_sum_to_one(length, more, stride):
    stride, n_volumes = min(stride, length), length + more
    starts = window_starts(n_volumes, length, stride)
    assert starts[0] == 0
    assert starts[-1] == n_volumes - length
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= stride).all()
    weights = joining_weights(starts, n_volumes, length)
    total = np.zeros(n_volumes)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + length] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert (weights > 0).all()


def test_a_run_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="10 frames"):
        window_starts(10, 16, 8)


# The design


def table(*rows):
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])


def test_the_share_of_a_tr_is_the_time_that_the_event_is_on():
    events = table((1.0, 2.0, "a"), (6.5, 0.5, "a"), (8.0, 4.0, "b"), (9.0, 4.0, "b"))
    design = design_of(events, ["a", "b", "never"], 8, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(design.share[:, 0], [0.5, 0.5, 0, 0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(design.share[:, 1], [0, 0, 0, 0, 1, 1, 0.5, 0])
    assert (design.share[:, 2] == 0).all()
    assert (design.hrf[:, 2] == 0).all()
    assert (design.evoked[:, 2] == 0).all()


@pytest.mark.parametrize(("t_r", "start_time"), [(2.0, 0.0), (0.72, 0.0), (2.0, 1.0), (3.1, 1.55)])
def test_regressors_are_those_of_nilearn(t_r, start_time):
    events = table((0.0, 6.0, "a"), (12.3, 2.5, "b"), (21.0, 9.0, "a"), (30.0, 1.0, "b"))
    n_volumes = round(60 / t_r)
    times = start_time + np.arange(n_volumes) * t_r
    theirs = make_first_level_design_matrix(
        times, events, hrf_model="glover + derivative", drift_model=None
    )
    design = design_of(
        events, ["a", "b"], n_volumes, t_r, start_time=start_time, high_pass=HIGH_PASS
    )
    for column, name in enumerate(["a", "b"]):
        for part, suffix in enumerate(["", "_derivative"]):
            np.testing.assert_allclose(
                design.hrf[:, column, part], theirs[name + suffix], atol=1e-5
            )


def test_evoked_regressors_have_no_mean_and_no_drift():
    events = table(*[(t, 15.0, "a") for t in np.arange(0, 280, 60.0)], (100.0, 5.0, "b"))
    design = design_of(events, ["a", "b"], 150, 2.0, high_pass=HIGH_PASS)
    flat = design.evoked.reshape(150, -1)
    assert np.abs(flat.mean(0)).max() < 1e-6
    basis = drift_basis(150, 2.0, HIGH_PASS)
    assert np.abs(basis.T @ flat).max() < 1e-5
    np.testing.assert_allclose(
        design.evoked, remove_drift(design.hrf, basis), atol=1e-6
    )  # nothing else was taken


def test_an_event_without_duration_has_a_response():
    brief = design_of(table((4.0, 0.0, "a")), ["a"], 20, 2.0, high_pass=HIGH_PASS)
    one_second = design_of(table((4.0, 1.0, "a")), ["a"], 20, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(brief.hrf, one_second.hrf)
    assert brief.hrf[..., 0].max() > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8))
def test_a_later_onset_moves_the_response_by_as_many_frames(shift):
    early = design_of(table((4.0, 6.0, "a")), ["a"], 40, 2.0, high_pass=HIGH_PASS)
    late = design_of(table((4.0 + 2 * shift, 6.0, "a")), ["a"], 40, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(late.hrf[shift:], early.hrf[:-shift], atol=1e-3)


# The store


def constant_frames(*lengths):
    """Runs whose volumes say which run and which frame they are."""
    runs = [
        np.array([np.full((2, 2, 2), 100 * r + t) for t in range(n)], np.float16)
        for r, n in enumerate(lengths)
    ]
    return [RunData(None, frames, frames[0], frames[0]) for frames in runs]


def test_frames_are_found_across_runs():
    runs = constant_frames(3, 5, 1, 4)
    frames = Frames(runs, 2.0)
    assert len(frames) == 13
    expected = [0, 1, 2, 100, 101, 102, 103, 104, 200, 300, 301, 302, 303]
    order = np.random.default_rng(0).permutation(13)
    found = frames.frames(order)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0, 0, 0] * 2, np.array(expected)[order])
    with pytest.raises(IndexError):
        frames.frames(np.array([13]))


def test_the_global_scale_is_the_standard_deviation():
    rng = np.random.default_rng(0)
    data = [
        RunData(None, (3 * rng.standard_normal((40, 6, 6, 6))).astype(np.float16), None, None)
        for _ in range(3)
    ]
    mask = np.ones((6, 6, 6), bool)
    assert Frames.global_scale(data, mask) == pytest.approx(3, rel=0.05)
    assert Frames.global_scale(data, mask, 1) == Frames.global_scale(data, mask, 1)


@pytest.fixture
def dataset(tiny_bids_copy):
    return find_runs(tiny_bids_copy)


def grid_of(dataset):
    run = dataset.runs[0]
    return choose_grid([(load_bold(run).mask, run.affine)], 4.0, 2)


CONFIG = PreprocessConfig(voxel_size=4.0)


def test_cached_residuals_are_those_of_split(dataset, tmp_path):
    grid, run = grid_of(dataset), dataset.runs[0]
    data = load_run_data(run, grid, CONFIG, tmp_path / "cache")
    carrier, residual = split(load_bold(run), CONFIG.high_pass)
    expected = resample(residual, run.affine, grid.affine, grid.shape)
    assert data.frames.shape == (run.n_volumes, *grid.shape)
    np.testing.assert_allclose(
        np.moveaxis(data.frames, 0, 3)[grid.mask], expected[grid.mask], atol=0.02
    )
    assert (data.frames[:, ~grid.mask] == 0).all()
    assert np.median(data.mean[data.mean > 0]) == pytest.approx(1, abs=0.05)
    assert isinstance(data.frames, np.memmap)
    assert carrier.mask.any()


def test_the_cache_is_used_again_and_only_then(dataset, tmp_path):
    grid, run, cache = grid_of(dataset), dataset.runs[0], tmp_path / "cache"
    load_run_data(run, grid, CONFIG, cache)
    files = {p: p.stat().st_mtime_ns for p in cache.rglob("*.npy")}
    load_run_data(run, grid, CONFIG, cache)
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*.npy")} == files
    first = run_key(run, grid, CONFIG)
    assert run_key(run, grid, replace(CONFIG, high_pass=0.01)) != first
    smaller = grid.mask.copy()
    smaller[tuple(np.argwhere(smaller)[0])] = False
    assert run_key(run, replace(grid, mask=smaller), CONFIG) != first
    assert run_key(dataset.runs[1], grid, CONFIG) != first

    image = nib.load(run.bold)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 1.5 + 3, image.affine), run.bold)
    os.utime(run.bold, ns=(10**18, 10**18))
    assert run_key(run, grid, CONFIG) != first
    again = load_run_data(run, grid, CONFIG, cache)
    assert len(list(cache.iterdir())) == 2
    assert np.isfinite(again.frames).all()


def test_an_unfinished_cache_entry_is_made_anew(dataset, tmp_path):
    grid, run, cache = grid_of(dataset), dataset.runs[0], tmp_path / "cache"
    whole = load_run_data(run, grid, CONFIG, cache)
    frames = np.array(whole.frames)
    (cache / run_key(run, grid, CONFIG) / "frames.npy").unlink()
    np.testing.assert_array_equal(load_run_data(run, grid, CONFIG, cache).frames, frames)


@pytest.mark.parametrize("nprocs", [1, 2])
def test_a_run_that_cannot_be_read_is_reported_and_the_others_are_kept(dataset, tmp_path, nprocs):
    grid, runs = grid_of(dataset), dataset.runs[:3]
    content = runs[1].bold.read_bytes()
    runs[1].bold.write_bytes(content[: len(content) // 2])
    data, failed = prepare_runs(runs, grid, CONFIG, tmp_path / "cache", nprocs=nprocs)
    assert [d.run.label for d in data] == [runs[0].label, runs[2].label]
    assert list(failed) == [runs[1].bold]
    assert str(runs[1].bold) in failed[runs[1].bold]


def test_whole_volumes_keep_the_anatomy(dataset, tmp_path):
    grid, run = grid_of(dataset), dataset.runs[0]
    config = replace(CONFIG, normalisation="volume")
    data = load_run_data(run, grid, config, tmp_path / "cache")
    assert np.median(data.frames[:, grid.mask]) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match="normalisation"):
        replace(CONFIG, normalisation="z")
