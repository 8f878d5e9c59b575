"""What is read of a run: a run that cannot be used is named with its reason, and no other is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import FUNC, MOTOR, write_nifti

from fmrisynth.bids.search import find_runs
from fmrisynth.errors import (
    DataError,
)

# Orientation


def _without_codes(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256] = b"\0\0\0\0"
    path.write_bytes(gzip.compress(bytes(raw), 1))


def test_an_image_without_orientation_is_refused(tiny_bids_copy: Path) -> None:
    bold = tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz"
    mask = bold.with_name(bold.name.replace("preproc_bold", "brain_mask"))
    affine = nib.load(bold).affine
    _without_codes(bold)
    run = find_runs(tiny_bids_copy).runs[0]  # the mask still knows
    np.testing.assert_array_equal(run.affine, affine)
    _without_codes(mask)
    ((path, reason),) = find_runs(tiny_bids_copy).skipped
    assert path == bold.resolve()
    assert "no orientation in its header (qform_code and sform_code are 0)" in reason
    reference = bold.with_name(bold.name.replace("desc-preproc_bold", "boldref"))
    write_nifti(reference, np.ones((8, 9, 8), "f4"), affine)
    np.testing.assert_array_equal(find_runs(tiny_bids_copy).runs[0].affine, affine)


def _sidecar(**content: object) -> Callable[[Path], None]:
    return lambda bold: bold.with_name(f"{MOTOR}.json").write_text(json.dumps(content)) and None


def _image(shape: tuple[int, ...], t_r: float | None = 2.0) -> Callable[[Path], None]:
    def damage(bold: Path) -> None:
        write_nifti(bold, np.ones(shape, "f4"), np.diag([4.0, 4, 4, 1]), t_r=None)
        if t_r is not None:
            image = nib.load(bold)
            data = np.asarray(image.dataobj)
            write_nifti(bold, data, image.affine, t_r=t_r)

    return damage


def _header_bytes(offset: int, content: bytes) -> Callable[[Path], None]:
    def damage(bold: Path) -> None:
        raw = bytearray(gzip.decompress(bold.read_bytes()))
        raw[offset : offset + len(content)] = content
        bold.write_bytes(gzip.compress(bytes(raw), 1))

    return damage


def _broken_link(bold: Path) -> None:
    bold.unlink()
    bold.symlink_to("../.git/annex/objects/x")


def _wrong_label(bold: Path) -> None:
    bold.rename(bold.with_name(bold.name.replace("task-motor", "task-mo.tor")))


def _wrong_folder(bold: Path) -> None:
    bold.rename(bold.with_name(bold.name.replace("sub-01", "sub-02")))


def _mask(content: bytes | None) -> Callable[[Path], None]:
    def damage(bold: Path) -> None:
        mask = bold.with_name(bold.name.replace("preproc_bold", "brain_mask"))
        mask.unlink()
        if content is None:
            mask.symlink_to("nowhere")
        else:
            mask.write_bytes(content)

    return damage


BAD_RUNS = {
    "zero bytes": (lambda bold: bold.write_bytes(b""), r"empty \(0 bytes\)"),
    "not gzip": (lambda bold: bold.write_bytes(b"no image" * 99), "no readable NIfTI header"),
    "cut header": (
        lambda bold: bold.write_bytes(bold.read_bytes()[:40]),
        "no readable NIfTI header",
    ),
    "git-annex link": (_broken_link, "datalad get"),
    "git-annex pointer": (
        lambda bold: bold.write_text("/annex/objects/MD5E-s1234--0123456789abcdef.nii.gz\n"),
        "git-annex pointer.*datalad get",
    ),
    "link that git stored as text": (
        lambda bold: bold.write_text("../../.git/annex/objects/x/y/MD5E-s1234/MD5E-s1234"),
        "git-annex pointer.*datalad get",
    ),
    "Git LFS pointer": (
        lambda bold: bold.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
        ),
        "Git LFS pointer.*git lfs pull",
    ),
    "3D": (_image((8, 9, 8), None), "is 3D"),
    "5D": (_image((4, 4, 4, 3, 2)), "is 5D"),
    "one volume": (_image((8, 9, 8, 1)), "one volume"),
    "flat": (_image((8, 9, 1, 5)), "2 voxels or more"),
    "negative dimension": (_header_bytes(42, b"\xff\xff"), "NIfTI header|impossible shape"),
    "zero dimension": (_header_bytes(42, b"\x00\x00"), "NIfTI header|impossible shape"),
    "huge dimension": (_header_bytes(42, b"\xff\x7f"), "impossible shape"),
    "singular affine": (_header_bytes(280, b"\0" * 48), "affine"),
    "NaN affine": (_header_bytes(280, b"\0\0\xc0\x7f"), "affine"),
    "unknown data type": (_header_bytes(70, b"\x39\x05"), "NIfTI header"),
    "TR 0": (_sidecar(RepetitionTime=0), "positive number of seconds"),
    "TR negative": (_sidecar(RepetitionTime=-2), "positive number of seconds"),
    "TR in ms": (_sidecar(RepetitionTime=2000), r"milliseconds.*\(2\?\)"),
    "TR too short": (_sidecar(RepetitionTime=0.002), "that fast"),
    "TR text": (_sidecar(RepetitionTime="2"), "a number in s is expected"),
    "TR true": (_sidecar(RepetitionTime=True), "a number in s is expected"),
    "TR NaN": (_sidecar(RepetitionTime=float("nan")), "positive number of seconds"),
    "TR of sidecar and header differ": (
        _sidecar(RepetitionTime=2.5),
        "2.5 s in its sidecar and 2 s in its header",
    ),
    "sidecar no JSON": (lambda bold: bold.with_name(f"{MOTOR}.json").write_text("{"), "JSON"),
    "sidecar a list": (lambda bold: bold.with_name(f"{MOTOR}.json").write_text("[]"), "an object"),
    "odd label": (_wrong_label, "may hold only letters and digits"),
    "wrong folder": (_wrong_folder, "belongs in the folder sub-02/func"),
    "mask is a broken link": (_mask(None), "datalad get"),
    "mask is empty": (_mask(b""), r"empty \(0 bytes\)"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_one_bad_run_is_reported_and_the_others_are_found(tiny_bids_copy: Path, case: str) -> None:
    damage, message = BAD_RUNS[case]
    damage(tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz")
    dataset = find_runs(tiny_bids_copy)
    assert len(dataset.runs) == 5
    assert len(dataset.skipped) == 1
    path, reason = dataset.skipped[0]
    assert "sub-0" in path.name
    with pytest.raises(DataError, match=message):
        raise DataError(reason)


def test_missing_repetition_time(tiny_bids_copy: Path) -> None:
    for sidecar in tiny_bids_copy.rglob("*_bold.json"):
        sidecar.write_text("{}")
    assert find_runs(tiny_bids_copy).runs[0].t_r == 2.0  # from the header
    bold = tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz"
    _header_bytes(92, b"\0\0\0\0")(bold)
    path, reason = find_runs(tiny_bids_copy).skipped[0]
    assert path == bold.resolve()
    assert "no repetition time" in reason
    (bold.with_name(f"{MOTOR}.json")).write_text('{"VolumeTiming": [0, 1, 5]}')
    assert "irregular" in find_runs(tiny_bids_copy).skipped[0][1]


@pytest.mark.parametrize(("stored", "unit"), [(2000.0, "msec"), (2000.0, "sec"), (1.0, "sec")])
def test_harmless_header_repetition_times(tiny_bids_copy: Path, stored: float, unit: str) -> None:
    bold = tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz"
    image = nib.load(bold)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = stored
    nib.save(image, bold)
    assert find_runs(tiny_bids_copy).runs[0].t_r == 2.0


def test_all_runs_bad(tiny_bids_copy: Path) -> None:
    for bold in tiny_bids_copy.rglob("*preproc_bold.nii.gz"):
        bold.write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)none of the 6 .*0 bytes.*and 3 more"):
        find_runs(tiny_bids_copy)
