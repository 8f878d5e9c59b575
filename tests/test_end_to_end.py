"""Phantom, participant level and group level run on files and leave what they promise."""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.validator import validator_issues

import fmrisynth
from fmrisynth.bids.validation import find_validator
from fmrisynth.cli.outputs import OUTPUT_FILES

pytestmark = pytest.mark.slow

REPOSITORY = Path(fmrisynth.__file__).parents[1]
SPACE = "MNI152NLin2009cAsym"
# as small as it goes: networks, steps, threads
SMALL = [
    *("--set", "preprocess.voxel_size=8"),
    *("--set", "denoiser.backbone.widths=[16, 32]"),
    *("--set", "denoiser.backbone.blocks=[1, 1]"),
    *("--max-steps", "3"),
    *("--sampling-steps", "3"),
    *("--precision", "32-true"),
    *("--device", "cpu"),
    *("--nprocs", "1"),
]


def few_open_files():
    """Hold a process to 64 open files; a thousand runs have to do with 1,024 on some systems."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def run(module, *words, code=0):
    """Call a module from the command line, in a process of its own."""
    path = os.pathsep.join(p for p in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"),
        preexec_fn=few_open_files,
    )
    assert done.returncode == code, done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return done


def listing(root):
    """Every file below a folder with its content's hash."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def images(out):
    return sorted(out.rglob("*_desc-synth_bold.nii.gz"))


