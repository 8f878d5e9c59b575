"""Cut every run of a dataset in the middle, so that each participant has two runs of a task.

``python tests/campaigns/halved_runs.py BIDS_DIR OUT`` writes raw runs to the new folder OUT. With
``python -m fmrisynth.phantom COHORT --noise-from OUT --task MOTOR`` they make a cohort of real
runs with known responses and repetitions, which ``planted_cases.py`` can judge.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import nibabel as nib

from fmrisynth.bids.search import find_bold_runs


def halve(bids_dir: Path, out: Path) -> int:
    """Write the halves of all runs and return how many there are."""
    out.mkdir(parents=True)
    for name in ("dataset_description.json", "participants.tsv"):
        if (bids_dir / name).exists():
            shutil.copy(bids_dir / name, out / name)
    written = 0
    for run in find_bold_runs(bids_dir):
        image = nib.load(run.bold)
        middle = run.n_volumes // 2
        for number, part in enumerate((slice(0, middle), slice(middle, 2 * middle)), start=1):
            folder = out / f"sub-{run.participant}" / "func"
            folder.mkdir(parents=True, exist_ok=True)
            stem = folder / f"sub-{run.participant}_task-{run.task}_run-{number}_bold"
            nib.save(image.slicer[..., part], stem.with_suffix(".nii.gz"))
            sidecar = {"TaskName": run.task, "RepetitionTime": run.t_r}
            stem.with_suffix(".json").write_text(json.dumps(sidecar))
            written += 1
    return written


def main() -> None:
    """Cut the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    print(f"{halve(chosen.bids_dir, chosen.out)} runs")


if __name__ == "__main__":
    main()
