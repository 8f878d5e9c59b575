"""The simulators behind one interface: fmrisim's noise, the group's response, their files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import make_bids, write_nifti

from fmrisynth.baselines import BASELINES
from fmrisynth.baselines.fmrisim import Fmrisim, TrainingNoise, fit_fmrisim, simulate
from fmrisynth.baselines.group_response import GroupResponse, fit_group_response
from fmrisynth.baselines.writing import write_simulated_runs
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError, UsageError
from fmrisynth.preprocess.carrier import split
from fmrisynth.runtime.randomness import keyed_seed
from fmrisynth.runtime.workers import spread

HIGH_PASS = 1 / 128
ACTIVE = {"hand": 2, "foot": 3}  # plane of the cohort's active voxels, see conftest


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, ...]:
    """Six participants with one motor run of two minutes each, and an even anatomy."""
    root = make_bids(
        tmp_path_factory.mktemp("fmrisim") / "bids",
        participants=[f"{n:02d}" for n in range(1, 7)],
        tasks=("motor",),
        n_volumes=60,
    )
    found = find_runs(root).runs
    for run in found:
        # the cohort's anatomy is white noise, of which fmrisim can say no smoothness
        image = nib.Nifti1Image.from_filename(run.bold)
        data = image.get_fdata(dtype=np.float32)
        mean = data.mean(axis=3, keepdims=True)
        even = np.where(mean > 0, 1000 + 20 * np.arange(len(mean))[:, None, None, None], 0)
        write_nifti(run.bold, data - mean + even, image.affine, t_r=run.t_r)
    return found


@pytest.fixture(scope="module")
def model(runs: tuple[Run, ...]) -> Fmrisim:
    """fmrisim as two runs estimate it."""
    pytest.importorskip("brainiak.utils.fmrisim")
    return replace(fit_fmrisim(runs[:2], HIGH_PASS, 0), fit_iterations=1)


@pytest.fixture
def no_brainiak(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brainiak", "brainiak.utils", "brainiak.utils.fmrisim"):
        monkeypatch.setitem(sys.modules, name, None)


def residual_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Residual (X, Y, Z, T) % and brain."""
    carrier, residual = split(load_bold(run), HIGH_PASS)
    return residual, carrier.mask


def effect(residual: np.ndarray, course: np.ndarray) -> np.ndarray:
    """Least-squares amplitude of a course at each voxel."""
    return residual @ course / (course @ course)


@pytest.mark.usefixtures("no_brainiak")
class TestWithoutBrainIAK:
    def test_the_message_says_what_to_install(self, runs: tuple[Run, ...], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"pip install 'fmrisynth\[fmrisim\]'"):
            BASELINES["fmrisim"](runs[:2], runs[2:3], tmp_path, HIGH_PASS, 0)
        assert not any(tmp_path.iterdir())

    def test_the_other_baseline_works(self, runs: tuple[Run, ...], tmp_path: Path) -> None:
        written = BASELINES["group-glm"](runs[:3], runs[3:4], tmp_path, HIGH_PASS, 0)
        assert [run.participant for run in written] == [runs[3].participant]


def test_processes_change_nothing(runs: tuple[Run, ...], tmp_path: Path) -> None:
    written = []
    for folder, nprocs in (("one", 1), ("two", 2)):
        with spread(nprocs) as each:
            (run,) = BASELINES["group-glm"](
                runs[:3], runs[3:4], tmp_path / folder, HIGH_PASS, 0, each
            )
        written.append(load_bold(run).data)
    np.testing.assert_array_equal(*written)


