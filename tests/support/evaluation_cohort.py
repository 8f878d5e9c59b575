"""Write a tiny cohort, and synthetic runs with one planted fault each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix
from scipy.ndimage import gaussian_filter

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY

SHAPE = (10, 12, 10)
VOXEL = 9.0  # mm
N_VOLUMES, T_R = 48, 2.0
TASKS = {"faces": ("fear", "happy"), "hands": ("left", "right"), "words": ("noun", "verb")}
AFFINE = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
AFFINE[:3, 3] = -VOXEL * (np.array(SHAPE) - 1) / 2
TRAINING = tuple(f"{i:02d}" for i in range(1, 7))
HELD_OUT = ("07", "08", "09", "10")


def _smooth(rng: np.random.Generator, sigma: float) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=SHAPE), sigma)
    return field / field.std()


def _mask() -> np.ndarray:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return sum(a**2 for a in axes) < 1.0


@dataclass(frozen=True)
class Recipe:
    """What a cohort's runs are made of."""

    amplitude: float = 1.0
    individual: float = 1.0
    noise: float = 1.0
    lag1: float = 0.4
    one_map: bool = False
    noise_seed: int = 0
    sample: int = 0


def _group_maps() -> dict[tuple[str, str], np.ndarray]:
    rng = np.random.default_rng(11)
    maps = {}
    for task, trial_types in TASKS.items():
        base = np.maximum(_smooth(rng, 1.2) - 0.8, 0)
        for trial_type in trial_types:
            maps[task, trial_type] = 1.4 * base + 0.7 * np.maximum(_smooth(rng, 1.0) - 1, 0)
    return maps


def _events(task: str) -> pd.DataFrame:
    onsets = np.arange(8.0, 84.0, 20.0)
    names = [TASKS[task][i % 2] for i in range(len(onsets))]
    return pd.DataFrame({"onset": onsets, "duration": 10.0, "trial_type": names})


def _fluctuations(rng: np.random.Generator, participant: int, recipe: Recipe) -> np.ndarray:
    noise = gaussian_filter(rng.normal(size=(*SHAPE, N_VOLUMES)), (0.7, 0.7, 0.7, 0))
    # Networks of the participant's own: fixed places, common course.
    places = np.random.default_rng([participant, 5])
    networks = np.stack([_smooth(places, 1.5) for _ in range(3)], axis=-1)
    noise = noise / noise.std() + 0.5 * networks @ rng.normal(size=(3, N_VOLUMES))
    for t in range(1, N_VOLUMES):
        noise[..., t] = (
            recipe.lag1 * noise[..., t - 1] + np.sqrt(1 - recipe.lag1**2) * noise[..., t]
        )
    return noise


def write_cohort(
    root: Path, participants: Iterable[str], recipe: Recipe | None = None
) -> list[Run]:
    """Write two runs of each task for each participant."""
    recipe = recipe or Recipe()
    maps, mask = _group_maps(), _mask()
    runs = []
    for participant in participants:
        for task in TASKS:
            for direction in ("AP", "PA"):
                runs.append(_write_run(root, participant, task, direction, recipe, maps, mask))
    return runs


def _write_run(root, participant, task, direction, recipe, maps, mask) -> Run:
    number = int(participant)
    rng = np.random.default_rng([recipe.noise_seed, number, hash_of(task), len(direction + "x"),
                                 direction == "AP"])  # fmt: skip
    anatomy = 1000 * (1 + 0.1 * _smooth(np.random.default_rng([number, 7]), 1.0))
    events = _events(task)
    design = make_first_level_design_matrix(T_R * np.arange(N_VOLUMES), events, drift_model=None)
    signal = np.zeros((*SHAPE, N_VOLUMES))
    for trial_type in TASKS[task]:
        own = np.random.default_rng([number, hash_of(task), hash_of(trial_type)])
        effect = maps[task, trial_type]
        if recipe.one_map:
            effect = np.mean(list(maps.values()), axis=0)
        effect = effect + recipe.individual * 0.5 * _smooth(own, 1.2)
        signal += recipe.amplitude * effect[..., None] * design[trial_type].to_numpy()
    signal += recipe.noise * 1.2 * _fluctuations(rng, number, recipe)
    data = anatomy[..., None] * (1 + signal / 100) * mask[..., None]
    return save_run(root, participant, task, direction, data, mask, sample=recipe.sample)


