"""Write an evaluation to disk: metrics.tsv with its description, and the group maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.metrics.registry import describe
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.runtime.files import atomic_path, make_folder, write_json

__all__ = ["metrics_table", "write_maps", "write_metrics"]

COLUMNS = ("metric", "generator", "value", "ci_low", "ci_high", "ceiling", "floor")


def metrics_table(evaluation: Evaluation) -> pd.DataFrame:
    """List all estimates in one long table.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `fmrisynth.evaluation.evaluate.evaluate`.

    Returns
    -------
    DataFrame
        Columns metric, generator, value, ci_low, ci_high, ceiling, floor; a
        metric's rows stand together, the generators in their order.
    """
    sources = (*evaluation.generators, REAL)
    metrics = dict.fromkeys(name for source in sources for name in evaluation.estimates[source])
    rows = []
    for metric in metrics:
        for source in sources:
            estimate = evaluation.estimates[source].get(metric)
            if estimate is not None:
                limits = (estimate.low, estimate.high, estimate.ceiling, estimate.floor)
                rows.append((metric, source, estimate.value, *limits))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_metrics(evaluation: Evaluation, target: Path) -> None:
    """Write the table of estimates as TSV, ``n/a`` for what does not exist.

    Parameters
    ----------
    evaluation : Evaluation
        What to write.
    target : Path
        ``metrics.tsv``; it appears only when complete. Beside it,
        ``metrics.json`` says what each metric, its ceiling and its floor mean.
    """
    make_folder(target.parent)
    write_json(target.with_suffix(".json"), describe())
    with atomic_path(target) as path:
        metrics_table(evaluation).to_csv(
            path, sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n"
        )


def write_maps(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the group maps as NIfTI: effects in percent signal change, and z-maps.

    Parameters
    ----------
    evaluation : Evaluation
        What to write.
    folder : Path
        Receives ``source-<name>_condition-<name>_effect.nii.gz`` for the real
        held-out participants and every generator, ``…_difference.nii.gz``
        (generator − real), ``…_z.nii.gz`` (second level over participants,
        where there are two or more), the same with ``contrast-<name>`` for the
        user's contrasts, ``source-<name>_feature-<kind>_cohend.nii.gz`` (by how many standard
        deviations the features that a classifier is given differ from those of real runs in each
        parcel; of the generators, and of real training participants as control), and
        ``mask.nii.gz``.

    Returns
    -------
    list of Path
        The files, in the order written.
    """
    make_folder(folder)
    mask = np.asarray(evaluation.mask.dataobj) > 0
    written = [_write(folder / "mask.nii.gz", mask.astype(np.uint8), evaluation)]
    kinds = (
        ("condition", evaluation.conditions.names, evaluation.maps, evaluation.z_maps),
        (
            "contrast",
            evaluation.conditions.contrasts,
            evaluation.contrast_maps,
            evaluation.contrast_z_maps,
        ),
    )
    for source in (REAL, *evaluation.generators):
        for kind, names, effects, z_maps in kinds:
            for c, label in enumerate(_labels(names)):
                stem = f"source-{_label(source)}_{kind}-{label}"
                maps = {"effect": effects[source][c], "z": z_maps[source][c]}
                if source != REAL:
                    maps["difference"] = effects[source][c] - effects[REAL][c]
                for ending, values in maps.items():
                    if ending != "z" or np.isfinite(values).any():
                        path = folder / f"{stem}_{ending}.nii.gz"
                        written.append(_write(path, _fill(values, mask), evaluation))
    for source, by_kind in evaluation.feature_maps.items():
        for label, values in zip(_labels(list(by_kind)), by_kind.values(), strict=True):
            path = folder / f"source-{_label(source)}_feature-{label}_cohend.nii.gz"
            written.append(_write(path, _fill(values, mask), evaluation))
    return written


def _fill(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    volume = np.zeros(mask.shape, dtype=np.float32)
    volume[mask] = np.nan_to_num(values)
    return volume


def _write(target: Path, volume: np.ndarray, evaluation: Evaluation) -> Path:
    image = nib.Nifti1Image(volume, evaluation.mask.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(target) as path:
        nib.save(image, path)
    return target


def _labels(names: Sequence[str]) -> list[str]:
    """Labels of conditions; those that would be equal are numbered ("a > b" and "a-b")."""
    labels = [_label(name) for name in names]
    return [
        label if labels.count(label) == 1 else f"{label}{1 + labels[:i].count(label)}"
        for i, label in enumerate(labels)
    ]


def _label(text: str) -> str:
    """Letters and digits only, as in a BIDS entity's value."""
    return re.sub(r"[^A-Za-z0-9]+", "", text) or "unnamed"
