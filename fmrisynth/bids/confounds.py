"""Read tables of confounds as fMRIPrep writes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmrisynth.bids.headers import check_present
from fmrisynth.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOTION", "known_outliers", "read_confounds", "read_motion"]

log = logging.getLogger(__name__)

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_OLD_MOTION = ("X", "Y", "Z", "RotX", "RotY", "RotZ")  # fMRIPrep 1.0
_NOT_STEADY = ("non_steady_state_outlier", "NonSteadyStateOutlier")
_MOVED = ("motion_outlier",)


def read_confounds(path: Path, n_volumes: int) -> pd.DataFrame:
    """Read a table of confounds.

    Parameters
    ----------
    path : Path
        Tab-separated, with a header line and a row for each volume.
    n_volumes : int
        Volumes of the run.

    Raises
    ------
    DataError
        The file is no such table, or has another number of rows.
    """
    import pandas as pd

    check_present(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["n/a"], encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    if len(table) != n_volumes:
        raise DataError(f"{path} has {len(table)} rows; the run has {n_volumes} volumes")
    return table


def known_outliers(path: Path | None, n_volumes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read which volumes lie before the steady state, and which are suspected of motion.

    Parameters
    ----------
    path : Path or None
        Table of confounds; one that cannot be used is ignored, with a warning.
    n_volumes : int
        Volumes T of the run.

    Returns
    -------
    before, moved : ndarray of shape (T,), bool
    """
    table = _usable(path, n_volumes)
    marked = []
    for prefixes in (_NOT_STEADY, _MOVED):
        volumes = np.zeros(n_volumes, dtype=bool)
        if table is not None:
            for name in (c for c in table.columns if str(c).startswith(prefixes)):
                volumes |= np.asarray(table[name] == 1)
        marked.append(volumes)
    return marked[0], marked[1]


def read_motion(path: Path | None, n_volumes: int) -> np.ndarray | None:
    """Read the six motion parameters of a run (mm, rad).

    Parameters
    ----------
    path, n_volumes
        As in `known_outliers`.

    Returns
    -------
    ndarray of shape (T, 6) or None
        In the order of `MOTION`; None where the table lacks them or has gaps in them.
    """
    table = _usable(path, n_volumes)
    if table is None:
        return None
    for names in (MOTION, _OLD_MOTION):
        if set(names) <= set(table.columns):
            motion = table[list(names)].apply(_numbers).to_numpy(dtype=float)
            return motion if np.isfinite(motion).all() else None
    return None


def _numbers(column: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")


def _usable(path: Path | None, n_volumes: int) -> pd.DataFrame | None:
    if path is None:
        return None
    try:
        return read_confounds(path, n_volumes)
    except DataError as error:
        log.warning("confounds are ignored: %s", error)
        return None
