"""Known responses in runs that exist: they are recovered, and all else stays as it is."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor
from support.validator import validator_issues

from fmrisynth.bids.confounds import read_motion
from fmrisynth.bids.search import find_bold_runs, find_runs
from fmrisynth.errors import DataError, UsageError
from fmrisynth.phantom import ImplantConfig, PhantomConfig, implant_responses, simulate_cohort
from fmrisynth.phantom.motion import write_motion
from fmrisynth.phantom.source import choose_tasks, plan_pieces, without_own_responses

pytestmark = pytest.mark.slow

DERIVATIVES = Path("derivatives") / "fmriprep-phantom"
TRUTH = Path("derivatives") / "truth"
EFFECT = (1.0, 2.0)


def shared_dataset(name):
    for folder in Path(__file__).resolve().parents:
        if (data := folder / "shared" / "data" / name).is_dir():
            return data
    return None


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two participants with one run of a task in either direction, quiet."""
    config = PhantomConfig(
        n_participants=2, n_volumes=120, voxel_size=12.0, tsnr=400.0, tasks=("SOCIAL",)
    )
    folder = simulate_cohort(tmp_path_factory.mktemp("source") / "bids", config, progress=False)
    motion = np.random.default_rng(0).standard_normal((config.n_volumes, 6)).cumsum(axis=0)
    stem = "sub-01_task-SOCIAL_dir-AP"  # one of the runs has confounds
    write_motion(folder / DERIVATIVES / "sub-01" / "func", stem, motion.round(3), "drawn")
    return folder


@pytest.fixture(scope="module")
def implanted(source, tmp_path_factory):
    config = ImplantConfig(source, effect_size=EFFECT, tasks=("MOTOR", "WM"))
    return implant_responses(tmp_path_factory.mktemp("implants") / "bids", config, progress=False)


def load(path):
    return nib.load(path).get_fdata(dtype=np.float32)


def brain_of(run):
    return load(run.mask) > 0


def source_of(run, source):
    """The stretch of the source that a run of the cohort stands on."""
    text = json.loads(run.bold.with_suffix("").with_suffix(".json").read_text())["Description"]
    _, first, _, last, _, name, *_ = text.split()
    path = next((source / DERIVATIVES).rglob(name))
    return load(path)[..., int(first) : int(last) + 1]


def estimate(run):
    """Percent signal change per trial type (sorted), (C, V)."""
    return fit(load(run.bold)[brain_of(run)].T, run)


def fit(values, run):
    """Percent signal change per trial type (sorted), (C, V), of values (T, V)."""
    events = pd.read_csv(run.events, sep="\t")
    times = run.t_r * np.arange(run.n_volumes)
    columns = [
        compute_regressor(np.stack([e["onset"], e["duration"], np.ones(len(e))]), "spm", times)[0]
        for _, e in events.groupby("trial_type")
    ]
    place = (np.arange(run.n_volumes)[:, None] + 0.5) * np.arange(4)
    design = np.hstack([*columns, np.cos(np.pi * place / run.n_volumes)])
    percent = 100.0 * values / values.mean(axis=0)
    return np.linalg.lstsq(design, percent, rcond=None)[0][: len(columns)]


def truth_of(run, folder):
    """True maps of the run's trial types (sorted), (C, V)."""
    conditions = pd.read_csv(folder / TRUTH / "conditions.tsv", sep="\t")
    rows = conditions[conditions["task"] == run.task].sort_values("trial_type")
    name = f"sub-{run.participant}"
    maps = load(folder / TRUTH / name / f"{name}_desc-amplitude.nii.gz")
    return maps[brain_of(run)][:, rows["index"]].T


def test_responses_are_recovered_at_their_size(implanted):
    runs = find_runs(implanted).runs
    assert [run.task for run in runs] == ["MOTOR", "WM"] * 2
    for run in runs:
        maps, truth = estimate(run), truth_of(run, implanted)
        assert np.corrcoef(maps.ravel(), truth.ravel())[0, 1] > 0.75
        assert (maps * truth).sum() / (truth**2).sum() == pytest.approx(1.0, abs=0.3)


