"""Load parcels with names, from TemplateFlow where it can be had.

The files are looked for in the TemplateFlow home first, without the client:
importing it fills an empty home with stubs, and a query indexes all of them.
Only when they are not there, TEMPLATEFLOW_AUTOUPDATE is not switched off (as it
is in the containers), and TemplateFlow's server answers within seconds, is the
client asked to fetch them. ``python -m fmrisynth.evaluation.runs.atlas FOLDER`` does
so in advance, for machines without a network.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import nibabel as nib
import numpy as np

from fmrisynth.errors import FmrisynthError
from fmrisynth.runtime.files import make_folder, write_bytes

__all__ = ["Atlas", "load_atlas", "save_atlases"]

log = logging.getLogger(__name__)

_SPACES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")
_SCHAEFER, _DESCRIPTION, _RESOLUTION = "Schaefer2018", "100Parcels7Networks", 2
_SERVER = "https://templateflow.s3.amazonaws.com"
_AUTOUPDATE, _OFF = "TEMPLATEFLOW_AUTOUPDATE", ("0", "false", "off", "no", "n")
_PROBE_SECONDS, _FETCH_SECONDS, _PATIENT_SECONDS = 4.0, 60.0, 600.0
_UNAVAILABLE = 69  # exit code, as in sysexits.h; a build goes on after this one only

T = TypeVar("T")


@dataclass(frozen=True)
class Atlas:
    """Parcels of the brain.

    Attributes
    ----------
    name : str
        Its name, for the report.
    image : Nifti1Image
        Label of each voxel, 0 outside, in the space that was asked for.
    labels : mapping
        Label → name of the parcel.
    """

    name: str
    image: nib.Nifti1Image
    labels: Mapping[int, str]


def load_atlas(space: str | None) -> Atlas | None:
    """Load Schaefer's 100 parcels in 7 networks at 2 mm.

    Parameters
    ----------
    space : str or None
        Standard space of the runs, e.g. ``"MNI152NLin2009cAsym"``; None for
        runs that are in no standard space.

    Returns
    -------
    Atlas or None
        None, with a logged notice that says why, when the space has no such
        atlas or the files can neither be found nor fetched. Without network
        this takes a few seconds at most.
    """
    if space not in _SPACES:
        log.info(
            "no atlas for runs in the space %r (there is one for %s); parcels are computed from "
            "the data instead",
            space,
            " and ".join(_SPACES),
        )
        return None
    try:
        image, table = _find(space) or _fetch(space, _FETCH_SECONDS)
        return Atlas(f"{_SCHAEFER}, {_DESCRIPTION}", *_read(image, table))
    except Exception as error:  # the client, the network and the files fail in many ways
        log.warning(
            "the atlas %s (%s) of TemplateFlow cannot be had (%s); parcels are computed from the "
            "data instead. To use it, set TEMPLATEFLOW_HOME to a folder that holds it.",
            _SCHAEFER,
            _DESCRIPTION,
            error,
        )
        return None


def save_atlases(folder: Path) -> dict[str, str]:
    """Put the atlas of each space into a folder that then serves as TEMPLATEFLOW_HOME.

    Only the files that `load_atlas` looks for come there, two for each space,
    and only when it can read them; the client's stubs do not.

    Parameters
    ----------
    folder : pathlib.Path
        Created when it is not there, even if nothing can be had.

    Returns
    -------
    dict
        Space → why its atlas cannot be had; empty when all can.

    Raises
    ------
    FmrisynthError
        When the folder cannot be written to.
    """
    make_folder(folder)
    failures = {}
    for space in _SPACES:
        try:
            files = _find(space) or _fetch(space, _PATIENT_SECONDS)
            _read(*files)
        except Exception as error:  # as in load_atlas
            failures[space] = f"{type(error).__name__}: {error}"
            continue
        for file, name in zip(files, _names(space), strict=True):
            write_bytes(folder / f"tpl-{space}" / name, file.read_bytes())
    return failures


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Put TemplateFlow's atlas, for each space that it is used in, into FOLDER.

    FOLDER can then be the TEMPLATEFLOW_HOME of a machine without a network. The exit code is 69
    when the atlas of a space cannot be had; the output says of which, and why.
    """
    try:
        failures = save_atlases(folder)
    except FmrisynthError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    for space in _SPACES:
        said = f"not there ({failures[space]})" if space in failures else f"in {folder}"
        click.echo(f"atlas {_SCHAEFER}, {_DESCRIPTION}, {space}: {said}", err=space in failures)
    if failures:
        click.echo("without an atlas, parcels are computed from the data", err=True)
        sys.exit(_UNAVAILABLE)


