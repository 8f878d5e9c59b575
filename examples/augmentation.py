"""Train a decoder of trial types on real runs, synthetic runs and both; test it on real ones.

python examples/augmentation.py BIDS_DIR MODEL_DIR OUTPUT_DIR TASK PICTURE

The honest n: the decoder learns from the participants that the model has learned from, and is
tested on those that neither has seen. Synthetic runs add no participants, however many there are,
so that accuracy and its standard error are over the real participants of the test.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from nilearn.glm.first_level import FirstLevelModel
from nilearn.image import resample_img
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fmrisynth
from fmrisynth.bids.dataset import Run

SAMPLES, CUBE = 4, 12.0  # synthetic runs for each real one; mm


def samples_of(runs: list[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a GLM to each run: effects on cubes of 12 mm, their trial types, their participants."""
    effects, types, participants = [], [], []
    for run in runs:
        model = FirstLevelModel(
            t_r=run.t_r, hrf_model="glover", high_pass=1 / 128, noise_model="ols",
            mask_img=run.mask, signal_scaling=0, slice_time_ref=run.start_time / run.t_r,
        ).fit(str(run.bold), str(run.events))  # fmt: skip
        names = [c for c in model.design_matrices_[0].columns if not c.startswith(("drift", "con"))]
        for name in names:
            image = model.compute_contrast(name, output_type="effect_size")
            coarse = resample_img(image, target_affine=np.diag([CUBE] * 3), interpolation="linear")
            effects.append(coarse.get_fdata().ravel())
            types.append(name)
            participants.append(run.participant)
    return np.array(effects), np.array(types), np.array(participants)


def main(
    bids_dir: Path,
    model_dir: Path,
    output_dir: Path,
    task: str,
    picture: Path,
    samples: int = SAMPLES,
) -> dict[str, tuple[float, float]]:
    """Return accuracy and standard error over test participants by what was trained on."""
    dataset, model = fmrisynth.find_runs(bids_dir), fmrisynth.Model.load(model_dir)
    split = model.info.split
    runs = [run for run in dataset.runs if run.task == task]
    training = [run for run in runs if split.role(run.participant) == "training"]
    test = samples_of([run for run in runs if split.role(run.participant) == "held_out"])
    synthetic = fmrisynth.synthesise(
        model, training, output_dir, source=dataset, individuals="drawn", n_samples=samples
    )
    real, made = samples_of(training), samples_of(list(synthetic))
    sets = {
        "real": real,
        "synthetic": made,
        "both": tuple(np.concatenate(pair) for pair in zip(real, made, strict=True)),
    }
    accuracy = {}
    for name, (effects, types, _) in sets.items():
        decoder = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(0, 6, 13)))
        correct = decoder.fit(effects, types).predict(test[0]) == test[1]
        each = np.array([correct[test[2] == participant].mean() for participant in set(test[2])])
        error = each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
        accuracy[name] = (float(each.mean()), float(error))
    figure, axis = plt.subplots(figsize=(5, 2.4), layout="constrained")
    axis.barh(list(accuracy), [a for a, _ in accuracy.values()],
              xerr=[e for _, e in accuracy.values()], color="#80cbc4")  # fmt: skip
    chance = 1 / len(set(test[1]))
    axis.axvline(chance, color="#37474f", ls=":")
    axis.text(chance, 1, " chance", va="bottom", transform=axis.get_xaxis_transform())
    n_train, n_test = len(set(real[2])), len(set(test[2]))
    axis.set(xlim=(0, 1), xlabel=f"accuracy: n = {n_test} participants, learned from {n_train}")
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    return accuracy


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    words = sys.argv[1:]
    for name, (share, error) in main(*map(Path, words[:3]), words[3], Path(words[4])).items():
        print(f"{name:10s} {share:.2f} ± {error:.2f}")
