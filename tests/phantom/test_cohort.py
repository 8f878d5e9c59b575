"""The phantom as a whole: what its runs are like, and what it writes."""

import json
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor
from support.validator import validator_issues

from fmrisynth.errors import InputOutputError, OutputError
from fmrisynth.phantom import PhantomConfig, cohort, simulate_cohort
from fmrisynth.phantom.anatomy import image_head
from fmrisynth.phantom.responses import activation_maps, site_profiles
from fmrisynth.phantom.simulation import (
    Population,
    build_session,
    draw_participant,
    run_generator,
    simulate_run,
)

pytestmark = pytest.mark.slow

SMALL = PhantomConfig(
    n_participants=6, n_volumes=20, voxel_size=10.0, tasks=("EMOTION", "MOTOR", "WM")
)


@pytest.fixture(scope="module")
def small_cohort(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("phantom") / "bids", SMALL, progress=False)


@pytest.fixture(scope="module")
def population():
    """At the resolution and strength of the defaults, with long runs."""
    return Population.build(PhantomConfig(n_volumes=150))


@pytest.fixture(scope="module")
def participant(population):
    return draw_participant(population, 0)


@pytest.fixture(scope="module")
def sessions(population, participant):
    return {d: build_session(population, participant, d) for d in ("AP", "PA")}


@pytest.fixture(scope="module")
def residual(population, participant, sessions):
    """Percent signal change of one run without its mean and slow drift, (T, V) in the brain."""
    signal = one_run(population, participant, sessions["AP"], "SOCIAL")[0]
    drift = drift_regressors(len(signal))
    percent = 100.0 * signal / signal.mean(axis=0)
    return percent - drift @ np.linalg.lstsq(drift, percent, rcond=None)[0]


def one_run(population, participant, session, task):
    rng = run_generator(population.config, 0, task, session.direction)
    signal, events, _ = simulate_run(population, participant, session, task, rng)
    return signal[:, session.head.mask], events


def drift_regressors(n_volumes, n_regressors=4):
    """Cosines up to about 0.005 Hz for the runs here."""
    k = np.arange(n_volumes)[:, None] + 0.5
    return np.cos(np.pi * k * np.arange(n_regressors) / n_volumes)


def fit_glm(signal, events, t_r):
    """Percent signal change per trial type (sorted), with nilearn's SPM response."""
    frame_times = t_r * np.arange(len(signal))
    regressors = [
        compute_regressor(
            np.stack([rows["onset"], rows["duration"], np.ones(len(rows))]), "spm", frame_times
        )[0]
        for _, rows in events.groupby("trial_type")
    ]
    design = np.hstack([*regressors, drift_regressors(len(signal))])
    percent = 100.0 * signal / signal.mean(axis=0)
    return np.linalg.lstsq(design, percent, rcond=None)[0][: len(regressors)]


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def on_grid(values, head, grid):
    volume = np.zeros(int(np.prod(grid.shape)), np.float32)
    volume[head.index] = values
    return volume.reshape(grid.shape[::-1])


# What the runs are like


def test_tsnr_is_the_one_asked_for(residual):
    assert np.median(100.0 / residual.std(axis=0)) == pytest.approx(78.0, rel=0.2)


def test_noise_is_correlated_in_time(residual):
    power = np.mean(residual**2, axis=0)
    lags = [np.median(np.mean(residual[k:] * residual[:-k], axis=0) / power) for k in (1, 2, 4)]
    assert 0.18 < lags[0] < 0.42
    assert lags[0] > lags[1] > lags[2]


def test_noise_is_smooth_as_in_real_runs(population, sessions, residual):
    head, grid = sessions["AP"].head, population.grid
    inside = on_grid(head.mask, head, grid) > 0
    data = np.zeros((len(residual), *inside.shape), np.float32)
    data[:, inside] = residual / residual.std(axis=0)
    neighbours = []
    for distance in (1, 2):
        both = inside[:, distance:] & inside[:, :-distance]
        product = (data[:, :, distance:] * data[:, :, :-distance]).mean(axis=0)
        neighbours.append(product[both].mean())
    # Real runs at 4 mm: .47 and .32.
    assert neighbours[0] == pytest.approx(0.47, abs=0.1)
    assert neighbours[1] == pytest.approx(0.34, abs=0.1)
    # Gaussian of equal correlation at one voxel: r = exp(−d² / 4σ²).
    fwhm = 4.0 * np.sqrt(-2.0 * np.log(2.0) / np.log(neighbours[0]))
    assert 4.0 < fwhm < 8.0


