"""Write the files of a phantom cohort: NIfTI images, sidecars and tables."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from fmrisynth.phantom.fields import VoxelGrid

__all__ = [
    "BIDS_VERSION",
    "SPACE",
    "generated_by",
    "link",
    "resolution_label",
    "write_image",
    "write_json",
    "write_table",
]

BIDS_VERSION = "1.10.0"
# The label that fMRIPrep gives its output by default. The anatomy underneath is nilearn's
# MNI152 2009a symmetric template, which lies within 2 mm of it; the README of the cohort says so.
SPACE = "MNI152NLin2009cAsym"


def write_image(
    path: Path,
    data: np.ndarray,
    grid: VoxelGrid,
    *,
    description: str,
    slope: float = 1.0,
    t_r: float = 0.0,
) -> None:
    """Write a compressed NIfTI-1 file; the same content always gives the same bytes.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``.
    data : ndarray of shape (Z, Y, X) or (T, Z, Y, X), int16, uint8 or float32
        Stored as it is.
    grid : VoxelGrid
        Where the voxels lie.
    description : str
        At most 79 characters, for the header.
    slope : float
        What one step of `data` is worth.
    t_r : float
        Repetition time in s of a 4-D image.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape[::-1])
    header.set_zooms(grid.zooms + ((t_r,) if data.ndim == 4 else ()))
    header.set_xyzt_units("mm", "sec")
    header.set_sform(grid.affine, code="mni")
    header.set_qform(grid.affine, code="mni")
    header.set_slope_inter(slope, 0.0)
    header["descrip"] = description
    header["vox_offset"] = 352
    # Noise holds no repeated strings: run-length matching with Huffman codes packs it as well
    # as a search for them, in a third of the time. A gzip header by zlib holds no time.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    with path.open("wb") as file:
        file.write(packer.compress(header.binaryblock + bytes(4)))
        file.write(packer.compress(np.ascontiguousarray(data).data))
        file.write(packer.flush())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a tab-separated table with ``n/a`` for missing values, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def link(source: Path, target: Path) -> None:
    """Give `source` a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def resolution_label(voxel_size: float) -> str:
    """Return the value of the ``res`` entity, such as ``4`` or ``3p5``."""
    return f"{voxel_size:g}".replace(".", "p")


def generated_by(description: str) -> list[dict[str, str]]:
    """Return the GeneratedBy field of a dataset_description.json."""
    from fmrisynth import __version__

    return [{"Name": "fmrisynth.phantom", "Version": __version__, "Description": description}]
