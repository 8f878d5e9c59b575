"""Write synthetic runs as BIDS datasets, and find them again.

A run consists of an image, a mask (not in the raw layout), a reference image, events and
confounds (where there are any), each with its sidecar. Its
BOLD sidecar is written last and removed first, so that a run is finished exactly
when the sidecar is there: a reader sees whole runs only, and a rerun knows which
ones it may keep. The dataset_description.json of an output states its layout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from fmrisynth.bids.dataset import UNKNOWN, Run
from fmrisynth.bids.dataset_files import Layout, layout_of
from fmrisynth.bids.events import events_table_bytes
from fmrisynth.bids.headers import read_header, repetition_time, require_bold
from fmrisynth.bids.names import in_filename_order, parse_name
from fmrisynth.bids.nifti import (
    summarise_voxels,
    write_bold_image,
    write_mask_image,
    write_volume,
)
from fmrisynth.bids.run_files import DESCRIPTIONS, SPATIAL, RunFiles
from fmrisynth.bids.sidecars import read_json
from fmrisynth.bids.synthetic_sidecars import (
    NEW,
    PROVENANCE_KEY,
    ROLE_KEY,
    as_json,
    bold_sidecar,
    events_sidecar,
    mask_sidecar,
    raw_sidecar,
    reference_sidecar,
)
from fmrisynth.errors import DataError
from fmrisynth.runtime.files import write_bytes, write_json, write_text, writing

__all__ = [
    "find_synthetic_runs",
    "is_finished",
    "planned_files",
    "synthetic_entities",
    "write_synthetic_run",
    "xform_code",
]


def synthetic_entities(
    run: Run, *, sample: int | None = None, n_samples: int = 1
) -> dict[str, str]:
    """Name a sample of a run by its entities.

    With one sample per run the entities stay as they are. With N samples per
    run, told apart by ``run-``, sample k of the original run r (1 when it has
    no run entity) becomes run (r − 1)·N + k.

    Parameters
    ----------
    run : Run
        The run that the sample repeats.
    sample : int, optional
        1 to `n_samples`; needed when there are several.
    n_samples : int
        Samples per run.

    Raises
    ------
    ValueError
        When `sample` is not one of 1 to `n_samples`.
    DataError
        When the original run label is no number, from which samples could be counted.
    """
    if n_samples == 1 and sample in (None, 1):
        return dict(run.entities)
    if sample is None or not 1 <= sample <= n_samples:
        raise ValueError(f"sample must be one of 1 to {n_samples}, not {sample}")
    original = run.entities.get("run", "1")
    if not original.isdecimal() or int(original) < 1:
        raise DataError(
            f"{run.bold}: the label run-{original} is no positive number, as BIDS asks for, so "
            "that several samples of it cannot be numbered"
        )
    number = (int(original) - 1) * n_samples + sample
    return in_filename_order({**run.entities, "run": f"{number:0{len(original)}d}"})


def write_synthetic_run(
    out: Path,
    run: Run,
    bold: np.ndarray,
    mask: np.ndarray,
    *,
    provenance: Mapping[str, Any],
    sample: int | None = None,
    n_samples: int = 1,
    sources: Mapping[str, Path] | None = None,
    confounds: tuple[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write one synthetic run: image, mask, reference image, events, confounds, their sidecars.

    Parameters
    ----------
    out : Path
        Root of the output dataset.
    run : Run
        The run that is repeated, with its events, grid, space, TR and entities.
        For a new participant or session give a Run with new entities.
    bold : ndarray of shape (X, Y, Z, T), float32
        The synthetic volumes, on the run's grid; T may differ from the run's.
    mask : ndarray of shape (X, Y, Z), bool
        Brain mask.
    provenance : mapping
        JSON-able; kept in the sidecar under ``FmrisynthProvenance`` (ModelHash,
        ParticipantRole, RandomSeed, …). `is_finished` compares with it.
    sample, n_samples : int
        Number of this sample of the run, and of all its samples; see
        `synthetic_entities`.
    sources : mapping of str to Path, optional
        Datasets by the names used in DatasetLinks of dataset_description.json;
        the files used are listed relative to them.
    confounds : (str, mapping), optional
        Content of the table of confounds (TSV), and its sidecar; the raw layout has none.

    Returns
    -------
    Path
        The BOLD image.

    Raises
    ------
    ValueError
        When arrays do not fit together, or `bold` is not finite.
    DataError
        When the events file cannot be used.
    OutputError, InputOutputError
        When writing fails; then the run counts as unfinished.
    """
    if bold.ndim != 4 or mask.shape != bold.shape[:3] or bold.shape[:3] != run.shape:
        raise ValueError(
            f"shapes do not fit: bold {bold.shape}, mask {mask.shape}, run {run.shape}"
        )
    summary = summarise_voxels(bold)
    if not np.isfinite([summary.lowest, summary.highest]).all():
        raise ValueError(f"the synthetic volumes of {run.label} are not finite")
    entities = synthetic_entities(run, sample=sample, n_samples=n_samples)
    files = RunFiles.of(run, out, entities, layout_of(out))
    files.make_folder()
    with writing(files.bold_json):
        files.bold_json.unlink(missing_ok=True)
    code = xform_code(run)
    if files.layout != "raw":
        write_mask_image(files.mask, mask, run.affine, code=code)
        write_json(files.mask_json, mask_sidecar(run, sources or {}))
        if confounds is not None:
            write_text(files.confounds, confounds[0])
            write_json(files.confounds_json, confounds[1])
    write_volume(files.reference, summary.mean, run.affine, code=code)
    write_json(files.reference_json, reference_sidecar(run, raw=files.layout == "raw"))
    if run.events is not None:
        write_bytes(files.events, events_table_bytes(run.events))
        write_json(files.events_json, events_sidecar(run.events))
    write_bold_image(files.bold, bold, run.affine, mask, t_r=run.t_r, code=code, summary=summary)
    if files.layout == "raw":
        sidecar = raw_sidecar(run, provenance)
    else:
        stripped = not bool((summary.filled & ~mask).any())
        sidecar = bold_sidecar(run, sources or {}, provenance, skull_stripped=stripped)
    write_json(files.bold_json, sidecar)
    return files.bold


