"""Implanted effects are where and as large as their file says, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix
from scipy import stats
from support.bids_tree import write_nifti
from support.tiny_model import blocks, make_run

from fmrisynth.errors import DataError, FmrisynthError, NoInputError, UsageError
from fmrisynth.synthesis.implants import read_implants, unused_effects

SPHERE = {"center": [2.0, 2.0, 2.0], "radius": 9.0}
N, T_R = 160, 2.0


def spec(folder: Path, *effects: dict[str, Any], name: str = "implant.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"effects": effects}))
    return path


def run_of(participant: str = "01"):
    return make_run(entities={"sub": participant, "task": "motor"}, n_volumes=N, t_r=T_R)


def noise(run, seed: int, sd: float = 0.6) -> np.ndarray:
    """Voxels of mean 800 with white noise (%)."""
    rng = np.random.default_rng(seed)
    return (800 * (1 + sd / 100 * rng.standard_normal((*run.shape, N)))).astype("f4")


def recovered(data: np.ndarray, run, events) -> tuple[np.ndarray, np.ndarray]:
    """Effect (%) and t of "hand" by nilearn's first-level model (ordinary least squares)."""
    design = make_first_level_design_matrix(
        run.start_time + np.arange(N) * T_R, events, hrf_model="glover"
    )
    x = design.to_numpy()
    y = data.reshape(-1, N).T.astype(float)
    y = 100 * (y / y.mean(0) - 1)
    inverse = np.linalg.pinv(x)
    beta = inverse @ y
    rest = ((y - x @ beta) ** 2).sum(0) / (N - np.linalg.matrix_rank(x))
    column = list(design.columns).index("hand")
    se = np.sqrt(rest * (inverse @ inverse.T)[column, column])
    return beta[column].reshape(run.shape), (beta[column] / se).reshape(run.shape)


def test_a_group_finds_the_effect_at_its_size_and_nothing_elsewhere(tmp_path: Path) -> None:
    """20 participants: within 5 % of the size, the spread that was asked for, nominal elsewhere."""
    implants = read_implants(
        spec(tmp_path, {"trial_type": "hand", "sphere": SPHERE, "size": 1.0, "spread": 0.25})
    )
    events = blocks("hand", "foot", "hand", "foot", "hand", "foot", gap=50)
    effects, truths = [], []
    for number in range(20):
        run = run_of(f"{number:02d}")
        data = noise(run, number)
        truth = implants.add(data, np.ones(run.shape, bool), run, events, seed=3)
        truths.append(truth["hand"])
        effects.append(recovered(data, run, events)[0])
    stacked, truth = np.array(effects), np.array(truths)
    inside = truth[0] != 0
    assert 20 < inside.sum() < 0.5 * inside.size
    assert stacked[:, inside].mean() == pytest.approx(truth[:, inside].mean(), rel=0.05)
    own = truth[:, inside].mean(1)
    assert own.mean() == pytest.approx(1.0, abs=3 * 0.25 / 20**0.5)
    assert own.std(ddof=1) == pytest.approx(0.25, rel=0.4)
    assert np.corrcoef(own, stacked[:, inside].mean(1))[0, 1] > 0.95
    p = stats.ttest_1samp(stacked[:, ~inside], 0).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    assert (stats.ttest_1samp(stacked[:, inside], 0).pvalue < 1e-4).all()


def test_the_spread_is_the_same_in_all_runs_of_a_participant(tmp_path: Path) -> None:
    implants = read_implants(
        spec(tmp_path, {"trial_type": "hand", "sphere": SPHERE, "d": 0.8, "spread": 0.5})
    )
    maps = []
    for participant, seed in (("01", 0), ("01", 1), ("02", 0)):
        run = run_of(participant)
        mask = np.ones(run.shape, bool)
        maps.append(implants.add(noise(run, seed), mask, run, blocks("hand"), seed=0)["hand"])
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])
    assert implants.effects[0].size == pytest.approx(0.4)  # d is the mean over the spread


def test_delay_moves_the_response(tmp_path: Path) -> None:
    run, events = run_of(), blocks("hand", gap=50)
    courses = []
    for delay in (0.0, 4.0):
        implants = read_implants(
            spec(tmp_path, {"trial_type": "hand", "sphere": SPHERE, "size": 2, "delay": delay})
        )
        data = np.full((*run.shape, N), 800, "f4")
        truth = implants.add(data, np.ones(run.shape, bool), run, events, 0)
        courses.append(data[truth["hand"] != 0].mean(0))
    assert np.argmax(courses[1]) - np.argmax(courses[0]) == pytest.approx(4.0 / T_R, abs=1)


