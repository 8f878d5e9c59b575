"""Tissues come from the participant's own maps, else from the template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_img
from support.bids_tree import write_nifti

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.tissues import find_tissue_maps
from fmrisynth.preprocess.tissues import tissue_masks


@pytest.fixture
def run(tiny_bids_copy: Path) -> Run:
    return find_runs(tiny_bids_copy).runs[0]


def write_maps(run: Run, stem: str) -> dict[str, np.ndarray]:
    maps = {}
    for tissue, where in (("CSF", np.s_[3, 3:6, 3:5]), ("WM", np.s_[5:7, 3:6, 3:6])):
        maps[tissue] = np.zeros(run.shape, bool)
        maps[tissue][where] = True
        path = run.bold.parents[1] / "anat" / stem.format(tissue)
        write_nifti(path, maps[tissue].astype("f4"), run.affine)
    return maps


@pytest.mark.parametrize(
    "stem",
    [
        "sub-01_space-MNI152NLin2009cAsym_label-{}_probseg.nii.gz",
        "sub-01_space-MNI152NLin2009cAsym_res-2_label-{}_probseg.nii.gz",
        "sub-01_T1w_space-MNI152NLin2009cAsym_class-{}_probtissue.nii.gz",
    ],
)
def test_own_maps(run: Run, stem: str) -> None:
    maps = write_maps(run, stem)
    masks = tissue_masks(run, np.ones(run.shape, bool))
    for tissue in maps:
        np.testing.assert_array_equal(masks[tissue], maps[tissue])


@pytest.mark.parametrize(
    "stem", ["sub-01_label-{}_probseg.nii.gz", "sub-01_space-MNI305_label-{}_probseg.nii.gz"]
)
def test_maps_of_another_space_are_not_taken(run: Run, stem: str) -> None:
    write_maps(run, stem)
    assert find_tissue_maps(run) == {}


@pytest.mark.parametrize("size", [3.0, 6.0, 10.0])
def test_the_template(run: Run, size: float) -> None:
    brain = load_mni152_brain_mask(2)
    coarse = resample_img(
        nib.Nifti1Image(np.asarray(brain.dataobj, dtype="f4"), brain.affine),
        target_affine=np.diag([size] * 3), copy_header=True, force_resample=True,
    )  # fmt: skip
    mask = np.asarray(coarse.dataobj) > 0.5
    there = replace(run, shape=mask.shape, affine=coarse.affine)
    masks = tissue_masks(there, mask)
    assert set(masks) == {"CSF", "WM"}
    assert not (masks["CSF"] & masks["WM"]).any()
    volume = {tissue: chosen.sum() * size**3 / 1000 for tissue, chosen in masks.items()}  # ml
    assert 5 < volume["CSF"] < 60
    assert 10 < volume["WM"] < 700
    # ventricles lie near the middle of the head
    centre = nib.affines.apply_affine(coarse.affine, np.argwhere(masks["CSF"])).mean(axis=0)
    assert np.abs(centre - (0, -20, 12)).max() < 20


def test_nothing_is_known_elsewhere(run: Run) -> None:
    mask = np.ones(run.shape, bool)
    assert tissue_masks(replace(run, space="OASIS30ANTs"), mask) == {}
    far = run.affine.copy()
    far[:3, 3] += 500
    assert tissue_masks(replace(run, affine=far), mask) == {}
