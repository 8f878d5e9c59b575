"""Confounds are computed as fMRIPrep does, and nilearn takes them as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy
from support.bids_tree import write_nifti
from support.tiny_model import make_run

from fmrisynth.bids.confounds import MOTION
from fmrisynth.model.motion import MotionPrior
from fmrisynth.synthesis.confounds import (
    confounds_of,
    framewise_displacement,
    measure_confounds,
)
from fmrisynth.synthesis.motion import motion_like, motion_of

SHAPE, T_R, N = (9, 10, 9), 2.0, 120
MASK = np.zeros(SHAPE, bool)
MASK[1:-1, 1:-1, 1:-1] = True
CSF = np.zeros(SHAPE, bool)
CSF[3:5, 4:7, 4:6] = True
WM = np.zeros(SHAPE, bool)
WM[5:7, 2:8, 3:6] = True
TISSUES = {"CSF": CSF, "WM": WM}


def volumes(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*SHAPE, N))
    for t in range(1, N):
        noise[..., t] += 0.5 * noise[..., t - 1]
    shared = rng.standard_normal((3, N)).cumsum(axis=1)
    data = 900 + 6 * noise
    data[CSF] += 8 * shared[0] + 5 * shared[1]
    data[WM] += 6 * shared[2]
    return (data * MASK[..., None]).astype("f4")


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, dict]:
    motion = MotionPrior().draw(N, 0, 0)
    return measure_confounds(volumes(), MASK, TISSUES, motion, T_R)


def test_columns_are_fmripreps(measured) -> None:
    table, sidecar = measured
    for name in ("csf", "white_matter", "global_signal", *MOTION):
        for ending in ("", "_derivative1", "_power2", "_derivative1_power2"):
            assert name + ending in table
    assert {"dvars", "std_dvars", "rmsd", "framewise_displacement", "cosine00"} <= {*table}
    assert {"a_comp_cor_00", "c_comp_cor_00", "w_comp_cor_00"} <= {*table}
    assert set(sidecar) == set(table.columns)
    assert len(table) == N
    assert all(table[name].nunique() > 1 for name in table)


def test_signals_are_those_of_the_run(measured) -> None:
    table, _ = measured
    data = volumes()
    np.testing.assert_allclose(table["global_signal"], data[MASK].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["csf"], data[CSF].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["csf_power2"], table["csf"] ** 2)
    np.testing.assert_allclose(table["trans_x_derivative1"][1:], np.diff(table["trans_x"]))
    assert np.isnan(table["rot_z_derivative1_power2"][0])


def test_dvars_is_one_where_the_noise_is_what_it_expects() -> None:
    """Standardised DVARS of stationary AR(1) noise averages 1, whatever the intensities."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((*SHAPE, 400))
    for t in range(1, 400):
        noise[..., t] = 0.4 * noise[..., t - 1] + 0.84**0.5 * noise[..., t]
    motion = MotionPrior().draw(400, 0, 0)
    for unit in (1.0, 1e4):
        data = ((500 + 5 * noise) * unit).astype("f4")
        table, _ = measure_confounds(data, MASK, {}, motion, T_R)
        assert table["std_dvars"].mean() == pytest.approx(1, abs=0.05)
        expected = 1000 / 500 * 5 * (2 * (1 - 0.4)) ** 0.5
        assert table["dvars"].mean() == pytest.approx(expected, rel=0.05)


def test_displacements_of_known_motion() -> None:
    motion = np.zeros((5, 6))
    motion[2, 0] = 1.0  # 1 mm there and back
    motion[4, 5] = 0.01  # rad
    np.testing.assert_allclose(framewise_displacement(motion)[1:], [0, 1, 1, 0.5])
    table, _ = measure_confounds(volumes()[..., :5], MASK, {}, motion, T_R)
    # R = 80 mm: √(R²/5 · tr AᵀA), with tr AᵀA of a small rotation 2 · angle²
    expected = [0, 1, 1, 80 * 0.01 * (2 / 5) ** 0.5]
    np.testing.assert_allclose(table["rmsd"][1:], expected, atol=1e-4)


def test_components_are_orthonormal_and_explain_half(measured) -> None:
    table, sidecar = measured
    names = [name for name in table if name.startswith("c_comp_cor")]
    components = table[names].to_numpy()
    np.testing.assert_allclose(components.T @ components, np.eye(len(names)), atol=1e-6)
    explained = [sidecar[name]["CumulativeVarianceExplained"] for name in names]
    assert explained == sorted(explained)
    assert explained[-1] >= 0.5
    assert len(explained) == 1 or explained[-2] < 0.5
    cosines = table[[name for name in table if name.startswith("cosine")]].to_numpy()
    assert np.abs(cosines.T @ components).max() < 1e-6


def test_moved_volumes_are_named() -> None:
    motion = MotionPrior().draw(N, 0, 0)
    motion[60:, 1] += 2.0
    table, _ = measure_confounds(volumes(), MASK, TISSUES, motion, T_R)
    outliers = table[[name for name in table if name.startswith("motion_outlier")]]
    assert outliers.iloc[60].sum() == 1
    assert (outliers.sum() == 1).all()