# From phantom to report


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A phantom and what both levels make of it: (phantom, out, messages, listing before)."""
    root = tmp_path_factory.mktemp("study")
    phantom, out = root / "phantom", root / "out"
    run(
        "fmrisynth.phantom", phantom, "--n-participants", 3, "-t", "MOTOR", "-t", "EMOTION",
        "--voxel-size", 8, "--n-volumes", 28, "--nprocs", 1, "--quiet",
    )  # fmt: skip
    before = listing(phantom)
    first = run("fmrisynth", phantom, out, "participant", *SMALL, "--random-seed", 3)
    second = run("fmrisynth", phantom, out, "group", "--nprocs", 1)
    return phantom, out, (first, second), before


def test_every_run_has_its_synthetic_run(study):
    phantom, out, _, _ = study
    names = {p.name for p in out.rglob("*") if p.is_file()}
    for participant in ("01", "02", "03"):
        for task in ("MOTOR", "EMOTION"):
            for direction in ("AP", "PA"):
                stem = f"sub-{participant}_task-{task}_dir-{direction}"
                spatial = f"{stem}_space-{SPACE}_res-8_desc-"
                assert {
                    f"{spatial}synth_bold.nii.gz",
                    f"{spatial}synth_bold.json",
                    f"{spatial}brain_mask.nii.gz",
                    f"{spatial}brain_mask.json",
                    f"{stem}_events.tsv",
                    f"{stem}_events.json",
                } <= names
    assert len(images(out)) == 12
    for image in images(out):
        source = next(phantom.rglob(image.name.replace("synth", "preproc")))
        made, real = nib.load(image), nib.load(source)
        assert made.shape == real.shape
        np.testing.assert_allclose(made.affine, real.affine)
        assert made.header.get_zooms() == pytest.approx(real.header.get_zooms())
        data = made.get_fdata()
        assert np.isfinite(data).all()
        mask = nib.load(next(image.parent.glob(image.name.replace("synth_bold", "brain_mask"))))
        inside = mask.get_fdata() > 0
        ratio = data.mean(3)[inside] / real.get_fdata().mean(3)[inside]
        assert np.median(ratio) == pytest.approx(1, abs=0.01)
        assert not np.array_equal(data, real.get_fdata())
    events = sorted(phantom.glob("sub-*/func/*_events.tsv"))
    for path in events:
        copied = pd.read_csv(next(out.rglob(path.name)), sep="\t")
        pd.testing.assert_frame_equal(copied, pd.read_csv(path, sep="\t"))


def test_sidecars_say_what_the_images_are(study):
    _, out, _, _ = study
    roles = pd.read_csv(out / "participants.tsv", sep="\t", dtype=str).set_index("participant_id")
    assert list(roles.index) == ["sub-01", "sub-02", "sub-03"]
    assert sorted(roles["role"]) == ["held_out", "training", "training"]
    hashes = set()
    for image in images(out):
        sidecar = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["RepetitionTime"] == 2.0
        assert sidecar["SkullStripped"] is True
        assert sidecar["TaskName"] in ("MOTOR", "EMOTION")
        assert "not measured" in sidecar["Description"]
        assert sidecar["Sources"]
        provenance = sidecar["FmrisynthProvenance"]
        participant = image.name.split("_")[0]
        assert provenance["ParticipantRole"] == roles.loc[participant, "role"]
        assert provenance["RandomSeed"] == 3
        assert provenance["Sample"] == 1
        assert provenance["NoiseLevel"] == "other runs"
        hashes.add(provenance["ModelHash"])
        assert b"ynthetic" in bytes(nib.load(image).header["descrip"])
    assert len(hashes) == 1
    config = json.loads((out / "model" / "config.json").read_text())
    held_out = roles.index[roles["role"] == "held_out"].str.removeprefix("sub-").tolist()
    assert config["split"]["held_out"] == held_out


def test_the_model_says_what_its_parts_add(study):
    """One participant is held out: gains without an interval, for every part and angle."""
    _, out, _, _ = study
    table = pd.read_csv(out / "model" / "skill.tsv", sep="\t")
    assert list(table.columns) == ["theta", "part", "gain", "ci_low", "ci_high"]
    assert set(table["part"]) == {"noise level", "response", "noise level + response", "backbone"}
    assert np.isfinite(table["gain"]).all()
    assert table["gain"].abs().max() < 5  # of a loss of about 1
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)
    assert not table.duplicated(["theta", "part"]).any()


def test_the_table_of_metrics(study):
    _, out, _, _ = study
    table = pd.read_csv(out / "group" / "metrics.tsv", sep="\t")
    columns = ["metric", "generator", "value", "ci_low", "ci_high", "ceiling", "floor"]
    assert list(table.columns) == columns
    rows = table.set_index(["metric", "generator"])
    assert not rows.index.duplicated().any()
    for generator in ("fmrisynth", "group-glm"):
        found = {metric.lower() for metric, g in rows.index if g == generator}
        for metric in ("corr", "rsa", "top1"):
            assert any(name.startswith(metric) for name in found), metric
        for metric in ("temporal_sd_ratio", "lag1_ratio", "fwhm_ratio"):
            assert np.isfinite(rows.loc[(metric, generator), "value"])


def test_the_maps(study):
    _, out, _, _ = study
    maps = sorted((out / "group" / "maps").glob("*.nii.gz"))
    names = {p.name for p in maps}
    assert "mask.nii.gz" in names
    assert any(n.startswith("source-fmrisynth") and n.endswith("effect.nii.gz") for n in names)
    assert any(n.startswith("source-real") for n in names)
    shape = nib.load(maps[0]).shape
    for path in maps:
        assert nib.load(path).shape == shape
        assert np.isfinite(nib.load(path).get_fdata()).all()


def test_the_report_stands_alone(study):
    _, out, _, _ = study
    page = (out / "group.html").read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']([^"']*)["']""", page)
    for target in loaded:
        assert target.startswith(("data:", "#")), target
    assert not re.findall(r"url\(\s*['\"]?(?!data:|#|['\"]?#)[a-z]+:", page)
    assert "@import" not in page
    assert "<script src" not in page
    assert page.count("data:image") + page.count("<svg") >= 3
    assert "fmrisynth" in page
    assert str(out) not in page  # no paths of this machine


def test_nothing_unfinished_is_left(study):
    _, out, _, _ = study
    assert not (out / "work").exists()
    assert not [p for p in out.rglob("*") if "~" in p.name or p.name.endswith((".tmp", ".part"))]
    assert not [p for p in out.iterdir() if p.name.endswith(".writing")]


def test_every_file_of_an_output_is_documented(study):
    _, out, _, _ = study
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        assert path.is_dir() or any(fnmatch(name, pattern) for pattern in OUTPUT_FILES), name


def test_the_input_was_not_touched(study):
    phantom, _, _, before = study
    assert listing(phantom) == before


