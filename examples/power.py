"""Ask how many participants and runs a design needs, on drawn participants.

python examples/power.py BIDS_DIR MODEL_DIR OUTPUT_DIR TASK TRIAL_TYPE PICTURE [DESIGN]

Participants are drawn (``individuals="drawn"``): each sample of a participant is another one, with
responses and networks of nobody. DESIGN is a table of events to try out in place of the runs' own.
The effect is that of the voxels which respond most in the real training participants; power is the
share of experiments with N drawn participants in which a one-sided t-test finds it at p < .05.

Power rests on the sizes and differences that the model has learned: where its verdict on
"Differences between participants and runs" is no, so is the verdict on this figure.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from nilearn.glm.first_level import FirstLevelModel
from scipy.stats import ttest_1samp

import fmrisynth
from fmrisynth.bids.dataset import Run

DRAWS, EXPERIMENTS, VOXELS, ALPHA, MOST = 6, 500, 20, 0.05, 20


def effect_map(run: Run, trial_type: str) -> np.ndarray:
    """Fit a GLM and return the effect of a trial type, percent signal change, (X, Y, Z)."""
    model = FirstLevelModel(
        t_r=run.t_r, hrf_model="glover", high_pass=1 / 128, noise_model="ols", mask_img=run.mask,
        signal_scaling=0, slice_time_ref=run.start_time / run.t_r, minimize_memory=True,
    )  # fmt: skip
    fitted = model.fit(str(run.bold), str(run.events))
    return fitted.compute_contrast(trial_type, output_type="effect_size").get_fdata()


def main(
    bids_dir: Path,
    model_dir: Path,
    output_dir: Path,
    task: str,
    trial_type: str,
    picture: Path,
    design: Path | None = None,
    draws: int = DRAWS,
) -> dict[int, dict[int, float]]:
    """Return the power by the number of runs and of participants, and draw it."""
    dataset, model = fmrisynth.find_runs(bids_dir), fmrisynth.Model.load(model_dir)
    runs = [run for run in dataset.runs if run.task == task]
    training = [r for r in runs if model.info.split.role(r.participant) == "training"]
    strength = np.mean([effect_map(run, trial_type) for run in training], axis=0)
    place = strength >= np.sort(strength, axis=None)[-VOXELS]

    if design is not None:
        runs = [replace(run, events=design.resolve()) for run in runs]
    synthetic = fmrisynth.synthesise(
        model, runs, output_dir, source=dataset, individuals="drawn", n_samples=draws
    )
    # copy k of a participant's n-th run is run (n − 1) · draws + k: its k-th drawn participant
    effects: dict[tuple[str, int], list[float]] = {}
    for run in synthetic:
        drawn = (run.participant, (int(run.entities["run"]) - 1) % draws)
        effects.setdefault(drawn, []).append(float(effect_map(run, trial_type)[place].mean()))

    power = {
        n_runs: _power(np.array([np.mean(own[:n_runs]) for own in effects.values()]))
        for n_runs in range(1, min(map(len, effects.values())) + 1)
    }
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for n_runs, by_n in power.items():
        axis.plot(by_n.keys(), by_n.values(), "o-", label=f"{n_runs} run{'s' * (n_runs > 1)}")
    axis.axhline(0.8, color="#b0bec5", lw=1)
    axis.set(xlabel="participants", ylabel="power", ylim=(0, 1.03), title=f"{task}: {trial_type}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    return power


def _power(effects: np.ndarray) -> dict[int, float]:
    """Return the share of experiments that find the effect, by the number of participants."""
    rng, power = np.random.default_rng(0), {}
    most = min(MOST, len(effects) // 2)  # of no more than half, so that experiments differ
    for n in range(3, most + 1):
        samples = np.array([rng.choice(effects, n, replace=False) for _ in range(EXPERIMENTS)])
        found = ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue < ALPHA
        power[n] = float(found.mean())
    return power


if __name__ == "__main__":
    if len(sys.argv) not in (7, 8):
        sys.exit(__doc__)
    folders, names, files = sys.argv[1:4], sys.argv[4:6], sys.argv[6:]
    for n_runs, by_n in main(*map(Path, folders), *names, *map(Path, files)).items():
        print(f"{n_runs} runs:", *(f"N={n} {share:.2f}" for n, share in by_n.items()))