# Motion


def spiky() -> np.ndarray:
    rng = np.random.default_rng(5)
    steps = rng.standard_normal((200, 6)) * [0.02, 0.02, 0.05, 4e-4, 4e-4, 4e-4]
    steps[[50, 51, 130]] *= 20
    return np.cumsum(steps, axis=0)


def test_motion_moves_as_the_source_does_at_other_times() -> None:
    source = spiky()
    drawn = motion_like(source, T_R, 1)
    own, real = framewise_displacement(drawn)[1:], framewise_displacement(source)[1:]
    assert own.mean() == pytest.approx(real.mean(), rel=0.1)
    assert np.sort(own)[-3:].mean() == pytest.approx(np.sort(real)[-3:].mean(), rel=0.5)
    assert abs(np.corrcoef(own, real)[0, 1]) < 0.5
    assert not np.allclose(drawn, motion_like(source, T_R, 2))
    np.testing.assert_array_equal(drawn, motion_like(source, T_R, 1))


def test_whose_motion_a_run_has(tmp_path: Path) -> None:
    """A source that moves like no other: only runs with their own carrier have any of it."""
    table = tmp_path / "confounds.tsv"
    source = 50 * spiky()
    pd.DataFrame(source, columns=list(MOTION)).to_csv(table, sep="\t", index=False)
    run = make_run(n_volumes=len(source), confounds=table)
    size = {
        own: np.nanmean(framewise_displacement(motion_of(run, MotionPrior(), (1, 2), own=own)))
        for own in (True, False)
    }
    assert size[True] == pytest.approx(np.nanmean(framewise_displacement(source)), rel=0.1)
    assert size[False] < size[True] / 20
    constant = np.zeros((len(source), 6))
    pd.DataFrame(constant, columns=list(MOTION)).to_csv(table, sep="\t", index=False)
    assert (np.ptp(motion_of(run, MotionPrior(), (1, 2), own=True), axis=0) > 0).all()


# nilearn


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A run in the template's space with its table, as fMRIPrep names them."""
    source = tmp_path / "source" / "sub-01"
    run = make_run(
        bold=source / "func" / "sub-01_task-motor_bold.nii.gz",
        space="MNI152NLin2009cAsym",
        shape=SHAPE,
    )
    for tissue, where in TISSUES.items():
        name = f"sub-01_space-MNI152NLin2009cAsym_label-{tissue}_probseg.nii.gz"
        write_nifti(source / "anat" / name, where.astype("f4"), run.affine)
    content, sidecar = confounds_of(run, volumes(), MASK, MotionPrior().draw(N, 0, 0), own=True)
    folder = tmp_path / "sub-01" / "func"
    folder.mkdir(parents=True)
    stem = folder / "sub-01_task-motor"
    Path(f"{stem}_desc-confounds_timeseries.tsv").write_text(content)
    Path(f"{stem}_desc-confounds_timeseries.json").write_text(json.dumps(sidecar))
    image = Path(f"{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
    write_nifti(image, volumes(), run.affine, t_r=run.t_r)
    assert content.split("\n")[1].count("n/a") > 5
    assert pd.read_csv(StringIO(content), sep="\t")["csf"].notna().all()
    return image


@pytest.mark.parametrize("strategy", ["simple", "scrubbing", "compcor"])
def test_nilearns_strategies_take_them(beside: Path, strategy: str) -> None:
    table, _ = load_confounds_strategy(str(beside), denoise_strategy=strategy)
    assert len(table) == N
    assert np.isfinite(table.to_numpy()).all()
    assert any(name.startswith("a_comp_cor" if strategy == "compcor" else "csf") for name in table)


@pytest.mark.parametrize("compcor", ["anat_combined", "anat_separated"])
def test_nilearn_finds_the_components(beside: Path, compcor: str) -> None:
    table, _ = load_confounds(
        str(beside), strategy=("high_pass", "compcor"), compcor=compcor, n_compcor="all"
    )
    assert any("comp_cor" in name for name in table)


def test_nobodys_tissues_are_the_templates(beside: Path, tmp_path: Path) -> None:
    """The table is the same where the participant's maps are not there, and another with them."""
    source = beside.parents[2] / "source" / "sub-01" / "func" / "sub-01_task-motor_bold.nii.gz"
    run = make_run(bold=source, space="MNI152NLin2009cAsym", shape=SHAPE)
    elsewhere = replace(run, bold=tmp_path / "none" / "sub-01" / "func" / source.name)
    motion = MotionPrior().draw(N, 0, 0)
    of_nobody, own, without_maps = (
        confounds_of(run, volumes(), MASK, motion, own=own)
        for run, own in ((run, False), (run, True), (elsewhere, False))
    )
    assert of_nobody == without_maps
    assert of_nobody != own
