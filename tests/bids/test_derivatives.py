"""Synthetic runs on disk are complete or absent, have the same bytes, and are valid BIDS."""

from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import SPACE, make_bids
from support.validator import validator_issues

from fmrisynth.bids import nifti
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import write_dataset_files, write_participants
from fmrisynth.bids.derivatives import (
    find_synthetic_runs,
    is_finished,
    synthetic_entities,
    write_synthetic_run,
)
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError, InputOutputError, OutputError

PROVENANCE = {"ModelHash": "abc", "ParticipantRole": "training", "RandomSeed": 3}


@pytest.fixture
def dataset(tiny_bids: Path) -> Dataset:
    return find_runs(tiny_bids)


def write_all(dataset: Dataset, out: Path, n_samples: int = 1) -> None:
    links = write_dataset_files(out, dataset.root, dataset.derivatives)
    for run in dataset.runs:
        bold = load_bold(run)
        for sample in range(1, n_samples + 1):
            write_synthetic_run(
                out,
                run,
                bold.data,
                bold.mask,
                provenance=PROVENANCE,
                sample=sample,
                n_samples=n_samples,
                sources=links,
            )
    write_participants(out, {run.participant: "training" for run in dataset.runs})


def test_written_runs_are_found_again(dataset: Dataset, tmp_path: Path) -> None:
    write_all(dataset, tmp_path)
    found = find_synthetic_runs(tmp_path)
    assert [run.label for run in found] == [run.label for run in dataset.runs]
    for real, synthetic in zip(dataset.runs, found, strict=True):
        for name in ("space", "resolution", "t_r", "start_time", "shape", "n_volumes", "site"):
            assert getattr(real, name) == getattr(synthetic, name), name
        assert synthetic.phase_encoding == real.phase_encoding
        assert synthetic.events.read_bytes() == real.events.read_bytes()
        np.testing.assert_array_equal(real.affine, synthetic.affine)
        before, after = load_bold(real), load_bold(synthetic)
        np.testing.assert_array_equal(before.mask, after.mask)
        error = (after.data - before.data)[before.mask].std()
        assert error < 0.01 * np.median(before.data[before.mask].std(axis=-1))


def test_image_header_and_sidecar(dataset: Dataset, tmp_path: Path) -> None:
    write_all(dataset, tmp_path)
    path = tmp_path / f"sub-01/func/sub-01_task-motor_space-{SPACE}_res-2_desc-synth_bold.nii.gz"
    header = nib.load(path).header
    assert header["descrip"].item() == b"fmrisynth: synthetic data"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)
    assert float(header["pixdim"][4]) == 2.0
    assert header.get_xyzt_units() == ("mm", "sec")
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["FmrisynthProvenance"].items() >= PROVENANCE.items()
    assert sidecar["SkullStripped"] is True
    assert sidecar["RepetitionTime"] == 2.0
    assert "Synthetic" in sidecar["Description"]
    assert sidecar["Sources"] == [
        f"bids:fmriprep:sub-01/func/sub-01_task-motor_space-{SPACE}_res-2_desc-preproc_bold.nii.gz",
        f"bids:fmriprep:sub-01/func/sub-01_task-motor_space-{SPACE}_res-2_desc-brain_mask.nii.gz",
        "bids:raw:sub-01/func/sub-01_task-motor_events.tsv",
    ]


@pytest.mark.parametrize(
    ("original", "n_samples", "expected"),
    [
        (None, 1, [None]),
        ("2", 1, ["2"]),
        (None, 3, ["1", "2", "3"]),
        ("2", 3, ["4", "5", "6"]),
        ("02", 2, ["03", "04"]),
    ],
)
def test_run_labels_of_samples(
    dataset: Dataset, original: str | None, n_samples: int, expected: list[str | None]
) -> None:
    entities = dict(dataset.runs[0].entities) | ({"run": original} if original else {})
    run = replace(dataset.runs[0], entities=entities)
    labels = [
        synthetic_entities(run, sample=k + 1, n_samples=n_samples).get("run")
        for k in range(n_samples)
    ]
    assert labels == expected


def test_samples_of_different_runs_never_share_a_name(dataset: Dataset) -> None:
    names = set()
    for original in range(1, 6):
        run = replace(dataset.runs[0], entities={**dataset.runs[0].entities, "run": str(original)})
        names |= {synthetic_entities(run, sample=k, n_samples=4)["run"] for k in range(1, 5)}
    assert len(names) == 20


