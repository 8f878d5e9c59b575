"""Computed brain masks: one for all runs of a participant, whatever the images are like."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import brain_of, write_nifti

from fmrisynth.bids.brain_masks import compute_brain_mask
from fmrisynth.bids.images import load_bold, load_mask
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError

PATH = Path("bold.nii.gz")


def head(shape: tuple[int, int, int], background: float, seed: int = 0) -> np.ndarray:
    """A mean image: a brain of 1000, air of `background`."""
    rng = np.random.default_rng(seed)
    brain = brain_of(shape)
    return np.where(brain, rng.uniform(700, 1300, shape), background * rng.uniform(0.5, 1.5, shape))


@pytest.mark.parametrize("shape", [(8, 9, 8), (17, 20, 17), (40, 48, 40)])
@pytest.mark.parametrize("background", [0.0, 20.0, 150.0])
def test_the_brain_is_found(shape: tuple[int, int, int], background: float) -> None:
    means = [head(shape, background, seed) for seed in range(3)]
    varying = [mean > 0 for mean in means]
    mask = compute_brain_mask(means, varying, PATH)
    brain = brain_of(shape)
    dice = 2 * (mask & brain).sum() / (mask.sum() + brain.sum())
    assert dice > 0.9


def test_units_of_one_run_do_not_decide() -> None:
    means = [head((17, 20, 17), 20.0, seed) for seed in range(4)]
    mask = compute_brain_mask(means, [m > 0 for m in means], PATH)
    means[2] = means[2] * 1000
    np.testing.assert_array_equal(compute_brain_mask(means, [m > 0 for m in means], PATH), mask)


@pytest.mark.parametrize("image", [np.zeros((8, 9, 8)), np.full((8, 9, 8), 5.0)])
def test_no_brain(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="no brain is found"):
        compute_brain_mask([image], [np.zeros(image.shape, bool)], PATH)


def test_runs_of_a_participant_have_one_mask(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(runs=("1", "2"), n_volumes=12)
    for mask in root.rglob("*_mask.nii.gz"):
        mask.unlink()
    runs = [run for run in find_runs(root).runs if run.participant == "01"]
    assert len(runs) == 4
    assert all(len(run.siblings) == 4 for run in runs)
    masks = [load_mask(run) for run in runs]
    assert all((mask == masks[0]).all() for mask in masks)
    brain = brain_of(runs[0].shape)
    assert (masks[0] & brain).sum() / brain.sum() > 0.9
    assert load_bold(runs[0]).mask.sum() > 0.9 * brain.sum()


def test_runs_on_another_grid_are_no_siblings(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(participants=("01",), runs=("1", "2"), n_volumes=12)
    for mask in root.rglob("*_mask.nii.gz"):
        mask.unlink()
    bold = next(root.rglob("*task-wm_run-2*preproc_bold.nii.gz"))
    image = nib.load(bold)
    write_nifti(bold, image.get_fdata(dtype="f4")[:-1], image.affine, t_r=2.0)
    siblings = {run.label: len(run.siblings) for run in find_runs(root).runs}
    assert sorted(siblings.values()) == [1, 3, 3, 3]


def test_a_damaged_sibling_does_not_stop_the_others(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(participants=("01",), runs=("1", "2"), n_volumes=12)
    for mask in root.rglob("*_mask.nii.gz"):
        mask.unlink()
    runs = find_runs(root).runs
    content = runs[0].bold.read_bytes()
    runs[0].bold.write_bytes(content[: len(content) // 2])
    assert load_mask(runs[1]).any()
    shutil.rmtree(root)
