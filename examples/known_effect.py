"""Plant an effect of known place and size, and recover it by a first-level GLM.

python examples/known_effect.py BIDS_DIR MODEL_DIR OUTPUT_DIR TASK TRIAL_TYPE PICTURE [OPTION...]

Each OPTION goes to fmrisynth, such as ``--sampling-steps 3``. The runs are written twice, with the
effect and without, from the same seed: what differs is the effect alone, which the GLM is to find
at its size; the GLM of the runs with it finds it on top of what the model has learned, and of
noise.
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from nilearn.glm.first_level import FirstLevelModel

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs

CENTRE, RADIUS, SIZE, SPREAD = (-38, -26, 56), 14, 2.0, 0.5  # mm, mm, %, %


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
    options: tuple[str, ...] = (),
) -> np.ndarray:
    """Return truth, difference of the two estimates, and estimate, for each run, (R, 3), in %."""
    output_dir.mkdir(parents=True, exist_ok=True)
    sphere = {"center": CENTRE, "radius": RADIUS}
    for name, size, spread in (("with", SIZE, SPREAD), ("without", 0.0, 0.0)):
        effect = {"trial_type": trial_type, "sphere": sphere, "size": size, "spread": spread}
        effects = output_dir / f"{name}.json"
        effects.write_text(json.dumps({"effects": [effect]}))
        words = [bids_dir, output_dir / name, "participant", "--model", model_dir, "-t", task]
        words += ["--implant", effects, *options]
        subprocess.run([sys.executable, "-m", "fmrisynth", *words], check=True)

    without = {run.label: run for run in find_synthetic_runs(output_dir / "without")}
    rows = []
    for run in find_synthetic_runs(output_dir / "with"):
        label = "".join(filter(str.isalnum, trial_type))
        stem = run.bold.name.removesuffix("_desc-synth_bold.nii.gz")
        written = run.bold.with_name(
            f"{stem}_contrast-{label}_stat-effect_desc-truth_statmap.nii.gz"
        )
        truth = nib.load(written).get_fdata()
        place = truth != 0
        found, before = (effect_map(r, trial_type)[place] for r in (run, without[run.label]))
        rows.append((truth[place].mean(), (found - before).mean(), found.mean()))
    table = np.array(rows)

    figure, axis = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axis.axline((SIZE, SIZE), slope=1, color="#b0bec5", lw=1)
    axis.plot(table[:, 0], table[:, 1], "o", label="with − without", color="#00897b")
    axis.plot(table[:, 0], table[:, 2], "x", label="with", color="#37474f")
    axis.set(xlabel="effect that was planted, %", ylabel="effect of the GLM, %")
    axis.legend(frameon=False)
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    return table


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    folders, names, rest = map(Path, sys.argv[1:4]), sys.argv[4:6], sys.argv[7:]
    for row in main(*folders, *names, Path(sys.argv[6]), tuple(rest)):
        print("planted {:.2f} %, with − without {:.2f} %, with {:.2f} %".format(*row))