def _names(space: str) -> tuple[str, str]:
    """Names of the image and of the table of labels, as TemplateFlow gives them."""
    tail = f"atlas-{_SCHAEFER}_desc-{_DESCRIPTION}_dseg"
    return (
        f"tpl-{space}_res-{_RESOLUTION:02d}_{tail}.nii.gz",
        f"tpl-{space}_{tail}.tsv",
    )


def _homes() -> list[Path]:
    """Where TemplateFlow keeps its files: what the variable says, else the user's cache."""
    named = os.environ.get("TEMPLATEFLOW_HOME")
    if named:
        return [Path(named)]
    caches = [Path(p) for p in (os.environ.get("XDG_CACHE_HOME"),) if p]
    with contextlib.suppress(RuntimeError):  # a container's user without a home
        caches += [Path.home() / ".cache", Path.home() / "Library" / "Caches"]
    return [cache / "templateflow" for cache in caches]


def _find(space: str) -> tuple[Path, Path] | None:
    """Find both files on disk; a fresh TemplateFlow home is full of empty stubs."""
    for home in _homes():
        image, table = (home / f"tpl-{space}" / name for name in _names(space))
        if all(path.is_file() and path.stat().st_size > 0 for path in (image, table)):
            return image, table
    return None


def _fetch(space: str, seconds: float) -> tuple[Path, Path]:
    """Have the client fetch both files, once the server has been seen to answer."""
    if os.environ.get(_AUTOUPDATE, "").lower() in _OFF:
        raise ConnectionError(f"{_AUTOUPDATE} is off")
    _within(_PROBE_SECONDS, lambda: _probe(f"{_SERVER}/tpl-{space}/{_names(space)[0]}"))

    def ask() -> tuple[Path, Path]:
        from templateflow import api

        query = {"atlas": _SCHAEFER, "desc": _DESCRIPTION, "suffix": "dseg"}
        image = api.get(space, resolution=_RESOLUTION, extension=".nii.gz", **query)
        return Path(image), Path(api.get(space, resolution=None, extension=".tsv", **query))

    return _within(seconds, ask)


def _probe(address: str) -> None:
    request = urllib.request.Request(address, method="HEAD")
    with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
        pass


def _within(seconds: float, action: Callable[[], T]) -> T:
    """Run an action in a thread that is left behind when it takes longer (a name look-up can)."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as error:  # handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=run, name="templateflow", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer from {_SERVER} within {seconds:g} s")
    return results[0]


def _read(image: Path, table: Path) -> tuple[nib.Nifti1Image, dict[int, str]]:
    """Read labels and their names; a label without a name is called by its number."""
    loaded = nib.Nifti1Image.from_filename(image)
    values = np.asarray(loaded.dataobj)
    if values.ndim != 3 or not np.isfinite(values).all() or not (values > 0).any():
        raise ValueError(f"{image} is no volume of labels")
    present = [int(label) for label in np.unique(values) if label > 0]
    names = {}
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            names[int(row["index"])] = row["name"]
    volume = np.rint(values).astype(np.int16)
    return nib.Nifti1Image(volume, loaded.affine), {n: names.get(n, f"parcel {n}") for n in present}


if __name__ == "__main__":
    main()
