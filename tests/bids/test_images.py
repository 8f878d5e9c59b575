"""Odd but valid images are loaded exactly; damaged ones are refused with a reason."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.bids_tree import write_nifti

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.headers import read_header, require_bold
from fmrisynth.bids.images import Bold, load_bold, load_mask
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError


@pytest.fixture
def run(tiny_bids_copy: Path) -> Run:
    return find_runs(tiny_bids_copy).runs[0]


def rewritten(run: Run, change: Callable[[np.ndarray], None]) -> Run:
    image = nib.load(run.bold)
    data = image.get_fdata(dtype="f4")
    change(data)
    write_nifti(run.bold, data, image.affine, t_r=run.t_r)
    return run


def test_data_mask_and_affine_are_those_of_the_files(run: Run) -> None:
    bold = load_bold(run)
    np.testing.assert_array_equal(bold.data, nib.load(run.bold).get_fdata(dtype="f4"))
    np.testing.assert_array_equal(bold.mask, nib.load(run.mask).get_fdata() > 0)
    np.testing.assert_array_equal(bold.affine, nib.load(run.bold).affine)
    assert (bold.data.dtype, bold.t_r) == (np.float32, 2.0)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_integer_scaling_is_applied(run: Run, extension: str, order: str) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(-3000, 3000, (*run.shape, 20)).astype(f"{order}i2")
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    image = nib.Nifti1Image(stored, run.affine, header)
    image.header.set_slope_inter(0.25, 1000)
    path = run.bold.with_name("scaled" + extension)
    nib.save(image, path)
    raw = path.read_bytes() if extension == ".nii" else gzip.decompress(path.read_bytes())
    assert np.frombuffer(raw[112:116], f"{order}f4")[0] == 0.25  # stored as scl_slope
    bold = load_bold(replace(run, bold=path))
    np.testing.assert_allclose(bold.data, stored * 0.25 + 1000, rtol=1e-6)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([-4.0, 4, 4, 1]),
        np.array([[3.9, 0.5, 0.1, -10], [-0.5, 3.9, 0.3, 5], [0, -0.3, 3.9, 7], [0, 0, 0, 1.0]]),
        np.array([[0, 4.0, 0, 1], [0, 0, -3, 2], [2, 0, 0, 3], [0, 0, 0, 1]]),
    ],
)
def test_oblique_and_left_handed_affines_pass_untouched(run: Run, affine: np.ndarray) -> None:
    data = nib.load(run.bold).get_fdata(dtype="f4")
    write_nifti(run.bold, data, affine, t_r=2.0)
    write_nifti(run.mask, nib.load(run.mask).get_fdata().astype("u1"), affine)
    header = read_header(run.bold)
    bold = load_bold(replace(run, affine=header.affine))
    np.testing.assert_allclose(bold.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(bold.data, data)


def test_without_a_mask_one_is_computed(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(participants=("01",), tasks=("wm",), shape=(20, 22, 20), n_volumes=6)
    run = find_runs(root).runs[0]
    expected = load_bold(run).mask
    computed = load_bold(replace(run, mask=None)).mask
    shared = (expected & computed).sum() / expected.sum()
    assert shared > 0.8
    assert not (computed & ~expected).any()


def test_nonfinite_outside_the_mask_becomes_zero(run: Run) -> None:
    def change(data: np.ndarray) -> None:
        data[0, 0, 0] = np.nan
        data[0, 0, 1, 3] = np.inf

    bold = load_bold(rewritten(run, change))
    assert np.isfinite(bold.data).all()
    assert not bold.data[0, 0, :2].any()


def test_few_nonfinite_and_constant_voxels_leave_the_mask(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def change(data: np.ndarray) -> None:
        data[4, 4, 4, 7] = np.nan
        data[4, 4, 5] = 1000

    with caplog.at_level(logging.INFO):
        bold = load_bold(rewritten(run, change))
    before = nib.load(run.mask).get_fdata() > 0
    assert before[4, 4, 4]
    assert before[4, 4, 5]
    before[4, 4, 4:6] = False
    np.testing.assert_array_equal(bold.mask, before)
    assert "1 brain voxels with NaN or Inf" in caplog.text
    assert "1 constant brain voxels" in caplog.text


def test_mask_on_another_grid_is_resampled(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    mask = nib.load(run.mask)
    fine = np.repeat(np.repeat(np.repeat(mask.get_fdata() > 0, 2, 0), 2, 1), 2, 2)
    affine = mask.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= 1  # corners of the coarse voxels stay where they were
    expected = load_mask(run)
    write_nifti(run.mask, fine.astype("u1"), affine)
    np.testing.assert_array_equal(load_mask(run), expected)
    assert "resampled" in caplog.text


def cut(run: Run) -> None:
    content = run.bold.read_bytes()
    run.bold.write_bytes(content[: len(content) // 2])


def flip(run: Run) -> None:
    content = bytearray(run.bold.read_bytes())
    content[len(content) // 2] ^= 0x10
    run.bold.write_bytes(bytes(content))


def wrong_checksum(run: Run) -> None:
    content = bytearray(run.bold.read_bytes())
    content[-6] ^= 0x01
    run.bold.write_bytes(bytes(content))


def too_many_nan(run: Run) -> None:
    rewritten(run, lambda data: data.__setitem__((4, slice(None)), np.nan))


def all_constant(run: Run) -> None:
    rewritten(run, lambda data: data.__setitem__(slice(None), 5))


def empty_mask(run: Run) -> None:
    write_nifti(run.mask, np.zeros(run.shape, "u1"), run.affine)


def mask_elsewhere(run: Run) -> None:
    affine = run.affine.copy()
    affine[:3, 3] += 500
    write_nifti(run.mask, nib.load(run.mask).get_fdata().astype("u1"), affine)


def mask_4d(run: Run) -> None:
    write_nifti(run.mask, np.ones((*run.shape, 3), "u1"), run.affine)


def mask_cut(run: Run) -> None:
    content = gzip.decompress(run.mask.read_bytes())
    run.mask.write_bytes(gzip.compress(content[:400]))


def complex_voxels(run: Run) -> None:
    write_nifti(run.bold, np.ones((*run.shape, 20), "c8"), run.affine, t_r=2.0)


def other_shape(run: Run) -> None:
    write_nifti(run.bold, np.ones((*run.shape, 7), "f4"), run.affine, t_r=2.0)


def gone(run: Run) -> None:
    run.bold.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "damaged|truncated"),
        (flip, "damaged"),
        (wrong_checksum, "damaged.*CRC"),
        (too_many_nan, "brain voxels are NaN or Inf.*1%"),
        (all_constant, "none of the .* brain voxels varies"),
        (empty_mask, "empty mask"),
        (mask_elsewhere, "another grid.*only 0%"),
        (mask_4d, "is 4D; a brain mask has 3"),
        (mask_cut, "truncated: its header promises"),
        (complex_voxels, "real numbers are expected"),
        (other_shape, "when the dataset was searched"),
        (gone, "does not exist"),
    ],
)
def test_damaged_images(run: Run, damage: Callable[[Run], None], message: str) -> None:
    damage(run)
    with pytest.raises(DataError, match=message):
        load_bold(run)


def test_no_brain_to_be_found(run: Run) -> None:
    rewritten(run, lambda data: data.__setitem__(slice(None), 0))
    with pytest.raises(DataError, match="mask"):
        load_bold(replace(run, mask=None))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 347), content=st.binary(min_size=1, max_size=8))
@example(position=42, content=b"\x02")  # another shape
def test_any_header_gives_an_image_or_a_data_error(run: Run, position: int, content: bytes) -> None:
    # a name for each content, since computed masks are remembered by their images' names
    path = run.bold.with_name(f"fuzzed-{position}-{content.hex()}.nii")
    original = gzip.decompress(run.bold.read_bytes())
    path.write_bytes(original[:position] + content + original[position + len(content) :])
    message = None
    try:
        header = read_header(path)
        require_bold(header, path)
        loaded = load_bold(
            replace(
                run,
                bold=path,
                mask=None,
                shape=header.shape[:3],
                n_volumes=header.shape[3],
                affine=header.affine,
            )
        )
    except DataError as error:
        message = str(error)
    path.unlink()
    assert path.name in message if message else loaded.mask.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((2, 2, 2), "f4")}, "4D float32"),
        ({"data": np.zeros((2, 2, 2, 3))}, "4D float32"),
        ({"mask": np.ones((2, 2, 3), bool)}, "mask must be bool"),
        ({"mask": np.ones((2, 2, 2))}, "mask must be bool"),
        ({"mask": np.zeros((2, 2, 2), bool)}, "empty"),
        ({"affine": np.eye(3)}, "affine"),
        ({"t_r": 0.0}, "t_r"),
        ({"data": np.full((2, 2, 2, 3), np.nan, "f4")}, "not finite"),
    ],
)
def test_bold_is_checked_at_construction(change: dict[str, object], message: str) -> None:
    good = Bold(np.zeros((2, 2, 2, 3), "f4"), np.eye(4), np.ones((2, 2, 2), bool), 2.0)
    with pytest.raises(ValueError, match=message):
        replace(good, **change)
