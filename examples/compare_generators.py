"""Compare two generators with held-out participants: a model, and the same without its network.

python examples/compare_generators.py BIDS_DIR MODEL_DIR OUTPUT_DIR PICTURE

Any other runs do as well: give ``evaluate`` what ``find_runs`` finds in their folder.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

import fmrisynth
from fmrisynth.evaluation.export import metrics_table

SHOWN = ("corr", "temporal_sd_ratio", "lag1_ratio", "fwhm_ratio")


def main(bids_dir: Path, model_dir: Path, output_dir: Path, picture: Path) -> pd.DataFrame:
    """Return the figures of both generators and of real data, and draw some of them."""
    dataset, model = fmrisynth.find_runs(bids_dir), fmrisynth.Model.load(model_dir)
    split, default = model.info.split, model.info.config.sampling
    held_out = [run for run in dataset.runs if split.role(run.participant) == "held_out"]
    training = [run for run in dataset.runs if split.role(run.participant) == "training"]
    generators = {
        name: fmrisynth.synthesise(
            model, held_out, output_dir / name, source=dataset, sampling=sampling
        )
        for name, sampling in (
            ("model", default),
            ("statistics", replace(default, backbone=False)),
        )
    }
    result = fmrisynth.evaluate(held_out, training, generators, work_dir=output_dir / "work")
    table = metrics_table(result)

    figure, axes = plt.subplots(1, len(SHOWN), figsize=(9, 2.6), layout="constrained")
    for axis, metric in zip(axes, SHOWN, strict=True):
        rows = table[table["metric"] == metric]
        errors = [rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]]
        axis.errorbar(rows["value"], rows["generator"], xerr=errors, fmt="o", color="#00897b")
        axis.axvline(rows["ceiling"].iloc[0], color="#37474f", ls=":", lw=1)
        axis.set(title=metric, yticks=rows["generator"] if axis is axes[0] else [])
        axis.margins(y=0.3)
    figure.supxlabel("value with its 95 % interval over participants; dotted: ceiling", fontsize=9)
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    return table


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    figures = main(*map(Path, sys.argv[1:]))
    print(figures[figures["metric"].isin(SHOWN)].to_string(index=False))
