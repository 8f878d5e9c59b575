"""Tests of the cache: it holds the residuals of `split`, and is used again only where it fits."""

import os
import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.config.model import PreprocessConfig
from fmrisynth.preprocess.cache import Frames, RunData, load_run_data, prepare_runs, run_key
from fmrisynth.preprocess.carrier import split
from fmrisynth.preprocess.grid import choose_grid, resample


def stored(folder, frames):
    """A run with these volumes, in a file."""
    own = folder / str(len(list(folder.iterdir())))
    own.mkdir()
    np.save(own / "frames.npy", frames)
    return RunData(None, own)


BRAIN = np.ones((2, 2, 2), bool)


def constant_frames(folder, *lengths):
    """Runs whose volumes say which run and which frame they are."""
    runs = [
        np.array([np.full((2, 2, 2), 100 * r + t) for t in range(n)], np.float16)
        for r, n in enumerate(lengths)
    ]
    return [stored(folder, frames) for frames in runs]


def test_frames_are_found_across_runs(tmp_path):
    runs = constant_frames(tmp_path, 3, 5, 1, 4)
    frames = Frames(runs, 2.0, BRAIN, 2)
    assert len(frames) == 13
    expected = [0, 1, 2, 100, 101, 102, 103, 104, 200, 300, 301, 302, 303]
    order = np.random.default_rng(0).permutation(13)
    found = frames.frames(order)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0, 0, 0] * 2, np.array(expected)[order])
    with pytest.raises(IndexError):
        frames.frames(np.array([13]))


def test_no_run_is_kept_open(tmp_path):
    """Systems allow a process 1,024 open files; a study has more runs."""
    runs = constant_frames(tmp_path, *[3] * 60)
    before = len(os.listdir("/proc/self/fd"))
    frames = Frames(runs, 1.0, BRAIN, 2)
    assert frames.frames(np.arange(180)).shape == (180, 2, 2, 2)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_the_global_scale_is_the_standard_deviation(tmp_path):
    rng = np.random.default_rng(0)
    data = [
        stored(tmp_path, (3 * rng.standard_normal((40, 6, 6, 6))).astype(np.float16))
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


def test_prepared_runs_take_no_memory(dataset, tmp_path):
    """Each held three maps, and there may be thousands."""
    grid = grid_of(dataset)
    data = [load_run_data(run, grid, CONFIG, tmp_path / "cache") for run in dataset.runs]
    assert data[0].mean.nbytes == data[0].noise_sd.nbytes == 4 * grid.mask.size
    held = [len(pickle.dumps(one)) - len(pickle.dumps(one.run)) for one in data]
    assert max(held) < grid.mask.size


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


@pytest.mark.slow
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
