"""Check the voxels of a run after loading: its mean, and volumes that are outliers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fmrisynth.bids.names import compose_name, current_name, parse_name
from fmrisynth.bids.pieces import brain_series, some_series
from fmrisynth.errors import DataError

__all__ = ["find_outlying_volumes", "interpolate_volumes", "reference_image", "require_mean"]

# A brain voxel of a BOLD image has a mean of 20 to 500 times its temporal SD; denoised images that
# lost their mean have one of about 0.
LOWEST_TSNR = 1.0
MOST_OUTLIERS = 0.4  # share of a run's volumes; beyond it the run is refused
# The mean over the brain varies by .1 to 1 % in real runs; head motion adds single jumps of 2 %.
OUTLYING_CHANGE = 0.03  # of the median over time
OUTLYING_SPREAD = 8.0  # robust standard deviations over time
OUTLYING_ENERGY = 50.0  # times the median; the largest frames of usable real runs reach about 20
# The same of a volume that the confounds suspect. They call a tenth of the volumes of usable runs
# outliers of motion, most of which differ from the rest by no more than noise does.
SUSPECT_ENERGY = 12.0
_MAD_TO_SD = 1.4826


def reference_image(image: Path) -> Path | None:
    """Find the reference image (boldref) that lies beside a BOLD image, of the same space."""
    try:
        name = parse_name(current_name(image.name))
    except ValueError:
        return None
    entities = {key: label for key, label in name.entities.items() if key != "desc"}
    for extension in (".nii.gz", ".nii"):
        path = image.with_name(compose_name(entities, "boldref", extension))
        if path.is_file():
            return path
    return None


def require_mean(data: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Refuse images that have lost their mean (denoised, z-scored, detrended).

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        Intensities.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.
    path : Path
        The image, for the message.

    Raises
    ------
    DataError
        The typical mean is below its standard deviation over time.
    """
    series = some_series(data, mask)  # which tell as well as all
    deviation = np.maximum(series.std(axis=1), np.finfo(np.float32).tiny)
    tsnr = float(np.median(np.abs(_medians(series)) / deviation))
    if tsnr >= LOWEST_TSNR:
        return
    reference = reference_image(path)
    hint = f", or add the mean of {reference.name} to it" if reference else ""
    raise DataError(
        f"{path}: the mean of a typical brain voxel is {tsnr:.2g} times its standard deviation "
        f"over time ({LOWEST_TSNR:g} or more are expected), so the image seems to be denoised, "
        "z-scored or detrended. Percent signal change needs the mean: give the preprocessed image "
        f"before denoising{hint}."
    )


def _medians(series: np.ndarray) -> np.ndarray:
    """Compute the median of each row as numpy does, by a sort, which is faster."""
    ordered = np.sort(series, axis=1)
    middle = series.shape[1] // 2
    if series.shape[1] % 2:
        return np.asarray(ordered[:, middle])
    return np.asarray(ordered[:, middle - 1 : middle + 1].mean(axis=1))


def find_outlying_volumes(
    data: np.ndarray, mask: np.ndarray, known: np.ndarray, suspect: np.ndarray | None = None
) -> np.ndarray:
    """Find volumes unlike the rest: before the steady state, single bright or dark ones, spikes.

    A volume is outlying where its mean over the brain is far from the run's
    median, in percent and in robust standard deviations, or where its
    difference from the median image has far more energy than that of other volumes;
    of a suspect volume a smaller difference is enough.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        Intensities.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.
    known : ndarray of shape (T,), bool
        Volumes that are known to be outlying.
    suspect : ndarray of shape (T,), bool, optional
        Volumes that may be outlying.

    Returns
    -------
    ndarray of shape (T,), bool
        The known ones included.
    """
    if known.all():
        return known
    level = sum(series.sum(axis=0, dtype=np.float64) for _, series in brain_series(data, mask))
    level = np.asarray(level) / mask.sum()
    centre = float(np.median(level[~known]))
    change = np.abs(level - centre)
    spread = _MAD_TO_SD * float(np.median(change[~known]))
    outlying = change > np.maximum(OUTLYING_SPREAD * spread, OUTLYING_CHANGE * abs(centre))
    typical = ~(known | outlying)
    energy = np.zeros(len(level))
    for _, series in brain_series(data, mask):
        median = _medians(series if typical.all() else series[:, typical])
        energy += np.square(series - median[:, None]).sum(axis=0, dtype=np.float64)
    energy /= mask.sum()
    limit = np.full(len(energy), OUTLYING_ENERGY)
    if suspect is not None:
        limit[suspect] = SUSPECT_ENERGY
    outlying |= energy > limit * np.median(energy[~known])
    return np.asarray(outlying | known)


def interpolate_volumes(data: np.ndarray, outlying: np.ndarray, path: Path) -> None:
    """Replace volumes in place by interpolation in time between those that are kept.

    At the ends of the run the nearest kept volume is repeated.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        Intensities; changed in place.
    outlying : ndarray of shape (T,), bool
        Volumes to replace.
    path : Path
        The image, for the message.

    Raises
    ------
    DataError
        More than `MOST_OUTLIERS` of the volumes are outlying.
    """
    n_outlying, n_volumes = int(outlying.sum()), len(outlying)
    if n_outlying > MOST_OUTLIERS * n_volumes:
        raise DataError(
            f"{path}: {n_outlying} of {n_volumes} volumes are outlying; at most "
            f"{MOST_OUTLIERS:.0%} are expected. Is the run usable?"
        )
    kept = np.flatnonzero(~outlying)
    for index in np.flatnonzero(outlying):
        position = int(np.searchsorted(kept, index))
        before = kept[max(position - 1, 0)]
        after = kept[min(position, len(kept) - 1)]
        share = (index - before) / (after - before) if after > before else 0.0
        share = float(np.clip(share, 0, 1))
        data[..., index] = (1 - share) * data[..., before] + share * data[..., after]