def test_a_log_has_no_bars_and_ends_with_what_comes_next(study):
    phantom, out, (first, second), _ = study
    for done in (first, second):
        assert "it/s]" not in done.stderr
        assert "run/s]" not in done.stderr
    assert first.stderr.splitlines()[-1].strip() == f"fmrisynth {phantom} {out} group"
    assert str(out / "group.html") in second.stderr.splitlines()[-1]


def test_messages_appear_once(study):
    _, _, (first, second), _ = study
    for done in (first, second):
        assert done.stderr.count("found 12 runs of 3 participants") == 1
    assert "DEBUG" not in first.stderr
    assert "unclipped" not in first.stderr  # detail for -vv and the log file


@pytest.mark.validator
def test_the_phantom_passes_the_validation_before_the_work(study):
    _, _, (first, _), _ = study
    assert "the BIDS validator found no error" in first.stderr


@pytest.mark.validator
def test_the_output_is_valid_bids(study):
    _, out, _, _ = study
    assert validator_issues(out) == []


def test_nilearn_fits_the_output(study):
    from nilearn.glm.first_level import first_level_from_bids

    _, out, _, _ = study
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models, runs, events, _ = first_level_from_bids(
            out,
            "MOTOR",
            space_label=SPACE,
            img_filters=[("desc", "synth")],
            derivatives_folder=".",
            slice_time_ref=0.0,
            confounds_strategy=None,
        )
        assert len(models) == 3
        assert all(model.t_r == 2.0 for model in models)
        assert [len(r) for r in runs] == [2, 2, 2]
        mask = nib.load(str(runs[0][0]).replace("synth_bold", "brain_mask"))
        models[0].set_params(mask_img=mask, minimize_memory=True)
        fitted = models[0].fit(runs[0], events[0])
        effect = fitted.compute_contrast("lh - rh", output_type="effect_size")
    assert np.isfinite(effect.get_fdata()).all()
    assert effect.get_fdata().std() > 0


def test_a_second_call_keeps_what_is_finished(study, tmp_path):
    phantom, first, _, _ = study
    out = shutil.copytree(first, tmp_path / "out")
    kept = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in images(out)}
    lost = images(out)[0]
    lost.unlink()
    done = run(
        "fmrisynth", phantom, out, "participant", "--random-seed", 3, "--sampling-steps", 3,
        "--precision", "32-true", "--nprocs", 1, "--device", "cpu",
    )  # fmt: skip
    assert "11 synthetic runs are there already" in done.stderr
    assert lost.read_bytes() == kept[lost][1]  # made again, the same
    for path, (time, _) in kept.items():
        if path != lost:
            assert path.stat().st_mtime_ns == time


# The same on a smaller tree


@pytest.fixture(scope="module")
def trained(tiny_bids, tmp_path_factory):
    """A model of the tiny dataset, and its output."""
    out = tmp_path_factory.mktemp("trained") / "out"
    run("fmrisynth", tiny_bids, out, "participant", *TINY, "--random-seed", 5)
    return out


TINY = [*SMALL, "--set", "preprocess.voxel_size=4"]