@pytest.mark.parametrize(("tsnr", "least"), [(78.0, 0.3), (2000.0, 0.85)])
def test_glm_finds_the_true_activation(population, participant, tsnr, least):
    population = replace(population, config=replace(population.config, tsnr=tsnr))
    rows = [i for i, (task, _) in enumerate(population.conditions) if task == "MOTOR"]
    order = np.argsort([population.conditions[i][1] for i in rows])
    for direction in ("AP", "PA"):
        session = build_session(population, participant, direction)
        signal, events = one_run(population, participant, session, "MOTOR")
        betas = fit_glm(signal, events, population.config.t_r)
        truth = session.maps[rows][order][:, session.head.mask]
        assert correlation(betas, truth) > least
        # The slope on the truth is near 1: amplitudes are in percent signal change.
        assert (betas * truth).sum() / (truth**2).sum() == pytest.approx(1.0, abs=0.35)
        matches = np.corrcoef(betas, truth)[: len(rows), len(rows) :].argmax(axis=1)
        assert list(matches) == list(range(len(rows)))


def test_conditions_peak_within_the_effect_size(population):
    peaks = np.abs(population.maps).max(axis=(1, 2, 3))
    assert peaks.min() == pytest.approx(1.2, rel=1e-3)
    assert peaks.max() == pytest.approx(2.1, rel=1e-3)


def test_tasks_overlap_but_differ(population):
    tasks = dict.fromkeys(task for task, _ in population.conditions)
    maps = [
        population.maps[[name == task for name, _ in population.conditions]].mean(axis=0)
        for task in tasks
    ]
    off = np.corrcoef([m.ravel() for m in maps])[np.triu_indices(len(maps), 1)]
    assert off.max() < 0.8
    assert np.mean(off) > 0.05


def test_sites_follow_the_anatomy(population, participant):
    """A head moved by 12 mm has its responses moved by 12 mm, as its mean image is."""
    base = replace(
        participant.anatomy,
        warp=np.zeros_like(participant.anatomy.warp),
        shift=np.zeros_like(participant.anatomy.shift),
        log_bias=np.zeros_like(participant.anatomy.log_bias),
    )
    moved_warp = base.warp.copy()
    moved_warp[1] -= 12.0  # the template position 12 mm further back is seen here
    maps, means = [], []
    for anatomy in (base, replace(base, warp=moved_warp)):
        head = image_head(population.template, population.grid, anatomy, "AP")
        activation = activation_maps(population.weights, site_profiles(head.position, head.grey))
        maps.append(on_grid(activation[0] * head.mask, head, population.grid))
        means.append(on_grid(head.mean, head, population.grid))
    for still, moved in (maps, means):
        np.testing.assert_allclose(moved[:, 3:-3], still[:, :-6], atol=1e-3)


def test_own_anatomy_predicts_the_own_map(population):
    """The population map carried along the warp is nearer to the truth than without."""
    flat = population.maps.reshape(len(population.maps), -1)
    gains = []
    for index in range(4):
        own = draw_participant(population, index)
        session = build_session(population, own, "PA")
        head, mask = session.head, session.head.mask
        carried = activation_maps(population.weights, site_profiles(head.position, head.grey))
        gains.append(
            correlation(session.maps[:, mask], carried[:, mask])
            - correlation(session.maps[:, mask], flat[:, head.index][:, mask])
        )
    assert np.mean(gains) > 0.03


def test_directions_distort_in_opposite_ways(population, participant, sessions):
    ap, pa = (sessions[d].head for d in ("AP", "PA"))
    undistorted = replace(participant.anatomy, shift=np.zeros_like(participant.anatomy.shift))
    middle = image_head(population.template, population.grid, undistorted, "AP")
    volumes = [on_grid(h.mean, h, population.grid) for h in (ap, middle, pa)]
    assert correlation(volumes[0] - volumes[1], volumes[2] - volumes[1]) < -0.3


def test_participants_differ_in_amplitude_place_and_latency(population):
    responses = [draw_participant(population, i).response for i in range(12)]
    assert np.std([p.latency for p in responses]) > 0.2
    assert np.std([p.gain.mean() for p in responses]) > 0.05
    assert np.std([p.displacement for p in responses], axis=0).min() > 0.2


# What is written


def test_variance_is_ordered_as_in_the_paper(small_cohort):
    """Participant > phase encoding > task in whole volumes (variance explained by each)."""
    folder = small_cohort / "derivatives" / "fmriprep-phantom"
    names = sorted(p.name for p in folder.glob("sub-*"))
    volumes = np.stack(
        [
            [[load(folder, s, t, d)[..., ::4] for d in ("AP", "PA")] for t in SMALL.tasks]
            for s in names
        ]
    )  # (participant, task, direction, X, Y, Z, frame)
    volumes = np.moveaxis(volumes, -1, 3)
    mean = volumes.mean(axis=(0, 1, 2, 3))
    total = np.mean((volumes - mean) ** 2)
    share = {
        name: np.mean((volumes.mean(axis=others) - mean) ** 2) / total
        for name, others in {
            "participant": (1, 2, 3),
            "task": (0, 2, 3),
            "phase encoding": (0, 1, 3),
        }.items()
    }
    assert share["participant"] > 0.7
    assert share["participant"] > 5 * share["phase encoding"]
    assert share["phase encoding"] > 5 * share["task"] > 0


