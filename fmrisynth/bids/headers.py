"""Read NIfTI headers and repetition times, and check them before any voxel is loaded."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from fmrisynth.errors import DataError, FmrisynthError
from fmrisynth.runtime.files import write_text

__all__ = [
    "HeaderCache",
    "ImageHeader",
    "check_present",
    "read_header",
    "repetition_time",
    "require_bold",
]

log = logging.getLogger(__name__)

LONGEST_T_R = 20.0  # s; a longer one is milliseconds written for seconds
SHORTEST_T_R = 0.05  # s
_SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_LARGEST_POINTER = 32 * 1024  # bytes; git-annex looks for pointers in files up to this size
_LARGEST_DIMENSION = 4096  # voxels along one axis of the brain; ten times what scanners make


@dataclass(frozen=True)
class ImageHeader:
    """The part of a NIfTI header that finding runs needs.

    Attributes
    ----------
    shape : tuple of int
        As stored, (X, Y, Z) or (X, Y, Z, T).
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    t_r : float or None
        pixdim[4] in s when the header states its unit, else as stored; None when unset.
    has_orientation : bool
        Whether qform_code or sform_code is set; without either the affine is a guess.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    t_r: float | None
    has_orientation: bool = True


def check_present(path: Path) -> None:
    """Refuse a file that is absent, empty, or a link or pointer without its content.

    Raises
    ------
    DataError
        The file is one of these; for an annexed one the message gives the command
        that gets the content.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path} is a broken link, so its content is not on this machine. For a DataLad or "
            f"git-annex dataset get it with: datalad get {path.name} (or git annex get), run in "
            f"{path.parent}"
        )
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    if size <= _LARGEST_POINTER:
        _refuse_pointer(path)


def _refuse_pointer(path: Path) -> None:
    """Refuse a small text file that stands for content kept elsewhere."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError:
        return  # whoever reads the file gives the reason
    if start.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{path} is a Git LFS pointer, not its content. Get it with: git lfs pull, run in "
            f"{path.parent}"
        )
    if b"annex/objects/" in start and b"\0" not in start:
        raise DataError(
            f"{path} is a git-annex pointer, not its content. Get it with: datalad get "
            f"{path.name} (or git annex get), run in {path.parent}"
        )