def is_finished(
    out: Path,
    run: Run,
    *,
    provenance: Mapping[str, Any],
    sample: int | None = None,
    n_samples: int = 1,
) -> bool:
    """Say whether a sample lies in `out`, complete, with the run's events and this provenance.

    Parameters
    ----------
    out, run, provenance, sample, n_samples
        As in `write_synthetic_run`.
    """
    entities = synthetic_entities(run, sample=sample, n_samples=n_samples)
    files = RunFiles.of(run, out, entities, layout_of(out))
    beside = [files.reference, files.reference_json]
    if provenance.get("Confounds") and files.layout != "raw":
        beside += [files.confounds, files.confounds_json]
    if not (files.complete() and all(path.is_file() for path in beside)):
        return False
    with contextlib.suppress(DataError):
        if run.events is not None and files.events.read_bytes() != events_table_bytes(run.events):
            return False
        written = read_json(files.bold_json).get(PROVENANCE_KEY, {})
        return all(written.get(key) == value for key, value in as_json(provenance).items())
    return False


def planned_files(
    out: Path, run: Run, layout: Layout, *, sample: int | None = None, n_samples: int = 1
) -> tuple[Path, ...]:
    """Name the files that `write_synthetic_run` writes for a sample of a run, in a layout."""
    entities = synthetic_entities(run, sample=sample, n_samples=n_samples)
    files = RunFiles.of(run, out, entities, layout)
    return (*files.all(), *files.companions())


def find_synthetic_runs(out: Path, problems: dict[Path, str] | None = None) -> tuple[Run, ...]:
    """Find the finished synthetic runs of an output directory, sorted by name.

    Parameters
    ----------
    out : Path
        Root of the output dataset.
    problems : dict, optional
        Receives the finished runs that cannot be read, and the reason; they are left out.

    Raises
    ------
    DataError
        When a file of a finished run is damaged and `problems` is not given.
    """
    runs = []
    for files in _finished(out.resolve()):
        try:
            runs.append(_read_synthetic_run(files))
        except DataError as error:
            if problems is None:
                raise
            problems[files.bold] = str(error).replace(str(files.bold), files.bold.name)
    return tuple(runs)


def _finished(out: Path) -> Iterator[RunFiles]:
    """Find the runs whose files are complete."""
    layout = layout_of(out)
    ending = "rec-synth*" if layout == "raw" else f"desc-{DESCRIPTIONS[layout]}"
    pattern = f"func/*_{ending}_bold.nii.gz"
    for path in sorted([*out.glob(f"sub-*/{pattern}"), *out.glob(f"sub-*/ses-*/{pattern}")]):
        try:
            named = dict(parse_name(path.name).entities)
        except ValueError:
            continue
        spatial = {key: named.pop(key) for key in SPATIAL if key in named}
        named.pop("desc", None)
        if layout == "raw" and (own := named.pop("rec", "").removeprefix("synth")):
            named = in_filename_order({**named, "rec": own})
        for has_events in (True, False):
            files = RunFiles(out, named, spatial, layout, has_events=has_events)
            if files.bold == path and files.complete() and has_events == files.says_events():
                yield files


def _read_synthetic_run(files: RunFiles) -> Run:
    sidecar, header = read_json(files.bold_json), read_header(files.bold)
    require_bold(header, files.bold)
    provenance = sidecar.get(PROVENANCE_KEY)
    if not isinstance(provenance, dict):
        raise DataError(f"{files.bold_json} has no {PROVENANCE_KEY}; fmrisynth did not write it")
    start_time = sidecar.get("StartTime")
    return Run(
        entities=files.entities,
        bold=files.bold,
        mask=None if files.layout == "raw" else files.mask,
        events=files.events if files.has_events else None,
        space=files.spatial.get("space"),
        cohort=files.spatial.get("cohort"),
        resolution=files.spatial.get("res"),
        t_r=repetition_time(sidecar, header, files.bold),
        start_time=float(start_time) if isinstance(start_time, int | float) else 0.0,
        shape=(header.shape[0], header.shape[1], header.shape[2]),
        n_volumes=header.shape[3],
        affine=header.affine,
        phase_encoding=str(provenance.get("PhaseEncoding", UNKNOWN)),
        site=str(provenance.get("Site", UNKNOWN)),
        metadata=sidecar,
        confounds=files.confounds if files.confounds.is_file() else None,
        new=provenance.get(ROLE_KEY) == NEW,
    )


def xform_code(run: Run) -> int:
    """Choose the NIfTI code of the space: 4 for MNI, else that of the source image."""
    if run.space is not None and run.space.startswith("MNI"):
        return 4
    try:
        header = nib.Nifti1Image.from_filename(run.bold).header
        return int(header["sform_code"]) or int(header["qform_code"]) or 2
    except (OSError, ValueError, KeyError, ImageFileError):
        return 2  # aligned to something
