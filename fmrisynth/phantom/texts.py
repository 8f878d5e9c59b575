"""Write sidecars, dataset descriptions and READMEs of a simulated cohort."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fmrisynth.phantom.anatomy import DIRECTIONS
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.files import (
    BIDS_VERSION,
    SPACE,
    generated_by,
    resolution_label,
    write_json,
    write_table,
)
from fmrisynth.phantom.schedules import PROTOCOLS

__all__ = [
    "DERIVATIVES",
    "TRUTH",
    "derivative_stem",
    "participant_labels",
    "write_derivative_texts",
    "write_raw_texts",
    "write_run_sidecars",
    "write_truth_texts",
]

DERIVATIVES = Path("derivatives") / "fmriprep-phantom"
TRUTH = Path("derivatives") / "truth"

_NAME = "fmrisynth phantom: simulated task fMRI"

_README = """\
{name}
{rule}

No one was scanned: every image here was computed by `python -m fmrisynth.phantom` of fmrisynth.
{n_participants} simulated participants, {n_tasks} tasks after the protocols of the Human
Connectome Project ({tasks}) with their timing scaled to runs of {duration:g} s, one run per task
and phase-encoding direction (AP, PA), {voxel_size:g} mm, TR {t_r:g} s, tSNR {tsnr:g}, seed {seed}.

The simulation takes place in template space. There is no spatial preprocessing to undo: the
images in `derivatives/fmriprep-phantom` are the same files as the raw ones under another name,
next to brain masks. What distortion and motion the simulation adds is still in both. The space
is called {space}, as fMRIPrep calls its default; the anatomy is nilearn's MNI152 template (the
symmetric 2009a version) with a warp of its own for each participant.

What is known to be true lies in `derivatives/truth`: the population's activation map of every
condition, each participant's own amplitudes, and the loadings of the resting networks. The
generative model is in the documentation of the Python package `fmrisynth.phantom`.
"""

_TRUTH_README = """\
What is true of the simulated cohort
====================================

- `conditions.tsv`: the conditions in the order of the 4-D images, with the peak of each in the
  population map (percent signal change).
- `group/task-*_cond-*_desc-activation.nii.gz`: the population's activation map in percent signal
  change of a sustained response, in the undistorted template.
- `group/desc-networks.nii.gz`: loadings of the networks of spontaneous fluctuation, peak 1.
- `sub-*/sub-*_dir-*_desc-amplitude.nii.gz`: the participant's own activation maps in percent
  signal change as they lie in the images of that phase-encoding direction (4th axis: conditions).
- `participants_truth.tsv`: delay of the haemodynamic response (s), mean factor on the response,
  factor on the noise level.
- `connectivity.json`: correlation of the networks' courses, participant by participant.
- `config.json`: the options of the cohort.
"""

_SITE_README = """
Site {site}: haemodynamic responses {hrf_delay:+g} s later than elsewhere, distortions times
{distortion:g}, units times {intensity:g}.
"""

_FULL_README = """
Realism "full": traits of a participant drive anatomy, networks and responses together; areas are
displaced by several mm and have haemodynamic responses of their own; levels of noise differ;
amplitudes of fluctuation wander; coupling depends on the task; there are head motion, breath,
heartbeat and heavy tails. The motion is in the confounds of the derivatives
(`*_desc-confounds_timeseries.tsv`), as it was simulated. See the Python module
`fmrisynth.phantom.realistic`.
"""

_FULL_TRUTH_README = """
With realism "full" there are also
- `sub-*/sub-*_desc-sites.tsv`: delay of the haemodynamic response (s), its dispersion and
  undershoot (factors) and displacement (mm) of each site;
- `sub-*/sub-*_task-*_desc-courses_timeseries.tsv`: at each volume, residual translation (mm) and
  rotation (rad) of the head, intensity lost after jerks (percent), amplitude of the fluctuations,
  how far the brain is in the task, the widespread signal, breath and heartbeat;
- in `participants_truth.tsv` the traits, factors on the parts of the noise, correlation times,
  rates (Hz), SD of motion (mm) and jerks per minute.
