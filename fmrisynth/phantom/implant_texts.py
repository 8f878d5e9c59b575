"""Write sidecars, tables, READMEs and truth of a cohort with implanted responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmrisynth.bids.confounds import read_motion
from fmrisynth.phantom.files import (
    BIDS_VERSION,
    SPACE,
    generated_by,
    resolution_label,
    write_json,
    write_table,
)
from fmrisynth.phantom.motion import write_motion
from fmrisynth.phantom.regional import RegionalResponse
from fmrisynth.phantom.schedules import PROTOCOLS
from fmrisynth.phantom.source import Piece, SourceGrid
from fmrisynth.phantom.texts import DERIVATIVES, TRUTH
from fmrisynth.phantom.truth import sites_table, write_maps

__all__ = [
    "derivative_stem",
    "write_cohort_texts",
    "write_cohort_truth",
    "write_participant_truth",
    "write_piece_sidecars",
]

_NAME = "Real BOLD with implanted responses, by fmrisynth.phantom"

_README = """\
{name}
{rule}

The noise is real, the task is not: `python -m fmrisynth.phantom OUT --noise-from BIDS_DIR` of
fmrisynth added known responses to stretches of real runs. No one performed the tasks ({tasks});
their events follow the protocols of the Human Connectome Project, scaled to the length of the
stretches. Peaks of the conditions: {low:g} to {high:g} percent signal change.

The license of the real dataset applies to these images as well.

The images in `derivatives/fmriprep-phantom` are the same files as the raw ones under another
name, next to brain masks; the space of images that do not name theirs is called {space}. What is
known to be true lies in `derivatives/truth`.
"""

_TRUTH_README = """\
What is true of the implanted responses
=======================================

- `conditions.tsv`: the conditions in the order of the 4-D images, with the peak of each in the
  population map (percent signal change).
- `group/task-*_cond-*_desc-activation.nii.gz`: the population's activation map in percent signal
  change of a sustained response, on the grid of the first participant.
- `sub-*/sub-*_desc-amplitude.nii.gz`: the participant's own activation maps in percent signal
  change of the voxel's mean (4th axis: conditions), zero outside the brain.
- `sub-*/sub-*_desc-sites.tsv`: delay of the haemodynamic response (s), its dispersion and
  undershoot (factors) and displacement (mm) of each site.
