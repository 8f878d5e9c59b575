"""The evaluation on disk: metrics.tsv and the group maps."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from fmrisynth.bids.atomic import atomic_path, make_folder
from fmrisynth.evaluation.result import REAL, Evaluation

__all__ = ["metrics_table", "write_maps", "write_metrics"]

COLUMNS = ("metric", "generator", "value", "ci_low", "ci_high", "ceiling", "floor")


def metrics_table(evaluation: Evaluation) -> pd.DataFrame:
    """All figures as one long table.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `fmrisynth.evaluation.study.evaluate`.

    Returns
    -------
    DataFrame
        Columns metric, generator, value, ci_low, ci_high, ceiling, floor; a
        metric's rows stand together, the generators in their order.
    """
    sources = (*evaluation.generators, REAL)
    metrics = dict.fromkeys(name for source in sources for name in evaluation.figures[source])
    rows = []
    for metric in metrics:
        for source in sources:
            figure = evaluation.figures[source].get(metric)
            if figure is not None:
                limits = (figure.low, figure.high, figure.ceiling, figure.floor)
                rows.append((metric, source, figure.value, *limits))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_metrics(evaluation: Evaluation, target: Path) -> None:
    """Write the table of figures as TSV, ``n/a`` for what does not exist.

    Parameters
    ----------
    evaluation : Evaluation
        What to write.
    target : Path
        ``metrics.tsv``; it appears only when complete.
    """
    make_folder(target.parent)
    with atomic_path(target) as path:
        metrics_table(evaluation).to_csv(
            path, sep="\t", index=False, na_rep="n/a", float_format="%.6g", lineterminator="\n"
        )


def write_maps(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the group maps as NIfTI, in percent signal change.

    Parameters
    ----------
    evaluation : Evaluation
        What to write.
    folder : Path
        Receives ``source-<name>_condition-<name>_effect.nii.gz`` for the real
        held-out participants and every generator, ``…_difference.nii.gz``
        (generator − real), and ``mask.nii.gz``.

    Returns
    -------
    list of Path
        The files, in the order written.
    """
    make_folder(folder)
    mask = np.asarray(evaluation.mask.dataobj) > 0
    written = [_write(folder / "mask.nii.gz", mask.astype(np.uint8), evaluation)]
    for source in (REAL, *evaluation.generators):
        for c, condition in enumerate(evaluation.conditions.names):
            stem = f"source-{_label(source)}_condition-{_label(condition)}"
            effect = evaluation.maps[source][c]
            written.append(
                _write(folder / f"{stem}_effect.nii.gz", _fill(effect, mask), evaluation)
            )
            if source != REAL:
                difference = _fill(effect - evaluation.maps[REAL][c], mask)
                path = folder / f"{stem}_difference.nii.gz"
                written.append(_write(path, difference, evaluation))
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


def _label(text: str) -> str:
    """Letters and digits only, as in a BIDS entity's value."""
    return re.sub(r"[^A-Za-z0-9]+", "", text) or "unnamed"
