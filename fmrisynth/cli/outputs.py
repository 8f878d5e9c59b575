"""Say what each file of an output is, by the pattern of its name, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from fmrisynth.bids.dataset_files import Layout
from fmrisynth.bids.run_files import RunFiles

__all__ = ["OUTPUT_FILES", "files_of_a_run"]

_ENTITIES = {"sub": "01", "task": "motor", "run": "1"}
_SPATIAL = {"space": "MNI152NLin2009cAsym"}
_FILES_OF_A_RUN = {
    "bold": "the synthetic run; its sidecar has TR, sources and `FmrisynthProvenance`, and is "
    "written last, so that a run with it is whole",
    "mask": "brain mask",
    "reference": "temporal mean of the synthetic run",
    "events": "the events that the run was made for",
    "confounds": "confounds, computed from the synthetic run; motion is drawn",
}

OUTPUT_FILES: Mapping[str, str] = {
    "dataset_description.json": "name, layout, sources; says that nothing was measured",
    "README.md": "what the dataset is and is not",
    "CHANGES": "BIDS's list of changes",
    ".bidsignore": "what a validator is to pass over",
    "participants.tsv": "role of each participant: `training`, `held_out`, `unseen` or `new`",
    "participants.json": "description of the columns",
    "sub-*/*func/*": "the runs, one by one: see the table above",
    "sub-*/*func/*_stat-effect_statmap.*": "with `--also maps`: response that the model gave to a "
    "trial type, percent signal change",
    "sub-*/*func/*_stat-effect_desc-truth_statmap.*": "with `--implant`: effect that was added",
    "sub-*/*func/*_atlas-*_timeseries.*": "with `--also timeseries`: mean series of parcels",
    "sub-*/*anat/*_T1w.*": "layout `raw`: **a real image**, copied from the source, face included",
    "model/config.json": "settings, trial types, split, grid, provenance, hashes of the weights",
    "model/*.safetensors": "weights, one file for each part",
    "model/mask.nii.gz": "brain on the model grid",
    "model/README.md": "model card: steps, seconds and versions of the training",
    "model/skill.tsv": "what each part adds to the prediction of held-out participants",
    "model/log-*.csv": "losses of the trainings",
    "model/curves-*.png": "the same as pictures",
    "group/metrics.tsv": "metric, generator, value, ci_low, ci_high, ceiling, floor",
    "group/metrics.json": "what each metric, its ceiling and its floor mean",
    "group/maps/*": "group maps and differences (percent signal change), second-level z-maps, "
    "maps of what a classifier tells synthetic runs by (Cohen's d)",
    "group/evaluation/*": "the comparison, which `--reports-only` reads",
    "group.html": "the report, one file that needs no network",
    "sub-*.html": "one participant's real runs beside the synthetic ones",
    "logs/*.log": "everything that each call said",
    "logs/*.lock": "which call writes what; empty, and of no further use",
    "logs/CITATION.md": "a paragraph of methods for a paper",
    "work/*": "caches and unfinished trainings, unless `--work-dir` names another place; removed "
    "when a call is done",
}
"""Pattern of names below the output directory → meaning; later patterns are finer."""


def files_of_a_run() -> dict[str, dict[str, str]]:
    """Name the files of one run in every layout.

    Returns
    -------
    dict
        What a file is → layout → its name with both extensions, where the layout has it.
    """
    layouts: tuple[Layout, ...] = get_args(Layout)
    table: dict[str, dict[str, str]] = {text: {} for text in _FILES_OF_A_RUN.values()}
    for layout in layouts:
        run = RunFiles(Path(), _ENTITIES, _SPATIAL, layout, has_events=True)
        for kind, text in _FILES_OF_A_RUN.items():
            path: Path = getattr(run, kind)
            if path in (*run.all(), *run.companions()):
                stem, _, extension = path.name.partition(".")
                table[text][layout] = f"{stem}.{{{extension},json}}"
    return table
