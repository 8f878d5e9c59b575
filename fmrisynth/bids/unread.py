"""List functional files of derivatives that cannot be read, for messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from fmrisynth.bids.locations import is_own_output

__all__ = ["functional_files"]

MOST_FILES = 5
_DEEPEST = 6  # folders below the derivatives
_MOST_SIBLINGS = 20  # folders that are entered of those beside each other
# BOLD series as fMRIPrep, FSL, SPM, AFNI, HCP pipelines and their like name them; masks, reference
# images and statistical maps are none.
_FUNCTIONAL = re.compile(
    r"(_bold\.nii|_bold_space-.*_preproc\.nii|_bold.*\.(func\.gii|dtseries\.nii|mgh|mgz)"
    r"|(^|_)(task|run)-?.*\.(func\.gii|dtseries\.nii)"
    r"|^(s?w?r?a?u|s?wa?r?)[^/]*bold[^/]*\.nii|filtered_func_data.*\.nii|_preproc_bold\.nii"
    r"|^(pb\d\d|errts)\..*\.(HEAD|nii)|^[tr]fMRI_.*\.nii)"
)
_OTHER = re.compile(r"(boldref|_mask|brainmask|statmap|_mean_)")


def functional_files(folders: Sequence[Path], most: int = MOST_FILES) -> list[Path]:
    """List some functional series below folders, whatever their names and formats.

    Outputs of fmrisynth and hidden folders are passed over, and of many folders
    beside each other some are entered, since this is for a message.

    Parameters
    ----------
    folders : sequence of Path
        Folders of derivatives; those that do not exist hold nothing.
    most : int
        Number of files to list at most.
    """
    found = (path for folder in folders for path in _walk(folder, _DEEPEST))
    return list(islice(found, most))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return
    for name, is_folder in names:
        if not is_folder and _FUNCTIONAL.search(name) and not _OTHER.search(name):
            yield folder / name
    if depth == 0:
        return
    below = [folder / name for name, is_folder in names if is_folder and not name.startswith(".")]
    for path in below[:_MOST_SIBLINGS]:
        if path.name not in {"anat", "dwi", "fmap", "figures"} and not is_own_output(path):
            yield from _walk(path, depth - 1)