def test_the_same_seed_gives_the_same_bytes(trained, tiny_bids, tmp_path):
    out = tmp_path / "elsewhere"
    run("fmrisynth", tiny_bids, out, "participant", *TINY, "--random-seed", 5)
    assert len(images(trained)) == 6
    for one, other in zip(images(trained), images(out), strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()
    for path in sorted((trained / "model").glob("*.safetensors")):
        assert path.read_bytes() == (out / "model" / path.name).read_bytes(), path.name


def test_another_seed_gives_other_runs_of_the_same_model(trained, tiny_bids, tmp_path):
    out = tmp_path / "out"
    before = listing(trained / "model")
    run(
        "fmrisynth", tiny_bids, out, "participant", "--model", trained / "model",
        "--participant-label", "sub-02", "03", "-t", "motor", "--n-samples", 2,
        "--random-seed", 6, "--sampling-steps", 2, "--nprocs", 1, "--device", "cpu",
    )  # fmt: skip
    names = [p.name for p in images(out)]
    assert [n.split("_space")[0] for n in names] == [
        f"sub-{p}_task-motor_run-{r}" for p in ("02", "03") for r in (1, 2)
    ]
    contents = {p.read_bytes() for p in images(out)}
    assert len(contents) == 4
    assert not (out / "model").exists()
    assert listing(trained / "model") == before
    participants = pd.read_csv(out / "participants.tsv", sep="\t")
    assert list(participants["participant_id"]) == ["sub-02", "sub-03"]


def test_one_participant_alone_is_as_in_a_call_for_all(trained, tiny_bids, tmp_path):
    out = tmp_path / "out"
    run(
        "fmrisynth", tiny_bids, out, "participant", "--model", trained / "model",
        "--participant-label", "03", "--random-seed", 5, "--sampling-steps", 3,
        "--precision", "32-true", "--nprocs", 1, "--device", "cpu",
    )  # fmt: skip
    for image in images(out):
        assert image.read_bytes() == next(trained.rglob(image.name)).read_bytes()


def test_a_damaged_run_is_named_and_the_others_are_written(tiny_bids_copy, tmp_path):
    bad = sorted((tiny_bids_copy / "derivatives").rglob("*preproc_bold.nii.gz"))[1]
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    done = run("fmrisynth", tiny_bids_copy, out, "participant", *TINY, "--random-seed", 5, code=65)
    assert bad.name in done.stderr
    assert "--skip-bad-runs" in done.stderr
    assert len(images(out)) == 5
    run(
        "fmrisynth", tiny_bids_copy, out, "participant", *TINY, "--random-seed", 5,
        "--skip-bad-runs",
    )  # fmt: skip


def test_a_single_participant_is_told_plainly(bids_factory, tmp_path):
    root, out = bids_factory(participants=("01",)), tmp_path / "out"
    done = run("fmrisynth", root, out, "participant", *TINY, "--train-only")
    assert not images(out)
    card = (out / "model" / "README.md").read_text()
    assert "nothing it generates can be checked against unseen participants" in card
    assert re.search(r"held.out", done.stderr)
    done = run("fmrisynth", root, out, "participant", *TINY)
    assert len(images(out)) == 2
    run("fmrisynth", root, out, "group", "--nprocs", 1)
    assert "held out" in (out / "group.html").read_text(encoding="utf-8").lower()


def test_raw_runs_of_different_length_and_tr(bids_factory, tmp_path):
    """No derivatives: raw images that share one space, sessions and runs."""
    root = bids_factory(
        participants=("01", "02"), derivatives=None, sessions=("a",), runs=("1", "2"),
        tasks=("motor",), n_volumes=24, t_r=1.5,
    )  # fmt: skip
    out = tmp_path / "out"
    run("fmrisynth", root, out, "participant", *TINY)
    names = [p.relative_to(out).as_posix() for p in images(out)]
    assert names == [
        f"sub-{p}/ses-a/func/sub-{p}_ses-a_task-motor_run-{r}_desc-synth_bold.nii.gz"
        for p in ("01", "02")
        for r in ("1", "2")
    ]
    assert {nib.load(p).shape[3] for p in images(out)} == {24}
    if find_validator() is not None:
        assert validator_issues(out) == []


# One real run


def studyforrest():
    """Where the sample of real data lies, if it does."""
    for folder in Path(__file__).resolve().parents:
        if (found := folder / "shared" / "data" / "studyforrest").is_dir():
            return found
    return None


@pytest.mark.skipif(studyforrest() is None, reason="the sample of real data is not there")
def test_one_real_run(tmp_path):
    root, out = studyforrest(), tmp_path / "out"
    run("fmrisynth", root, out, "participant", *SMALL, "-d", root / "derivatives" / "simplemni")
    (image,) = images(out)
    assert image.name == (
        "sub-01_task-objectcategories_run-1_space-MNI152Lin_res-4_desc-synth_bold.nii.gz"
    )
    made = nib.load(image)
    assert made.shape == (46, 55, 46, 156)
    data = made.get_fdata(dtype=np.float32)
    assert np.isfinite(data).all()
    real = nib.load(next((root / "derivatives").rglob("*preproc_bold.nii.gz")))
    mask = nib.load(next(out.rglob("*brain_mask.nii.gz"))).get_fdata() > 0
    source = real.get_fdata(dtype=np.float32)[mask]
    made_sd, real_sd = data[mask].std(1), source.std(1)
    assert float(np.median(made_sd / np.maximum(real_sd, 1e-6))) == pytest.approx(1, abs=0.3)
    if find_validator() is not None:
        assert validator_issues(out) == []