def test_wrong_samples(dataset: Dataset) -> None:
    run = dataset.runs[0]
    with pytest.raises(ValueError, match="1 to 2"):
        synthetic_entities(run, sample=3, n_samples=2)
    with pytest.raises(ValueError, match="1 to 2"):
        synthetic_entities(run, n_samples=2)
    lettered = replace(run, entities={**run.entities, "run": "a"})
    with pytest.raises(DataError, match="run-a"):
        synthetic_entities(lettered, sample=1, n_samples=2)


def test_same_data_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        write_all(dataset, tmp_path / name)
        files = sorted((tmp_path / name).rglob("sub-*"))
        trees.append({p.relative_to(tmp_path / name): p.read_bytes() for p in files if p.is_file()})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 6 * 8


def test_a_run_is_finished_only_with_all_its_files(dataset: Dataset, tmp_path: Path) -> None:
    run = dataset.runs[0]
    bold = load_bold(run)
    assert not is_finished(tmp_path, run, provenance=PROVENANCE)
    path = write_synthetic_run(tmp_path, run, bold.data, bold.mask, provenance=PROVENANCE)
    assert is_finished(tmp_path, run, provenance=PROVENANCE)
    assert not is_finished(tmp_path, run, provenance={**PROVENANCE, "RandomSeed": 4})
    assert not is_finished(tmp_path, run, provenance=PROVENANCE, sample=1, n_samples=2)
    for file in path.parent.iterdir():
        content = file.read_bytes()
        file.unlink()
        assert not is_finished(tmp_path, run, provenance=PROVENANCE)
        # runs of other generators have no reference image
        assert len(find_synthetic_runs(tmp_path)) == ("boldref" in file.name)
        file.write_bytes(content)
    assert len(find_synthetic_runs(tmp_path)) == 1


def test_a_run_with_confounds_is_finished_only_with_them(dataset: Dataset, tmp_path: Path) -> None:
    run = dataset.runs[0]
    bold = load_bold(run)
    provenance = {**PROVENANCE, "Confounds": True}
    path = write_synthetic_run(
        tmp_path,
        run,
        bold.data,
        bold.mask,
        provenance=provenance,
        confounds=("csf\n1.0\n", {"csf": {"Description": "Mean signal."}}),
    )
    table = path.with_name("sub-01_task-motor_desc-confounds_timeseries.tsv")
    assert table.read_text() == "csf\n1.0\n"
    assert find_synthetic_runs(tmp_path)[0].confounds == table.resolve()
    assert is_finished(tmp_path, run, provenance=provenance)
    table.unlink()
    assert not is_finished(tmp_path, run, provenance=provenance)
    assert len(find_synthetic_runs(tmp_path)) == 1


def test_a_failed_rewrite_leaves_an_unfinished_run(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataset.runs[0]
    bold = load_bold(run)
    write_synthetic_run(tmp_path, run, bold.data, bold.mask, provenance=PROVENANCE)

    def full(*_: object) -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nifti, "_volumes", full)
    with pytest.raises(InputOutputError, match="No space left"):
        write_synthetic_run(tmp_path, run, bold.data, bold.mask, provenance={"ModelHash": "new"})
    assert find_synthetic_runs(tmp_path) == ()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".fmrisynth")]


def test_coarse_values_are_kept_as_float32(dataset: Dataset, tmp_path: Path) -> None:
    bold = load_bold(dataset.runs[0])
    data = bold.data.copy()
    data[0, 0, 0, 0] = 1e9  # int16 steps of 3e4 would wipe the signal out
    path = write_synthetic_run(tmp_path, dataset.runs[0], data, bold.mask, provenance=PROVENANCE)
    assert nib.load(path).get_data_dtype() == np.float32
    np.testing.assert_array_equal(nib.load(path).get_fdata(dtype="f4"), data)
    sidecar = json.loads(Path(str(path).replace(".nii.gz", ".json")).read_text())
    assert sidecar["SkullStripped"] is False


def test_background_stays_exactly_zero(dataset: Dataset, tmp_path: Path) -> None:
    bold = load_bold(dataset.runs[0])
    path = write_synthetic_run(
        tmp_path, dataset.runs[0], bold.data, bold.mask, provenance=PROVENANCE
    )
    assert nib.load(path).get_data_dtype() == np.int16
    assert not nib.load(path).get_fdata()[~bold.mask].any()