def test_maps_and_regions(tmp_path: Path) -> None:
    run = run_of()
    volume = np.zeros(run.shape, "f4")
    volume[2:4, 2:4, 2:4] = 1.0
    volume[5, 5, 5] = -0.5
    write_nifti(tmp_path / "map.nii.gz", volume, run.affine)
    write_nifti(tmp_path / "atlas.nii.gz", ((volume > 0) * 7).astype("u1"), run.affine)
    implants = read_implants(
        spec(
            tmp_path,
            {"trial_type": "hand", "map": "map.nii.gz", "size": 2.0},
            {"trial_type": "foot", "region": {"atlas": "atlas.nii.gz", "label": 7}, "size": -1.0},
        )
    )
    data = noise(run, 0)
    before = data.copy()
    mask = np.ones(run.shape, bool)
    mask[2, 2, 2] = False
    truth = implants.add(data, mask, run, blocks("hand", "foot"), 0)
    np.testing.assert_allclose(truth["hand"], 2 * volume * mask)
    np.testing.assert_allclose(truth["foot"], -1.0 * (volume > 0) * mask)
    untouched = (truth["hand"] == 0) & (truth["foot"] == 0)
    np.testing.assert_array_equal(data[untouched], before[untouched])
    assert (data[~untouched] != before[~untouched]).any(axis=-1).all()


def test_effects_without_events_are_left_out(tmp_path: Path) -> None:
    run = run_of()
    implants = read_implants(
        spec(
            tmp_path,
            {"trial_type": "hand", "task": "task-other", "sphere": SPHERE, "size": 1},
            {"trial_type": "foot", "sphere": SPHERE, "size": 1},
        )
    )
    data = noise(run, 0)
    before = data.copy()
    assert implants.add(data, np.ones(run.shape, bool), run, blocks("hand"), 0) == {}
    np.testing.assert_array_equal(data, before)
    assert unused_effects(implants, [("motor", {"hand"})]) == ["foot", "hand"]
    assert unused_effects(implants, [("other", {"hand"}), ("motor", {"foot"})]) == []


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "implant.toml"
    toml.write_text(
        '[[effects]]\ntrial_type = "hand"\nsize = 1.5\n'
        "sphere = {center = [2.0, 2.0, 2.0], radius = 9.0}\n"
    )
    (one,) = read_implants(toml).effects
    (other,) = read_implants(
        spec(tmp_path, {"trial_type": "hand", "size": 1.5, "sphere": SPHERE})
    ).effects
    for name in ("trial_type", "task", "size", "spread", "delay", "centre", "radius"):
        assert getattr(one, name) == getattr(other, name)


GOOD = {"trial_type": "hand", "sphere": SPHERE, "size": 1.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"colour": "red"}, UsageError, "unknown 'colour'"),
        ({"trial_type": None}, UsageError, "no trial_type"),
        ({"sphere": None}, UsageError, "no place"),
        ({"map": "a.nii"}, UsageError, "map and sphere"),
        ({"d": 1.0}, UsageError, "size and d"),
        ({"size": None}, UsageError, "no size"),
        ({"size": "big"}, UsageError, "size is 'big'; a number"),
        ({"size": True}, UsageError, "a number is expected"),
        ({"size": None, "d": 0.5}, UsageError, "more than 0 where d is given"),
        ({"spread": -1}, UsageError, "spread between participants is -1"),
        ({"sphere": {"center": [0, 0]}}, UsageError, "expected center and radius"),
        ({"sphere": {"center": [0, 0], "radius": 1}}, UsageError, "three numbers"),
        ({"sphere": {"center": [0, 0, 0], "radius": 0}}, UsageError, "more than 0 mm"),
        ({"sphere": None, "map": "absent.nii"}, NoInputError, "there is no image"),
        ({"sphere": None, "map": "implant.json"}, DataError, "NIfTI"),
    ],
)
def test_wrong_effects_are_refused(
    tmp_path: Path, change: dict, error: type[FmrisynthError], message: str
) -> None:
    effect = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(error, match=message) as raised:
        read_implants(spec(tmp_path, effect))
    assert "implant.json" in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"effects": []}', '{"effects": [1]}'])
def test_wrong_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "implant.json"
    path.write_text(content)
    with pytest.raises((DataError, UsageError), match=r"implant\.json"):
        read_implants(path)
    with pytest.raises(NoInputError, match="there is no such file"):
        read_implants(tmp_path / "absent.json")


def test_the_digest_changes_with_the_images(tmp_path: Path) -> None:
    run = run_of()
    path = spec(tmp_path, {"trial_type": "hand", "map": "map.nii.gz", "size": 1})
    digests = set()
    for value in (1.0, 2.0):
        write_nifti(tmp_path / "map.nii.gz", np.full(run.shape, value, "f4"), run.affine)
        digests.add(read_implants(path).digest)
    assert len(digests) == 2
