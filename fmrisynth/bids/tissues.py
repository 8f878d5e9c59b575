"""Find the tissue maps of a participant in the space of its functional images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.names import parse_name

__all__ = ["TISSUES", "find_tissue_maps"]

TISSUES = ("CSF", "WM")
_EXTENSIONS = (".nii.gz", ".nii")
_OLD_LABELS = {"CSF": "class-CSF_probtissue", "WM": "class-WM_probtissue"}  # fMRIPrep 1.0


def find_tissue_maps(run: BoldRun) -> dict[str, Path]:
    """Find probability maps of cerebrospinal fluid and white matter, as fMRIPrep writes them.

    Parameters
    ----------
    run : BoldRun
        A preprocessed run; maps lie in the ``anat`` folders of its participant.

    Returns
    -------
    dict of str to Path
        By the labels of `TISSUES`; empty unless both are there. Of several
        resolutions that of the run is preferred.
    """
    session = run.bold.parents[1]
    folders = [session, session.parent] if run.session else [session]
    found: dict[str, Path] = {}
    for folder in folders:
        paths = sorted(
            [*folder.glob("anat/*_prob*.nii*"), *folder.glob("ses-*/anat/*_prob*.nii*")],
            key=lambda path: (f"_res-{run.resolution}_" not in path.name, path.name),
        )
        for path in paths:
            tissue = _tissue_of(path, run)
            if tissue is not None:
                found.setdefault(tissue, path)
    return found if set(found) == set(TISSUES) else {}


def _tissue_of(path: Path, run: BoldRun) -> str | None:
    """Return the tissue of a probability map in the run's space; None for other images."""
    for tissue, label in _OLD_LABELS.items():
        if path.name.startswith(f"sub-{run.participant}_") and label in path.name:
            return tissue if f"space-{run.space}_" in path.name else None
    try:
        name = parse_name(path.name)
    except ValueError:
        return None
    entities: Mapping[str, str] = name.entities
    same_space = (entities.get("space"), entities.get("cohort")) == (run.space, run.cohort)
    is_map = name.suffix == "probseg" and name.extension in _EXTENSIONS
    found = entities.get("label")
    return found if is_map and same_space and found in TISSUES else None
