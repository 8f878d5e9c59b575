"""Write maps and time series that stand for runs in few numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import synthetic_entities, xform_code
from fmrisynth.bids.names import compose_name, func_folder, in_filename_order
from fmrisynth.bids.nifti import write_volume
from fmrisynth.runtime.files import make_folder, write_json, write_text

__all__ = ["write_effect_maps", "write_parcel_series"]


def write_effect_maps(
    out: Path,
    run: Run,
    maps: Mapping[str, np.ndarray],
    description: str,
    *,
    desc: str = "",
    sample: int | None = None,
    n_samples: int = 1,
) -> list[Path]:
    """Write an effect map for each trial type of a run.

    They are called ``…_contrast-NAME_stat-effect[_desc-DESC]_statmap.nii.gz``, NAME being the
    trial type's letters and digits.

    Parameters
    ----------
    out : Path
        Root of the output dataset.
    run : Run
        The run that is repeated.
    maps : mapping of str to ndarray of shape (X, Y, Z)
        Trial type → percent signal change.
    description : str
        What the maps are, for the sidecars.
    desc : str
        Label of the desc entity.
    sample, n_samples : int
        As in `write_synthetic_run`.

    Raises
    ------
    OutputError, InputOutputError
        When writing fails.
    """
    entities, folder = _place(out, run, sample, n_samples)
    named = in_filename_order({**entities, **run.spatial_entities})
    written = []
    for name, values in maps.items():
        label = re.sub("[^A-Za-z0-9]", "", name) or "event"
        more = {"contrast": label, "stat": "effect"} | ({"desc": desc} if desc else {})
        path = folder / compose_name({**named, **more}, "statmap", ".nii.gz")
        write_volume(path, values, run.affine, code=xform_code(run))
        sidecar = {"Description": description, "TrialType": name, "Units": "percent signal change"}
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), sidecar)
        written.append(path)
    return written


def write_parcel_series(
    out: Path,
    run: Run,
    series: np.ndarray,
    names: list[str],
    atlas: str,
    *,
    sample: int | None = None,
    n_samples: int = 1,
) -> Path:
    """Write the mean series of each parcel of an atlas, ``…_atlas-NAME_timeseries.tsv``.

    Parameters
    ----------
    out, run
        As in `write_effect_maps`.
    series : ndarray of shape (L, T)
        Percent signal change.
    names : list of str
        Names of the L parcels.
    atlas : str
        Name of the atlas.
    sample, n_samples
        As in `write_effect_maps`.

    Raises
    ------
    OutputError, InputOutputError
        When writing fails.
    """
    entities, folder = _place(out, run, sample, n_samples)
    named = in_filename_order({**entities, **({"space": run.space} if run.space else {})})
    label = re.sub("[^A-Za-z0-9]", "", atlas)
    path = folder / compose_name({**named, "atlas": label}, "timeseries", ".tsv")
    rows = ["\t".join(names), *("\t".join(f"{x:.5g}" for x in row) for row in series.T)]
    write_text(path, "\n".join(rows) + "\n")
    sidecar = {
        "Description": "Mean synthetic signal of each parcel, percent signal change. "
        "Nothing was measured.",
        "Atlas": atlas,
        "RepetitionTime": run.t_r,
    }
    write_json(path.with_suffix(".json"), sidecar)
    return path


def _place(out: Path, run: Run, sample: int | None, n_samples: int) -> tuple[dict[str, str], Path]:
    """Return the entities and the folder of a sample of a run."""
    entities = synthetic_entities(run, sample=sample, n_samples=n_samples)
    return entities, make_folder(out.joinpath(*func_folder(entities)))