def hash_of(text: str) -> int:
    """Stable number for a name."""
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % 10007


def save_run(
    root: Path,
    participant: str,
    task: str,
    direction: str,
    data,
    mask,
    affine=AFFINE,
    sample: int = 0,
) -> Run:
    """Write one run with its mask and events; samples are told apart as in synthetic datasets."""
    folder = root / f"sub-{participant}" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    entities = {"sub": participant, "task": task, "dir": direction}
    if sample:
        entities["run"] = str(sample)
    stem = "_".join(f"{key}-{label}" for key, label in entities.items())
    bold, brain = folder / f"{stem}_bold.nii.gz", folder / f"{stem}_desc-brain_mask.nii.gz"
    image = nib.Nifti1Image(data.astype(np.float32), affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], T_R))
    nib.save(image, bold)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), brain)
    events = folder / f"{stem}_events.tsv"
    _events(task).to_csv(events, sep="\t", index=False)
    return Run(
        entities=entities,
        bold=bold,
        mask=brain,
        events=events,
        space="MNI152NLin2009cAsym",
        resolution=None,
        t_r=T_R,
        start_time=0.0,
        shape=tuple(data.shape[:3]),
        n_volumes=data.shape[3],
        affine=affine,
        phase_encoding="j" if direction == "AP" else "j-",
        metadata={PROVENANCE_KEY: {"Sample": sample}} if sample else {},
    )


def write_copies(
    root: Path, sources: list[Run], targets: list[Run], *, shift: int = 0
) -> list[Run]:
    """Give each target run the percent signal change of another participant's run.

    With a shift, what is copied starts that many volumes later, and its end
    comes first.
    """
    donors = {
        (participant, run.task, run.entities["dir"]): run
        for participant in {r.participant for r in sources}
        for run in sources
        if run.participant == participant
    }
    participants = sorted({run.participant for run in sources})
    copies = []
    for run in targets:
        donor = participants[int(run.participant) % len(participants)]
        source = donors[donor, run.task, run.entities["dir"]]
        copies.append(_with_own_mean(root, run, np.roll(_change(source), shift, axis=3)))
    return copies


def write_mean_runs(root: Path, sources: list[Run], targets: list[Run]) -> list[Run]:
    """Give everybody the mean of the training runs of the task, and noise that is everybody's."""
    made = []
    for run in targets:
        alike = [
            r for r in sources if (r.task, r.entities["dir"]) == (run.task, run.entities["dir"])
        ]
        mean = np.mean([_change(source) for source in alike], axis=0)
        # As much noise as real runs have, but the same for all: no other figure should see it.
        common = np.random.default_rng(hash_of(run.task + run.entities["dir"]))
        missing = 1.2 * np.sqrt(1 - 1 / len(alike)) / 100
        made.append(_with_own_mean(root, run, mean + missing * _fluctuations(common, 99, Recipe())))
    return made


def _change(run: Run) -> np.ndarray:
    """Signal of a run over its mean."""
    data = nib.load(run.bold).get_fdata()
    mean = data.mean(axis=3, keepdims=True)
    return np.divide(data, mean, out=np.ones_like(data), where=mean > 0)


def _with_own_mean(root: Path, run: Run, change: np.ndarray) -> Run:
    own = nib.load(run.bold).get_fdata().mean(axis=3, keepdims=True)
    mask = np.asarray(nib.load(run.mask).dataobj) > 0
    return save_run(root, run.participant, run.task, run.entities["dir"], own * change, mask)