def test_what_no_response_reaches_is_the_source(source, tmp_path):
    config = ImplantConfig(source, own_responses="keep", effect_size=EFFECT, tasks=("WM",))
    folder = implant_responses(tmp_path / "bids", config, progress=False)
    for run in find_runs(folder).runs:
        data, real = load(run.bold), source_of(run, source)
        truth = truth_of(run, folder)
        brain = brain_of(run)
        assert (truth == 0).any()
        silent = brain.copy()
        silent[brain] = ~truth.any(axis=0)
        np.testing.assert_array_equal(data[silent], real[silent])
        np.testing.assert_array_equal(data[~brain], real[~brain])
        onset = pd.read_csv(run.events, sep="\t")["onset"].min()
        before = int(onset // run.t_r)
        assert before > 1
        np.testing.assert_array_equal(data[..., :before], real[..., :before])
        assert not np.array_equal(data, real)


def test_head_motion_is_that_of_the_stretch(source, implanted):
    motion = [
        read_motion(run.confounds, run.n_volumes)
        for run in find_runs(implanted).runs
        if run.confounds is not None
    ]
    (original,) = (source / DERIVATIVES).rglob("*_desc-confounds_timeseries.tsv")
    np.testing.assert_array_equal(
        np.concatenate(motion), read_motion(original, 120)[: sum(map(len, motion))]
    )


def test_added_signal_is_percent_of_the_voxels_mean(source, tmp_path):
    """Of a source that is twice as bright, twice as much is added."""
    folders = []
    for factor in (1, 2):
        bright = tmp_path / f"source{factor}"
        for path in (source / DERIVATIVES).rglob("sub-01*dir-AP*"):
            target = bright / path.relative_to(source / DERIVATIVES)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.name.endswith("bold.nii.gz"):
                image = nib.load(path)
                data = factor * image.get_fdata(dtype=np.float32)
                nib.save(nib.Nifti1Image(data, image.affine, image.header), target)
            else:
                target.write_bytes(path.read_bytes())
        text = (source / DERIVATIVES / "dataset_description.json").read_text()
        (bright / "dataset_description.json").write_text(text)
        config = ImplantConfig(bright, tasks=("WM",), effect_size=EFFECT)
        folders.append(implant_responses(tmp_path / f"out{factor}", config, progress=False))
    dim, bright = (load(find_runs(folder).runs[0].bold) for folder in folders)
    np.testing.assert_allclose(bright, 2.0 * dim, rtol=1e-3, atol=1.0)


def test_own_responses_are_removed(source):
    run = find_runs(source).runs[0]
    values = load(run.bold)[brain_of(run)].T
    cleaned = without_own_responses(values, run)
    assert np.abs(fit(cleaned, run)).mean() < 0.2 * np.abs(fit(values, run)).mean()
    np.testing.assert_allclose(cleaned.mean(axis=0), values.mean(axis=0), rtol=0.02)


def test_participants_differ_and_repeat_with_the_seed(source, tmp_path):
    config = ImplantConfig(source, tasks=("MOTOR",))
    one = implant_responses(tmp_path / "one", config, progress=False)
    two = implant_responses(tmp_path / "two", config, progress=False)

    def digest(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert digest(one) == digest(two)
    maps = [load(one / TRUTH / s / f"{s}_desc-amplitude.nii.gz") for s in ("sub-01", "sub-02")]
    similarity = np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]
    assert 0.3 < similarity < 0.95


def test_runs_are_cut_only_where_there_are_fewer_than_tasks(source):
    runs = find_bold_runs(source)[:2]
    whole = plan_pieces(runs, ("MOTOR", "WM"), 0)
    assert [(p.start, p.stop) for p in whole] == [(0, 120)] * 2
    cut = plan_pieces(runs, ("MOTOR", "WM", "SOCIAL"), 1)
    assert [(p.start, p.stop) for p in cut] == [(0, 60), (60, 120)] * 2
    assert [p.task for p in cut] == ["WM", "SOCIAL", "MOTOR", "WM"]
    assert len({p.stem for p in cut}) == 4
    # Four pieces of 120 s are the most that two runs of 240 s hold.
    assert len(choose_tasks({"01": runs})) == 4
    with pytest.raises(DataError, match="Ask for fewer tasks"):
        plan_pieces(runs[:1], tuple("ABCDEFGHI"), 0)


def test_images_without_a_mean_are_refused(source, tmp_path):
    folder = tmp_path / "source"
    for path in (source / DERIVATIVES).rglob("sub-01*dir-AP*"):
        target = folder / path.relative_to(source / DERIVATIVES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        if path.name.endswith("bold.nii.gz"):
            image = nib.load(path)
            data = image.get_fdata(dtype=np.float32)
            data -= data.mean(axis=-1, keepdims=True)
            nib.save(nib.Nifti1Image(data, image.affine), target)
    text = (source / DERIVATIVES / "dataset_description.json").read_text()
    (folder / "dataset_description.json").write_text(text)
    with pytest.raises(DataError, match="mean"):
        implant_responses(tmp_path / "bids", ImplantConfig(folder), progress=False)
    assert not (tmp_path / "bids").exists()


@pytest.mark.validator
@pytest.mark.parametrize("part", [".", DERIVATIVES, TRUTH])
def test_datasets_are_valid_bids(implanted, part):
    errors = [i for i in validator_issues(implanted / part) if i["severity"] == "error"]
    assert errors == []


def test_impossible_options_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="keep or remove"):
        ImplantConfig(tmp_path, own_responses="both")
    with pytest.raises(UsageError, match="EMOTION, GAMBLING"):
        ImplantConfig(tmp_path, tasks=("CHESS",))


def test_command_line_refuses_what_the_dataset_decides(source, tmp_path):
    command = [sys.executable, "-m", "fmrisynth.phantom", str(tmp_path / "bids"), "--noise-from"]
    done = subprocess.run(
        [*command, str(source), "--tsnr", "50"], capture_output=True, text=True, check=False
    )
    assert done.returncode == UsageError.exit_code
    assert "--tsnr is decided by the dataset" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shared_dataset("rest_coinstac") is None, reason="dataset is not at hand")
def test_resting_runs_become_task_runs(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("dataset_description.json", "sub-01", "sub-02"):
        (source / name).symlink_to(shared_dataset("rest_coinstac") / name)
    config = ImplantConfig(source, tasks=("MOTOR", "WM"), effect_size=(3.0, 4.0))
    folder = implant_responses(tmp_path / "bids", config, progress=False)
    runs = find_runs(folder).runs
    assert [(run.participant, run.task, run.n_volumes) for run in runs] == [
        ("01", "MOTOR", 74), ("01", "WM", 74), ("02", "MOTOR", 74), ("02", "WM", 74),
    ]  # fmt: skip
    for run in runs:
        maps, truth = estimate(run), truth_of(run, folder)
        assert np.corrcoef(maps.ravel(), truth.ravel())[0, 1] > 0.7
