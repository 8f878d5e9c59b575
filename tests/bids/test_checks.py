"""Volumes that are outliers are found and replaced, and images without their mean are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import write_nifti

from fmrisynth.bids.checks import find_outlying_volumes, interpolate_volumes, require_mean
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError
from fmrisynth.preprocess.carrier import split

SHAPE = (6, 6, 6)
MASK = np.ones(SHAPE, bool)
PATH = Path("bold.nii.gz")
NOTHING = np.zeros(60, bool)


def series(seed: int = 0, sd: float = 10.0) -> np.ndarray:
    """Heavy-tailed noise, as real runs have it, on a mean of 1000."""
    rng = np.random.default_rng(seed)
    intensity = np.exp(0.3 * rng.standard_normal(60))
    return (1000 + sd * intensity * rng.standard_t(5, (*SHAPE, 60))).astype("f4")


@pytest.mark.parametrize("seed", range(5))
def test_usable_runs_have_no_outlying_volumes(seed: int) -> None:
    assert not find_outlying_volumes(series(seed), MASK, NOTHING).any()


@pytest.mark.parametrize("drift", [-0.04, 0.04])
def test_slow_drift_is_no_outlier(drift: float) -> None:
    data = series() * (1 + drift * np.linspace(-0.5, 0.5, 60, dtype="f4"))
    assert not find_outlying_volumes(data, MASK, NOTHING).any()


SPIKES = {
    "before the steady state": {0: 1.5, 1: 1.2, 2: 1.06},
    "a bright volume": {31: 1.4},
    "a dark volume": {31: 0.6},
    "an empty volume": {59: 0.0},
    "several": {7: 1.1, 8: 0.8, 40: 1.3},
}


@pytest.mark.parametrize("name", SPIKES)
def test_outlying_volumes_are_found(name: str) -> None:
    data = series()
    for index, factor in SPIKES[name].items():
        data[..., index] *= factor
    outlying = find_outlying_volumes(data, MASK, NOTHING)
    assert set(np.flatnonzero(outlying)) == set(SPIKES[name])


def test_a_spike_in_some_slices_is_found() -> None:
    data = series()
    data[:, :, 2, 20] *= 2.5
    data[:, :, 3, 20] *= 0.2  # the mean over the brain hardly moves
    outlying = find_outlying_volumes(data, MASK, NOTHING)
    assert set(np.flatnonzero(outlying)) == {20}


def test_known_volumes_are_outlying_whatever_they_hold() -> None:
    known = NOTHING.copy()
    known[[3, 9]] = True
    assert set(np.flatnonzero(find_outlying_volumes(series(), MASK, known))) == {3, 9}


def test_interpolation_lies_between_the_volumes_that_are_kept() -> None:
    data = np.arange(10, dtype="f4") * np.ones((2, 2, 2, 1), "f4")
    outlying = np.zeros(10, bool)
    outlying[[0, 1, 4, 5, 9]] = True
    outlying[5] = False
    data[..., outlying] = 1e6
    interpolate_volumes(data, outlying, PATH)
    np.testing.assert_allclose(data[0, 0, 0], [2, 2, 2, 3, 4, 5, 6, 7, 8, 8])
    with pytest.raises(DataError, match="5 of 10 volumes are outlying"):
        interpolate_volumes(data, np.arange(10) < 5, PATH)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x - x.mean(-1, keepdims=True),
        lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True),
        lambda x: x / x.mean(-1, keepdims=True) * 100 - 100,
    ],
    ids=["demeaned", "z-scored", "percent signal change"],
)
def test_images_without_their_mean_are_refused(change, tmp_path: Path) -> None:
    path = tmp_path / "sub-01_task-motor_space-MNI_desc-preproc_bold.nii.gz"
    with pytest.raises(DataError, match=r"denoised, z-scored or detrended.*before denoising\.$"):
        require_mean(change(series()), MASK, path)
    (tmp_path / "sub-01_task-motor_space-MNI_boldref.nii.gz").touch()
    with pytest.raises(DataError, match=r"add the mean of sub-01_task-motor_space-MNI_boldref"):
        require_mean(change(series()), MASK, path)
    require_mean(change(series()) + 100, MASK, path)


@pytest.fixture
def run(tiny_bids_copy: Path) -> Run:
    return find_runs(tiny_bids_copy).runs[0]


def changed(run: Run, change) -> Run:
    image = nib.load(run.bold)
    data = image.get_fdata(dtype="f4").copy()
    change(data)
    write_nifti(run.bold, data, image.affine, t_r=run.t_r)
    return run


def first_volumes(data: np.ndarray) -> None:
    for index, factor in enumerate((1.5, 1.2, 1.06)):
        data[..., index] *= factor


def restless(data: np.ndarray) -> None:
    """About 5 SD in one volume, up on one side of the brain and down on the other."""
    data[:4, ..., 7] *= 1.04
    data[4:, ..., 7] *= 0.96


def test_what_is_left_out_changes_neither_mean_nor_noise(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before, _ = split(load_bold(run), 0.01)
    bold = load_bold(changed(run, first_volumes))
    assert bold.outlying is not None
    assert set(np.flatnonzero(bold.outlying)) == {0, 1, 2}
    assert "outlying volumes are left out and interpolated: 0, 1, 2" in caplog.text
    after, _ = split(bold, 0.01)
    inside = before.mask & after.mask
    np.testing.assert_allclose(after.mean[inside], before.mean[inside], rtol=0.01)
    ratio = np.median(after.noise_sd[inside] / before.noise_sd[inside])
    assert ratio == pytest.approx(1, abs=0.1)


def test_a_suspect_volume_needs_a_smaller_difference() -> None:
    data = series()
    data[:, :, :3, 20] += 60  # about 5 SD in half of the brain, and the same less in the other
    data[:, :, 3:, 20] -= 60
    suspect = NOTHING.copy()
    suspect[[10, 20]] = True
    assert not find_outlying_volumes(data, MASK, NOTHING).any()
    outlying = find_outlying_volumes(data, MASK, NOTHING, suspect)
    assert set(np.flatnonzero(outlying)) == {20}


def test_confounds_name_outlying_volumes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    table = np.zeros((run.n_volumes, 3), int)
    table[0, 0] = table[7, 1] = 1
    rows = [
        "non_steady_state_outlier00\tmotion_outlier00\tcsf",
        *("\t".join(map(str, r)) for r in table),
    ]
    path = run.bold.with_name("sub-01_task-motor_desc-confounds_timeseries.tsv")
    path.write_text("\n".join(rows) + "\n")
    named = replace(changed(run, restless), confounds=path)
    outlying = load_bold(named).outlying
    assert outlying is not None
    assert set(np.flatnonzero(outlying)) == {0, 7}
    path.write_text("csf\n1\n")  # of another run
    assert load_bold(named).outlying is None
    assert "1 rows; the run has 20 volumes" in caplog.text
