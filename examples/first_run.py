"""Learn a small model, write synthetic runs, draw them: the whole way in Python.

python examples/first_run.py BIDS_DIR OUTPUT_DIR PICTURE [NAME=VALUE...]

Each NAME=VALUE is a setting of the model, such as ``preprocess.voxel_size=8``. The model is saved
in OUTPUT_DIR/model, where the other examples and ``--model`` of the command line find it.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

import fmrisynth
from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS


def main(bids_dir: Path, output_dir: Path, picture: Path, settings: dict[str, str]) -> list:
    """Write a synthetic run for each run of the held-out participants, and return them."""
    dataset = fmrisynth.find_runs(bids_dir)
    model = fmrisynth.train(
        dataset.runs, override(PRESETS["demo"], settings), work_dir=output_dir / "work"
    )
    model.save(output_dir / "model")
    held_out = [run for run in dataset.runs if model.info.split.role(run.participant) == "held_out"]
    synthetic = fmrisynth.synthesise(model, held_out, output_dir, source=dataset)

    real = {run.label: run for run in held_out}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for name, run in (("real", real[synthetic[0].label]), ("synthetic", synthetic[0])):
        data = nib.load(run.bold).get_fdata(dtype=np.float32)
        brain = nib.load(run.mask).get_fdata() > 0
        change = 100 * (data[brain] / data[brain].mean(axis=-1, keepdims=True) - 1)
        axes[0].plot(np.arange(run.n_volumes) * run.t_r, change.mean(axis=0), label=name)
        axes[1].hist(change.std(axis=-1), bins=40, histtype="step", label=name, density=True)
    axes[0].set(xlabel="s", ylabel="mean of the brain, %", title=run.label)
    axes[1].set(xlabel="temporal standard deviation of a voxel, %", yticks=[])
    axes[1].legend(frameon=False)
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    return list(synthetic)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    assignments = dict(word.split("=", 1) for word in sys.argv[4:])
    for run in main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), assignments):
        print(run.bold)