"""


def _at_site(config: PhantomConfig) -> str:
    """Return what the site adds to the name of a dataset."""
    return f", site {config.site}" if config.site else ""


def participant_labels(n_participants: int) -> list[str]:
    """Return 01, 02, … with as many digits as the last one needs, at least two."""
    width = max(2, len(str(n_participants)))
    return [f"{i + 1:0{width}d}" for i in range(n_participants)]


def derivative_stem(stem: str, config: PhantomConfig) -> str:
    """Return the raw stem with its space and resolution entities."""
    return f"{stem}_space-{SPACE}_res-{resolution_label(config.voxel_size)}"


def write_run_sidecars(
    raw: Path, derived: Path, stem: str, *, task: str, direction: str, config: PhantomConfig
) -> None:
    """Write the JSON files of one run, raw and derived."""
    timing = {"TaskName": task, "RepetitionTime": config.t_r}
    encoding = {"PhaseEncodingDirection": DIRECTIONS[direction][1]}
    if config.site:
        encoding["InstitutionName"] = config.site
    simulated = "Simulated by fmrisynth.phantom; no one was scanned."
    write_json(
        raw / f"{stem}_bold.json",
        {**timing, **encoding, "TaskDescription": PROTOCOLS[task].description,
         "Instructions": "None: " + simulated},
    )  # fmt: skip
    levels = {name: f"{PROTOCOLS[task].description}: {name}" for name in _trial_types(task)}
    write_json(
        raw / f"{stem}_events.json",
        {"trial_type": {"Description": "Condition of the trial", "Levels": levels}},
    )
    resolution = f"{config.voxel_size:g} mm isotropic, the resolution of the simulation"
    raw_name = f"bids:raw:{raw.relative_to(raw.parents[1])}/{stem}_bold.nii.gz"
    common = {"Resolution": resolution, "Sources": [raw_name]}
    target = derivative_stem(stem, config)
    write_json(
        derived / f"{target}_desc-preproc_bold.json",
        {**timing, **encoding, "SkullStripped": False, "SliceTimingCorrected": False,
         "StartTime": 0.0, "Description": simulated + " The same image as the raw one.", **common},
    )  # fmt: skip
    write_json(
        derived / f"{target}_desc-brain_mask.json",
        {"Type": "Brain", "Description": "True brain mask. " + simulated, **common},
    )


def write_raw_texts(folder: Path, config: PhantomConfig, records: list[dict[str, Any]]) -> None:
    """Write the files at the top of the raw dataset."""
    write_json(
        folder / "dataset_description.json",
        {
            "Name": _NAME + _at_site(config),
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["fmrisynth.phantom (simulation)"],
            "GeneratedBy": generated_by("Simulation of task fMRI with a known truth"),
        },
    )
    readme = _README.format(
        name=_NAME,
        rule="=" * len(_NAME),
        n_participants=config.n_participants,
        n_tasks=len(config.tasks),
        tasks=", ".join(config.tasks),
        duration=config.n_volumes * config.t_r,
        voxel_size=config.voxel_size,
        t_r=config.t_r,
        tsnr=config.tsnr,
        seed=config.seed,
        space=SPACE,
    )
    if config.site:
        readme += _SITE_README.format(**asdict(config))
    readme += _FULL_README if config.realism == "full" else ""
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "CHANGES").write_text("1.0.0 2025-01-01\n  - Simulated.\n", encoding="utf-8")
    table = pd.DataFrame(records)[["participant_id", "age", "sex"]]
    write_table(folder / "participants.tsv", table)
    write_json(
        folder / "participants.json",
        {
            "age": {"Description": "Age of the simulated participant", "Units": "years"},
            "sex": {
                "Description": "Sex of the simulated participant; without effect on the images",
                "Levels": {"F": "female", "M": "male"},
            },
        },
    )


def write_derivative_texts(folder: Path, config: PhantomConfig) -> None:
    """Write the files at the top of the fMRIPrep-like derivatives."""
    write_json(
        folder / DERIVATIVES / "dataset_description.json",
        {
            "Name": _NAME + _at_site(config) + ", in template space",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "Authors": ["fmrisynth.phantom (simulation)"],
            "GeneratedBy": generated_by(
                "Names and sidecars as fMRIPrep writes them; no processing"
            ),
            "DatasetLinks": {"raw": "../.."},
            "SourceDatasets": [{"URL": "../.."}],
        },
    )
    text = (
        "The simulated images under the names that fMRIPrep would give them, with true brain "
        f"masks, in the space {SPACE} at {config.voxel_size:g} mm.\nNothing was processed: the "
        "simulation takes place in this space. See the README of the raw dataset.\n"
    )
    (folder / DERIVATIVES / "README.md").write_text(text, encoding="utf-8")
    if config.realism == "full":  # not yet in the specification, as in fMRIPrep's derivatives
        (folder / DERIVATIVES / ".bidsignore").write_text("*_timeseries.*\n", encoding="utf-8")


def write_truth_texts(folder: Path, config: PhantomConfig) -> None:
    """Write the files at the top of the truth."""
    write_json(
        folder / TRUTH / "dataset_description.json",
        {
            "Name": _NAME + f", the truth (seed {config.seed})",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "Authors": ["fmrisynth.phantom (simulation)"],
            "GeneratedBy": generated_by("Maps and parameters that made the simulated images"),
        },
    )
    text = _TRUTH_README + (_FULL_TRUTH_README if config.realism == "full" else "")
    (folder / TRUTH / "README.md").write_text(text, encoding="utf-8")
    # The standard has no names for these files.
    (folder / TRUTH / ".bidsignore").write_text(
        "group\nsub-*\n*.nii.gz\n*.tsv\nconnectivity.json\nconfig.json\n", encoding="utf-8"
    )


def _trial_types(task: str) -> tuple[str, ...]:
    return PROTOCOLS[task].trial_types