def test_naming_the_baselines_loads_none_of_them() -> None:
    code = (
        "import sys; from fmrisynth.baselines import BASELINES; assert set(BASELINES) == "
        "{'group-glm', 'fmrisim'}; assert not {'torch', 'brainiak'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


class TestGroupResponse:
    def test_evokes_each_response_where_it_is(self, runs: tuple[Run, ...]) -> None:
        response = fit_group_response(runs[:4], HIGH_PASS)
        carrier, real = split(load_bold(runs[4]), HIGH_PASS)
        evoked = response.evoked_on(runs[4], carrier)
        assert evoked.shape == real.shape
        for plane in ACTIVE.values():
            here = np.s_[plane, 3:6, 3:6]
            assert np.corrcoef(evoked[here].ravel(), real[here].ravel())[0, 1] > 0.7
        assert evoked[5:].std() < 0.3 * evoked[2:4, 3:6, 3:6].std()

    def test_unknown_trial_types_evoke_nothing(self, runs: tuple[Run, ...]) -> None:
        response = fit_group_response(runs[:2], HIGH_PASS)
        known = GroupResponse(response.grid, {}, HIGH_PASS)
        assert not known.evoked(runs[2]).any()
        assert response.evoked(runs[2]).any()

    def test_no_run_is_an_error(self) -> None:
        with pytest.raises(DataError, match="there are none"):
            fit_group_response([], HIGH_PASS)


class TestFiles:
    @staticmethod
    def copying(seen: list[tuple[str, int]]) -> Callable[[], Callable]:
        """A simulator that repeats the run, and notes what it was asked for."""

        def copy(run: Run, seed: int):
            seen.append((run.label, seed))
            carrier, _ = split(load_bold(run), HIGH_PASS)
            return load_bold(run).data, carrier

        return lambda: copy

    def test_only_missing_runs_are_made_each_with_its_own_seed(
        self, runs: tuple[Run, ...], tmp_path: Path
    ) -> None:
        first: list[tuple[str, int]] = []
        write_simulated_runs("copy", self.copying(first), runs[:3], tmp_path, 5)
        assert len({seed for _, seed in first}) == 3
        next(tmp_path.glob(f"sub-{runs[1].participant}/func/*_bold.json")).unlink()
        again: list[tuple[str, int]] = []
        written = write_simulated_runs("copy", self.copying(again), runs[:3], tmp_path, 5)
        assert again == [first[1]]
        assert len(written) == 3
        provenance = written[0].metadata["FmrisynthProvenance"]
        assert (provenance["Generator"], provenance["RandomSeed"]) == ("copy", 5)

    def test_the_seed_of_a_run_does_not_depend_on_which_others_are_written(
        self, runs: tuple[Run, ...], tmp_path: Path
    ) -> None:
        whole: list[tuple[str, int]] = []
        part: list[tuple[str, int]] = []
        write_simulated_runs("copy", self.copying(whole), runs[:3], tmp_path / "a", 5)
        write_simulated_runs("copy", self.copying(part), runs[2:0:-1], tmp_path / "b", 5)
        assert dict(part).items() <= dict(whole).items()

    def test_nothing_is_fitted_when_all_are_there(
        self, runs: tuple[Run, ...], tmp_path: Path
    ) -> None:
        write_simulated_runs("copy", self.copying([]), runs[:1], tmp_path, 5)

        def fit() -> Callable:
            raise AssertionError("fitted")

        assert len(write_simulated_runs("copy", fit, runs[:1], tmp_path, 5)) == 1


class TestFmrisim:
    def test_evokes_the_response_where_it_should_be(
        self, model: Fmrisim, runs: tuple[Run, ...]
    ) -> None:
        run = runs[4]
        data, carrier = simulate(model, run, 1)
        assert data.shape == (*run.shape, run.n_volumes)
        assert data.dtype == np.float32
        assert not data[~carrier.mask].any()
        _, simulated = split(replace(load_bold(run), data=data), HIGH_PASS)
        evoked = model.response.evoked_on(run, carrier)
        for plane in ACTIVE.values():
            here = np.zeros(run.shape, bool)
            here[plane, 3:6, 3:6] = True
            course = evoked[here].mean(0)
            found = effect(simulated, course)
            assert found[here].mean() == pytest.approx(1, abs=0.2)
        quiet = carrier.mask.copy()
        quiet[1:5] = False
        assert abs(found[quiet].mean()) < 0.2

    def test_noise_is_as_strong_as_the_training_runs(
        self, model: Fmrisim, runs: tuple[Run, ...]
    ) -> None:
        data, carrier = simulate(model, runs[5], 2)
        _, simulated = split(replace(load_bold(runs[5]), data=data), HIGH_PASS)
        quiet = carrier.mask.copy()
        quiet[1:5] = False
        real = [residual_of(run)[0][quiet].var(axis=1).mean() for run in runs[:2]]
        assert simulated[quiet].var(axis=1).mean() == pytest.approx(np.mean(real), rel=0.25)

    def test_is_repeatable_and_leaves_the_global_generator_alone(
        self, model: Fmrisim, runs: tuple[Run, ...]
    ) -> None:
        quick = replace(model, fit_iterations=0)
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        one, two, other = (simulate(quick, runs[5], seed)[0] for seed in (3, 3, 4))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, other)
        assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_takes_the_noise_of_the_same_task(self, model: Fmrisim, runs: tuple[Run, ...]) -> None:
        loud = TrainingNoise("rest", {**model.noises[0].parameters, "sfnr": 5.0})
        quick = replace(model, fit_iterations=0)
        mixed = replace(quick, noises=(loud, *model.noises))
        spread = [simulate(m, runs[5], 3)[0].std(axis=3).mean() for m in (quick, mixed)]
        assert spread[1] == pytest.approx(spread[0], rel=0.2)
        elsewhere = simulate(replace(quick, noises=(loud,)), runs[5], 3)[0]
        assert elsewhere.std(axis=3).mean() > 3 * spread[0]

    def test_writes_runs_that_say_where_they_come_from(
        self, model: Fmrisim, runs: tuple[Run, ...], tmp_path: Path
    ) -> None:
        quick = partial(simulate, replace(model, fit_iterations=0))
        (written,) = write_simulated_runs("fmrisim", lambda: quick, runs[5:6], tmp_path, 7)
        assert written.label == runs[5].label
        assert written.metadata["FmrisynthProvenance"]["Generator"] == "fmrisim"
        data = quick(runs[5], keyed_seed(7, "fmrisim", runs[5].label))[0]
        assert np.allclose(load_bold(written).data, data, atol=0.5)