def test_arrays_that_do_not_fit(dataset: Dataset, tmp_path: Path) -> None:
    run, bold = dataset.runs[0], load_bold(dataset.runs[0])
    with pytest.raises(ValueError, match="shapes do not fit"):
        write_synthetic_run(tmp_path, run, bold.data[1:], bold.mask, provenance={})
    with pytest.raises(ValueError, match="not finite"):
        write_synthetic_run(tmp_path, run, bold.data * np.nan, bold.mask, provenance={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["../../x", "a/b", "..", "a b"])
def test_labels_cannot_leave_the_output(dataset: Dataset, tmp_path: Path, label: str) -> None:
    run, bold = dataset.runs[0], load_bold(dataset.runs[0])
    run = replace(run, entities={**run.entities, "sub": label})
    with pytest.raises(OutputError, match="letters and digits"):
        write_synthetic_run(tmp_path / "out", run, bold.data, bold.mask, provenance={})
    assert list(tmp_path.rglob("*")) == []


def test_links_cannot_lead_out_of_the_output(dataset: Dataset, tmp_path: Path) -> None:
    run, bold = dataset.runs[0], load_bold(dataset.runs[0])
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (out / "sub-01").symlink_to(outside)
    with pytest.raises(OutputError, match="leads out of the output directory"):
        write_synthetic_run(out, run, bold.data, bold.mask, provenance={})
    assert [p for p in outside.rglob("*") if p.is_file()] == []


@pytest.mark.validator
@pytest.mark.parametrize(
    "options",
    [
        {"participants": ("01", "02")},
        {"participants": ("01",), "sessions": ("a", "b"), "runs": ("1",), "space": "custom"},
        {"participants": ("01",), "derivatives": None},
    ],
)
def test_outputs_are_valid_bids(
    tmp_path: Path, bids_factory: Callable[..., Path], options: dict[str, object]
) -> None:
    dataset = find_runs(bids_factory(**options))
    out = tmp_path / "out"
    write_all(dataset, out, n_samples=2)
    for extra in ("figures", "model", "group"):
        (out / extra).mkdir()
        (out / extra / "x.txt").write_text("x")
    (out / "sub-01" / "figures").mkdir()
    (out / "sub-01" / "figures" / "x.svg").write_text("x")
    (out / "group.html").write_text("x")
    assert validator_issues(out) == []


def test_nilearn_and_pybids_read_the_output(dataset: Dataset, tmp_path: Path) -> None:
    from bids import BIDSLayout
    from nilearn.glm.first_level import first_level_from_bids

    write_all(dataset, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models, images, events, _ = first_level_from_bids(
            tmp_path,
            "motor",
            space_label=SPACE,
            img_filters=[("desc", "synth")],
            derivatives_folder=".",
            slice_time_ref=0.0,
            confounds_strategy=None,
            smoothing_fwhm=None,
            drift_model=None,
        )
        assert len(models) == 3
        assert all(model.t_r == 2.0 for model in models)
        mask = nib.load(find_synthetic_runs(tmp_path)[0].mask)
        model = models[0].set_params(mask_img=mask, minimize_memory=True)
        effect = model.fit(images[0], events[0]).compute_contrast(
            "hand - foot", output_type="effect_size"
        )
    values = effect.get_fdata()
    assert values[2, 3:6, 3:6].mean() > 0.8  # %, where `make_bids` put the response to "hand"
    assert values[3, 3:6, 3:6].mean() < -0.8
    layout = BIDSLayout(tmp_path, validate=False, config=["bids", "derivatives"])
    assert len(layout.get(desc="synth", suffix="bold", extension=".nii.gz")) == 6


def test_output_is_no_input_of_the_next_call(tmp_path: Path) -> None:
    root = make_bids(tmp_path / "bids", participants=("01",))
    dataset = find_runs(root)
    write_all(dataset, root / "derivatives" / "fmrisynth")
    assert find_runs(root).runs[0].bold == dataset.runs[0].bold
    assert len(find_runs(root).runs) == len(dataset.runs)


def test_run_of_a_new_participant(dataset: Dataset, tmp_path: Path) -> None:
    run: Run = dataset.runs[0]
    bold = load_bold(run)
    new = replace(run, entities={**run.entities, "sub": "synth001"})
    path = write_synthetic_run(tmp_path, new, bold.data[..., :7], bold.mask, provenance={})
    assert path.parent == tmp_path / "sub-synth001" / "func"
    found = find_synthetic_runs(tmp_path)
    assert [(r.participant, r.n_volumes) for r in found] == [("synth001", 7)]
