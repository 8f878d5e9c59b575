"""`--realism full`: what it has that a stationary Gaussian cohort has not, and its truth."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor
from support.validator import validator_issues

from fmrisynth.bids.confounds import read_motion
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import UsageError
from fmrisynth.phantom import PhantomConfig, simulate_cohort
from fmrisynth.phantom.motion import MOTION_COLUMNS, draw_motion
from fmrisynth.phantom.noise import draw_connectivity, task_mixing
from fmrisynth.phantom.physiology import arousal_course, draw_physiology, periodic_course
from fmrisynth.phantom.realistic import (
    build_realistic_session,
    draw_realistic_participant,
    simulate_realistic_run,
)
from fmrisynth.phantom.regional import draw_regional_response, regional_courses
from fmrisynth.phantom.responses import WEIGHTS, haemodynamic_response
from fmrisynth.phantom.simulation import (
    Population,
    build_session,
    draw_participant,
    run_generator,
    simulate_run,
)
from fmrisynth.phantom.traits import COUPLING, couple, draw_traits, trait_fields, trait_patterns
from fmrisynth.synthesis.confounds import framewise_displacement

pytestmark = pytest.mark.slow

CONFIG = PhantomConfig(
    n_participants=8, n_volumes=120, voxel_size=12.0, tsnr=200.0, tasks=("WM",), realism="full"
)
MODELS = {
    "gaussian": (draw_participant, build_session, simulate_run),
    "full": (draw_realistic_participant, build_realistic_session, simulate_realistic_run),
}


@pytest.fixture(scope="module")
def population():
    return Population.build(CONFIG)


@pytest.fixture(scope="module")
def statistics(population):
    """What is measured in one run of each of eight participants, by realism."""
    return {realism: measure(population, *functions) for realism, functions in MODELS.items()}


def measure(population, draw, image, simulate):
    rows = []
    for index in range(CONFIG.n_participants):
        participant = draw(population, index)
        session = image(population, participant, "AP")
        rng = run_generator(CONFIG, index, "WM", "AP")
        signal = simulate(population, participant, session, "WM", rng).signal
        signal = signal[:, session.head.mask]
        place = (np.arange(len(signal))[:, None] + 0.5) * np.arange(4)
        drift = np.cos(np.pi * place / len(signal))
        residual = signal - drift @ np.linalg.lstsq(drift, signal, rcond=None)[0]
        scaled = residual / residual.std(axis=0)
        frames, voxels = np.mean(scaled**2, axis=1), np.mean(residual**2, axis=0)
        windows = np.log(residual.reshape(12, 10, -1).std(axis=1)).mean(axis=1)
        rows.append(
            {
                "frames": frames.max() / np.median(frames),
                "voxels": voxels.mean() / np.median(voxels),
                "level": np.log(np.median(residual.std(axis=0))),
                "lag 1": np.median((scaled[1:] * scaled[:-1]).mean(axis=0)),
                "windows": windows.std(),
                "kurtosis": np.median((scaled**4).mean(axis=0)),
                "common": scaled.mean(axis=1).var(),
            }
        )
    return pd.DataFrame(rows)


def test_tails_and_changes_of_variance_are_those_of_real_runs(statistics):
    gaussian, full = statistics["gaussian"].median(), statistics["full"].median()
    # Real runs, see the table of fmrisynth.phantom.realistic.
    assert 2.5 < full["frames"] < 20.0
    assert 1.25 < full["voxels"] < 2.6
    assert 0.08 < full["windows"] < 0.48
    assert 0.15 < full["common"] < 0.5
    assert full["frames"] > 1.5 * gaussian["frames"]
    assert full["windows"] > 1.8 * gaussian["windows"]
    assert full["common"] > 1.5 * gaussian["common"]
    assert full["kurtosis"] > gaussian["kurtosis"]


def test_participants_differ_in_level_and_memory(statistics):
    spread = {realism: table.std() for realism, table in statistics.items()}
    assert 0.15 < spread["full"]["level"] < 0.5
    assert spread["full"]["level"] > 2.0 * spread["gaussian"]["level"]
    assert spread["full"]["lag 1"] > 2.0 * spread["gaussian"]["lag 1"]


def test_glm_finds_the_true_activation(population):
    config = PhantomConfig(
        n_volumes=150, voxel_size=12.0, tsnr=4000.0, tasks=("MOTOR",), realism="full"
    )
    population = Population.build(config)
    participant = draw_realistic_participant(population, 1)
    session = build_realistic_session(population, participant, "PA")
    run = simulate_realistic_run(
        population, participant, session, "MOTOR", np.random.default_rng(0)
    )
    times = config.t_r * np.arange(config.n_volumes)
    columns = [
        compute_regressor(np.stack([e["onset"], e["duration"], np.ones(len(e))]), "spm", times)[0]
        for _, e in run.events.groupby("trial_type")
    ]
    # What the truth says of motion is enough to take it away again.
    nuisance = run.courses.iloc[:, :7].to_numpy()
    place = (np.arange(config.n_volumes)[:, None] + 0.5) * np.arange(6)
    design = np.hstack([*columns, nuisance, np.cos(np.pi * place / config.n_volumes)])
    signal = run.signal[:, session.head.mask]
    percent = 100.0 * signal / signal.mean(axis=0)
    maps = np.linalg.lstsq(design, percent, rcond=None)[0][: len(columns)]
    order = np.argsort([trial_type for _, trial_type in population.conditions])
    truth = session.maps[order][:, session.head.mask]
    assert np.corrcoef(maps.ravel(), truth.ravel())[0, 1] > 0.8
    assert (maps * truth).sum() / (truth**2).sum() == pytest.approx(1.0, abs=0.3)


def test_traits_drive_with_the_coupling_that_is_stated():
    rng = np.random.default_rng(0)
    patterns = trait_patterns((4000,), 1)
    traits = draw_traits(rng)
    traits *= np.sqrt(len(traits)) / np.linalg.norm(traits)
    shared = np.tensordot(traits, patterns, 1)
    values = couple(traits, patterns, rng.standard_normal(4000))
    assert np.corrcoef(values, shared)[0, 1] == pytest.approx(COUPLING, abs=0.05)
    assert values.std() == pytest.approx(1.0, abs=0.05)


def test_trait_fields_have_unit_variance():
    coordinates = np.random.default_rng(0).uniform(-2000, 2000, (3, 3000)).astype(np.float32)
    fields = trait_fields(coordinates, 2, 100.0, 5)
    np.testing.assert_allclose(fields.std(axis=-1), 1.0, atol=0.2)


def test_traits_tie_anatomy_connectivity_and_response_together(population):
    """Participants alike in one are alike in the others."""
    participants = [draw_realistic_participant(population, i) for i in range(40)]

    def similarity(values):
        centred = values - values.mean(axis=0)
        return np.corrcoef(centred)[np.triu_indices(len(centred), 1)]

    traits = np.stack([p.traits for p in participants])
    expected = (traits @ traits.T)[np.triu_indices(len(traits), 1)]
    for values in (
        np.stack([p.anatomy.warp[:, ::4, ::4, ::4].ravel() for p in participants]),
        np.stack([p.connectivity.mixing.ravel() for p in participants]),
        np.stack([np.log(p.response.gain).ravel() for p in participants]),
        np.stack([p.response.displacement.ravel() for p in participants]),
    ):
        assert np.corrcoef(similarity(values), expected)[0, 1] > 0.35


def test_places_differ_by_several_mm():
    responses = [
        draw_regional_response(list(WEIGHTS), np.zeros(3), np.random.default_rng(s))
        for s in range(30)
    ]
    distance = np.linalg.norm([r.displacement for r in responses], axis=1)
    assert 3.0 < distance.mean() < 8.0


def test_regions_have_responses_of_their_own(population):
    response = draw_regional_response(population.conditions, np.zeros(3), np.random.default_rng(0))
    kernels = response.kernels()
    np.testing.assert_allclose(kernels.sum(axis=1), 1.0)
    peaks = 0.05 * kernels.argmax(axis=1)
    assert 0.3 < peaks.std() < 2.0
    events = pd.DataFrame({"onset": [4.0], "duration": [60.0], "trial_type": ["b"]})
    weights = np.zeros((2, len(kernels)))
    weights[1, 3] = 1.5
    courses = regional_courses(
        events, np.ones(1), ["a", "b"], weights, response, np.arange(0.0, 60.0, 2.0)
    )
    assert courses[-3:, 3] == pytest.approx(1.5, rel=0.05)
    assert not np.delete(courses, 3, axis=1).any()
    assert not courses[:2].any()


def test_dispersion_and_undershoot_change_the_form():
    plain = haemodynamic_response()
    wide, deep = haemodynamic_response(0.0, 1.3), haemodynamic_response(0.0, 1.0, 2.0)
    assert (wide > 0.5 * wide.max()).sum() == pytest.approx(
        1.3 * (plain > 0.5 * plain.max()).sum(), rel=0.05
    )
    assert deep.min() < 1.5 * plain.min() < 0.0


def test_coupling_depends_on_the_task():
    connectivity = draw_connectivity(np.random.default_rng(0))
    at_rest = connectivity.mixing @ connectivity.mixing.T
    tasks = [task_mixing(connectivity, task) for task in ("WM", "MOTOR")]
    correlations = [at_rest, *(m @ m.T for m in tasks)]
    pairs = np.stack([c[np.triu_indices(len(c), 1)] for c in correlations])
    similarity = np.corrcoef(pairs)
    assert (similarity[np.triu_indices(3, 1)] < 0.9).all()
    assert (similarity[0, 1:] > 0.2).all()
    assert all(np.allclose(np.diag(c), 1.0) for c in correlations)


def test_arousal_wanders_slowly_around_one():
    physiology = draw_physiology(np.random.default_rng(0))
    course = np.log(arousal_course(physiology, 20_000, 2.0, np.random.default_rng(1)))
    assert course.std() == pytest.approx(physiology.arousal, rel=0.15)
    assert np.median(course) == pytest.approx(0.0, abs=0.05)
    assert np.corrcoef(course[1:], course[:-1])[0, 1] > 0.9


def test_a_heartbeat_is_aliased_by_the_repetition_time():
    times = np.arange(0.0, 400.0, 2.0)
    slow = periodic_course(0.03, times, np.random.default_rng(0))[:, 0]
    fast = periodic_course(0.53, times, np.random.default_rng(0))[:, 0]

    def peak(course):
        return np.fft.rfftfreq(len(course), 2.0)[np.abs(np.fft.rfft(course)).argmax()]

    assert peak(slow) == pytest.approx(0.03, abs=0.005)
    assert peak(fast) == pytest.approx(0.03, abs=0.02)  # 0.53 Hz is sampled at 0.5 Hz


def test_jerks_are_rare_large_and_followed_by_loss():
    physiology = draw_physiology(np.random.default_rng(3))
    motion = draw_motion(physiology, 3000, 2.0, np.zeros(3000), np.random.default_rng(0))
    length = np.linalg.norm(motion.parameters[:, :3], axis=1)
    assert length.max() > 5.0 * np.median(length)
    assert (motion.lost >= 0).all()
    largest = motion.lost.argmax()
    assert motion.lost[largest + 1] > 0.3 * motion.lost[largest]


SMALL = replace(CONFIG, n_participants=2, n_volumes=16, voxel_size=14.0, n_runs=2)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("full") / "bids", SMALL, progress=False)


def test_files_of_a_cohort(cohort, tmp_path):
    folder = cohort
    again = simulate_cohort(tmp_path / "two", SMALL, progress=False)
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert [(folder / n).read_bytes() for n in names] == [(again / n).read_bytes() for n in names]
    runs = sorted(p.name for p in (folder / "sub-01" / "func").glob("*_bold.nii.gz"))
    assert runs == [
        f"sub-01_task-WM_dir-{d}_run-{r}_bold.nii.gz" for d in ("AP", "PA") for r in (1, 2)
    ]
    first, second = (nib.load(folder / "sub-01" / "func" / name).get_fdata() for name in runs[:2])
    assert not np.array_equal(first, second)
    truth = folder / "derivatives" / "truth"
    courses = pd.read_csv(
        truth / "sub-01" / "sub-01_task-WM_dir-AP_run-1_desc-courses_timeseries.tsv", sep="\t"
    )
    assert len(courses) == 16
    assert {"trans_x", "rot_z", "envelope", "task_state", "heart"} <= set(courses)
    sites = pd.read_csv(truth / "sub-02" / "sub-02_desc-sites.tsv", sep="\t")
    assert {"site", "delay", "dispersion", "undershoot", "shift_x"} <= set(sites)
    table = pd.read_csv(truth / "participants_truth.tsv", sep="\t")
    assert {"trait_1", "motion", "jerk_rate", "respiration_rate"} <= set(table)


def test_confounds_hold_the_motion_that_moved_the_images(cohort):
    """Else nothing could be learned of it, and no denoising by them be tried out."""
    for run in find_runs(cohort).runs:
        stem = run.confounds.name.removesuffix("_desc-confounds_timeseries.tsv")
        truth = cohort / "derivatives" / "truth" / f"sub-{run.participant}"
        courses = pd.read_csv(truth / f"{stem}_desc-courses_timeseries.tsv", sep="\t")
        motion = read_motion(run.confounds, run.n_volumes)
        np.testing.assert_array_equal(motion, courses[list(MOTION_COLUMNS)])
        displacement = pd.read_csv(run.confounds, sep="\t")["framewise_displacement"]
        np.testing.assert_allclose(displacement, framewise_displacement(motion), atol=1e-6)


def test_motion_that_is_told_is_the_one_that_moves(population):
    participant = draw_realistic_participant(population, 0)
    session = build_realistic_session(population, participant, "AP")
    still = replace(participant, physiology=replace(participant.physiology, motion=0.0))
    moved, unmoved = (
        simulate_realistic_run(population, p, session, "WM", run_generator(CONFIG, 0, "WM", "AP"))
        for p in (participant, still)
    )
    difference = (moved.signal - unmoved.signal).astype(float)
    told = moved.courses[[*MOTION_COLUMNS, "lost"]].to_numpy()
    left = difference - told @ np.linalg.lstsq(told, difference, rcond=None)[0]
    assert np.square(difference).sum() > 0
    assert np.square(left).sum() < 0.01 * np.square(difference).sum()


@pytest.mark.validator
@pytest.mark.parametrize("part", [".", "derivatives/fmriprep-phantom", "derivatives/truth"])
def test_datasets_are_valid_bids(cohort, part):
    errors = [i for i in validator_issues(cohort / part) if i["severity"] == "error"]
    assert errors == []


def test_unknown_realism_is_refused():
    with pytest.raises(UsageError, match="gaussian or full"):
        PhantomConfig(realism="real")