def read_header(path: Path) -> ImageHeader:
    """Read shape, affine and TR of a NIfTI image without reading its voxels.

    Raises
    ------
    DataError
        When the file is absent, empty or damaged, or its header impossible.
    """
    check_present(path)
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is a subclass
            raise DataError(f"{path} is a {type(image).__name__}; a NIfTI image is expected")
        header = image.header
        shape = tuple(int(size) for size in image.shape)
        affine = np.array(image.affine, dtype=np.float64)
        zooms = [float(zoom) for zoom in header.get_zooms()]
        unit = header.get_xyzt_units()[1]
        has_orientation = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    except (
        ImageFileError,
        HeaderDataError,
        HeaderTypeError,
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        raise DataError(f"{path} has no readable NIfTI header ({error})") from error
    if not shape or min(shape) < 1 or max(shape[:3]) > _LARGEST_DIMENSION:
        raise DataError(f"{path} has an impossible shape in its header: {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path} has an affine that cannot be inverted: {affine.tolist()}")
    t_r = zooms[3] * _SECONDS_PER_UNIT.get(unit, 1.0) if len(zooms) > 3 else None
    if t_r is not None and (not math.isfinite(t_r) or t_r <= 0):
        t_r = None
    return ImageHeader(shape, affine, t_r, has_orientation)


def require_bold(header: ImageHeader, path: Path) -> None:
    """Refuse an image that is not a time series of volumes.

    Raises
    ------
    DataError
        When the image is not 4D, is flat, or holds a single volume.
    """
    shape = header.shape
    if len(shape) != 4:
        raise DataError(
            f"{path} is {len(shape)}D with shape {shape}; a BOLD run has 4 dimensions (X, Y, Z, T)"
        )
    if shape[3] < 2:
        raise DataError(f"{path} holds one volume; a BOLD run needs several")
    if min(shape[:3]) < 2:
        raise DataError(f"{path} has the shape {shape}; every spatial axis needs 2 voxels or more")


def repetition_time(metadata: Mapping[str, Any], header: ImageHeader, path: Path) -> float:
    """Read the repetition time (s) of a run.

    The sidecar's RepetitionTime is used, and the header's pixdim[4] where there
    is none. Where both are given they must agree within 1 %, except that a header
    of exactly 1 counts as unset (the default of many programs) and that a header
    in milliseconds without its unit is understood.

    Parameters
    ----------
    metadata : mapping
        Sidecar of the image, with inheritance.
    header : ImageHeader
        Header of the image.
    path : Path
        The image, for messages.

    Raises
    ------
    DataError
        The repetition time is missing, is no positive number of seconds, or differs
        between sidecar and header.
    """
    stated = metadata.get("RepetitionTime")
    if stated is None:
        if "VolumeTiming" in metadata:
            raise DataError(
                f"{path} was acquired at irregular times (VolumeTiming in its sidecar); only runs "
                "with one RepetitionTime can be used"
            )
        if header.t_r is None:
            raise DataError(
                f"{path} has no repetition time: no RepetitionTime in a JSON sidecar, and "
                'pixdim[4] of the header is unset. Add "RepetitionTime" (in s) to the sidecar.'
            )
        return _plausible(header.t_r, f"pixdim[4] of {path}")
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise DataError(
            f"RepetitionTime in the sidecar of {path} is {stated!r}; a number in s is expected"
        )
    try:
        seconds = float(stated)
    except OverflowError:  # an integer of hundreds of digits
        seconds = math.inf
    t_r = _plausible(seconds, f"RepetitionTime in the sidecar of {path}")
    if header.t_r is not None and header.t_r != 1.0:
        readings = (header.t_r, header.t_r / 1000)
        if not any(math.isclose(t_r, reading, rel_tol=0.01) for reading in readings):
            raise DataError(
                f"the repetition time of {path} is {t_r:g} s in its sidecar and {header.t_r:g} s "
                "in its header (pixdim[4]). Correct the wrong one."
            )
    return t_r


def _plausible(t_r: float, where: str) -> float:
    if not math.isfinite(t_r) or t_r <= 0:
        raise DataError(f"{where} is {t_r:g}; a repetition time is a positive number of seconds")
    if t_r > LONGEST_T_R:
        raise DataError(
            f"{where} is {t_r:g} s, which looks like milliseconds: seconds are expected "
            f"({t_r / 1000:g}?)"
        )
    if t_r < SHORTEST_T_R:
        raise DataError(f"{where} is {t_r:g} s; no whole-brain run is that fast. Is it in s?")
    return t_r


class HeaderCache:
    """A cache of headers by path, size and time of change, kept in a file between calls.

    Parameters
    ----------
    path : Path or None
        The JSON file; without one every header is read anew.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(path.read_text(encoding="utf-8"))
                self._known = content if isinstance(content, dict) else {}

    def read(self, path: Path) -> ImageHeader:
        """Read the header of an image from the cache, else by `read_header`; errors as there."""
        if self._path is None:
            return read_header(path)
        try:
            status = path.stat()
            stamp = [status.st_mtime_ns, status.st_size]
            known_stamp, shape, affine, t_r, has_orientation = self._known[str(path)]
            if known_stamp == stamp:
                affine = np.array(affine, dtype=float)
                return ImageHeader(tuple(shape), affine, t_r, has_orientation)
        except (OSError, KeyError, ValueError, TypeError):
            pass
        header = read_header(path)
        status = path.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        content = [header.shape, header.affine.tolist(), header.t_r, header.has_orientation]
        self._known[str(path)] = [stamp, *content]
        self._changed = True
        return header

    def save(self) -> None:
        """Write new headers to the file; a read-only folder is no error."""
        if self._path is None or not self._changed:
            return
        try:
            write_text(self._path, json.dumps(self._known))
        except FmrisynthError as error:
            log.info("headers are not kept: %s", error)