- `participants_truth.tsv`: delay (s), mean factor on the response, and traits.
- `config.json`: the options.
"""

_LICENSE = "that of the real dataset"


def derivative_stem(piece: Piece) -> str:
    """Return the raw stem of a run with its space and resolution entities."""
    edge = SourceGrid(piece.run.shape, piece.run.affine).zooms[0]
    resolution = piece.run.resolution or resolution_label(round(edge, 2))
    return f"{piece.stem}_space-{piece.run.space or SPACE}_res-{resolution}"


def write_piece_sidecars(folder: Path, piece: Piece, func: Path) -> None:
    """Write the JSON files of one run, raw and derived.

    Parameters
    ----------
    folder : Path
        Root of the cohort.
    piece : Piece
        The run.
    func : Path
        Its folder below the root of a dataset.
    """
    protocol = PROTOCOLS[piece.task]
    timing: dict[str, Any] = {"TaskName": piece.task, "RepetitionTime": piece.run.t_r}
    if piece.run.phase_encoding[0] in "ijk":
        timing["PhaseEncodingDirection"] = piece.run.phase_encoding
    source = f"Volumes {piece.start} to {piece.stop - 1} of {piece.run.bold.name}"
    text = source + " with implanted responses; the task was not performed."
    write_json(
        folder / func / f"{piece.stem}_bold.json",
        {**timing, "TaskDescription": protocol.description, "Instructions": "None: " + text},
    )
    levels = {name: f"{protocol.description}: {name}" for name in protocol.trial_types}
    write_json(
        folder / func / f"{piece.stem}_events.json",
        {"trial_type": {"Description": "Condition of the implanted response", "Levels": levels}},
    )
    stem, derived = derivative_stem(piece), folder / DERIVATIVES / func
    common = {
        "Resolution": "that of the real image",
        "Sources": [f"bids:raw:{func}/{piece.stem}_bold.nii.gz"],
    }
    write_json(
        derived / f"{stem}_desc-preproc_bold.json",
        {**timing, "SkullStripped": False, "SliceTimingCorrected": False, "StartTime": 0.0,
         "Description": text + " The same image as the raw one.", **common},
    )  # fmt: skip
    write_json(
        derived / f"{stem}_desc-brain_mask.json",
        {"Type": "Brain", "Description": "Brain mask of the real run.", **common},
    )
    motion = read_motion(piece.run.confounds, piece.run.n_volumes)
    if motion is not None:
        part = motion[piece.start : piece.stop]
        write_motion(derived, piece.stem, part, "as the confounds of the real run have it")


def write_cohort_texts(
    folder: Path,
    tasks: Sequence[str],
    effect_size: tuple[float, float],
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Write the files at the top of the raw dataset and of the derivatives."""
    purpose = "Known responses added to real runs"
    _write_description(folder, _NAME, "raw", purpose)
    readme = _README.format(
        name=_NAME,
        rule="=" * len(_NAME),
        tasks=", ".join(tasks),
        low=effect_size[0],
        high=effect_size[1],
        space=SPACE,
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "CHANGES").write_text("1.0.0 2025-01-01\n  - Implanted.\n", encoding="utf-8")
    table = pd.DataFrame(records)[["participant_id"]]
    write_table(folder / "participants.tsv", table)
    derivatives = folder / DERIVATIVES
    _write_description(derivatives, _NAME + ", preprocessed", "derivative", purpose)
    (derivatives / "README.md").write_text(
        "The images of the raw dataset under the names that fMRIPrep would give them, with brain "
        "masks.\nSee the README of the raw dataset.\n",
        encoding="utf-8",
    )
    # not yet in the specification, as in fMRIPrep's derivatives
    (derivatives / ".bidsignore").write_text("*_timeseries.*\n", encoding="utf-8")


def write_participant_truth(
    folder: Path, label: str, grid: SourceGrid, maps: np.ndarray, response: RegionalResponse
) -> None:
    """Write a participant's activation maps (C, X, Y, Z) and the table of its sites."""
    truth = folder / TRUTH / f"sub-{label}"
    write_maps(
        truth / f"sub-{label}_desc-amplitude.nii.gz",
        maps.transpose(0, 3, 2, 1),
        grid,
        "percent signal change by condition, 4th axis",
    )
    write_table(truth / f"sub-{label}_desc-sites.tsv", sites_table(response))


def write_cohort_truth(
    folder: Path,
    grid: SourceGrid,
    maps: np.ndarray,
    conditions: Sequence[tuple[str, str]],
    *,
    records: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write what all participants share, and the table of what they do not."""
    truth = folder / TRUTH
    for (task, trial_type), activation in zip(conditions, maps, strict=True):
        write_maps(
            truth / "group" / f"task-{task}_cond-{trial_type}_desc-activation.nii.gz",
            activation.T,
            grid,
            "percent signal change, population",
        )
    table = pd.DataFrame(conditions, columns=["task", "trial_type"])
    table.insert(0, "index", np.arange(len(conditions)))
    table["peak"] = np.abs(maps).max(axis=(1, 2, 3)).round(4)
    write_table(truth / "conditions.tsv", table)
    write_table(truth / "participants_truth.tsv", pd.DataFrame(records))
    write_json(truth / "config.json", settings)
    _write_description(truth, _NAME + ", the truth", "derivative", "Maps and parameters")
    (truth / "README.md").write_text(_TRUTH_README, encoding="utf-8")
    # The standard has no names for these files.
    (truth / ".bidsignore").write_text(
        "group\nsub-*\n*.nii.gz\n*.tsv\nconfig.json\n", encoding="utf-8"
    )


def _write_description(folder: Path, name: str, kind: str, purpose: str) -> None:
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": kind,
        "License": _LICENSE,
        "Authors": ["fmrisynth.phantom (implanted responses)"],
        "GeneratedBy": generated_by(purpose),
    }
    if kind == "derivative":
        content |= {"DatasetLinks": {"raw": "../.."}, "SourceDatasets": [{"URL": "../.."}]}
    write_json(folder / "dataset_description.json", content)