def load(folder, participant, task, direction, suffix="desc-preproc_bold"):
    name = f"{participant}_task-{task}_dir-{direction}_space-MNI152NLin2009cAsym_res-10_{suffix}"
    image = nib.load(folder / participant / "func" / f"{name}.nii.gz")
    return image.get_fdata(dtype=np.float32)


def test_images_masks_and_sidecars_agree(small_cohort):
    folder = small_cohort / "derivatives" / "fmriprep-phantom"
    bolds = sorted(folder.glob("sub-*/func/*_bold.nii.gz"))
    assert len(bolds) == 6 * 3 * 2
    for path in bolds[:6]:
        image = nib.load(path)
        mask = nib.load(str(path).replace("preproc_bold", "brain_mask"))
        sidecar = json.loads(path.with_suffix("").with_suffix(".json").read_text())
        assert image.shape == (*mask.shape, SMALL.n_volumes)
        assert image.get_data_dtype() == np.int16
        assert image.header.get_zooms() == pytest.approx((10, 10, 10, SMALL.t_r))
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert sidecar["RepetitionTime"] == SMALL.t_r
        expected = "j-" if "dir-AP" in path.name else "j"
        assert sidecar["PhaseEncodingDirection"] == expected
        data, inside = image.get_fdata(), mask.get_fdata() > 0
        assert 1e6 < inside.sum() * 1000 < 2.4e6  # mm³ of a brain
        assert data[inside].mean() == pytest.approx(10_000, rel=0.3)
        raw = nib.load(
            small_cohort
            / path.relative_to(folder).parent
            / (path.name.split("_space-")[0] + "_bold.nii.gz")
        )
        np.testing.assert_array_equal(raw.get_fdata(), data)


def test_truth_of_the_files_is_the_truth_of_the_model(small_cohort):
    truth = small_cohort / "derivatives" / "truth"
    conditions = pd.read_csv(truth / "conditions.tsv", sep="\t")
    own = nib.load(truth / "sub-03" / "sub-03_dir-PA_desc-amplitude.nii.gz").get_fdata()
    assert own.shape[-1] == len(conditions) == 9
    population = Population.build(SMALL)
    session = build_session(population, draw_participant(population, 2), "PA")
    for row, activation in zip(conditions.itertuples(), session.maps, strict=True):
        expected = on_grid(activation * session.head.mask, session.head, population.grid)
        np.testing.assert_allclose(own[..., row.index].T, expected, atol=0.002)
        name = f"task-{row.task}_cond-{row.trial_type}_desc-activation.nii.gz"
        assert nib.load(truth / "group" / name).get_fdata().max() == pytest.approx(
            row.peak, abs=0.002
        )


@pytest.mark.validator
@pytest.mark.parametrize("part", [".", "derivatives/fmriprep-phantom", "derivatives/truth"])
def test_datasets_are_valid_bids(small_cohort, part):
    issues = validator_issues(small_cohort / part)
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def digest(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_bytes_depend_on_the_seed_alone(tmp_path):
    config = replace(SMALL, n_participants=2, n_volumes=16, voxel_size=12.0, tasks=("MOTOR",))
    one = simulate_cohort(tmp_path / "one", config, nprocs=1, progress=False)
    two = simulate_cohort(tmp_path / "two", config, nprocs=2, progress=False)
    assert digest(one) == digest(two)
    other = simulate_cohort(tmp_path / "other", replace(config, seed=1), progress=False)
    name = "sub-01/func/sub-01_task-MOTOR_dir-AP_bold.nii.gz"
    assert digest(one)[name] != digest(other)[name]
    more = replace(config, n_participants=1, tasks=("WM", "MOTOR"))
    subset = simulate_cohort(tmp_path / "more", more, progress=False)
    assert digest(subset)[name] == digest(one)[name]


def test_full_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        simulate_cohort(tmp_path, SMALL, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_of_a_cohort_that_failed(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cohort, "write_image", full_disk)
    with pytest.raises(InputOutputError, match="No space left"):
        simulate_cohort(tmp_path / "bids", SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fmrisynth.phantom", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_tells_every_option():
    text = run_command("--help").stdout
    for option in ("participants", "volumes", "t-r", "voxel-size", "tsnr", "effect-size", "task"):
        assert f"-{option} " in text
    assert "--seed" in text
    assert "--nprocs" in text


def test_command_line_writes_and_refuses(tmp_path):
    options = ["--n-participants", 1, "--n-volumes", 16, "--voxel-size", 12, "--task", "SOCIAL"]
    done = run_command(tmp_path / "bids", *options, "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bids" / "participants.tsv").exists()
    again = run_command(tmp_path / "bids", *options)
    assert again.returncode == OutputError.exit_code
    assert "not an empty folder" in again.stderr
    assert "Traceback" not in again.stderr
    assert run_command(tmp_path / "new", "--n-volumes", 4).returncode == 64
