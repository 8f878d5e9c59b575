"""Read the run of an image: its header, sidecars, events, mask and confounds."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.bids.candidates import Candidate
from fmrisynth.bids.checks import reference_image
from fmrisynth.bids.dataset import UNKNOWN, BoldRun, Run
from fmrisynth.bids.headers import (
    HeaderCache,
    ImageHeader,
    check_present,
    read_header,
    repetition_time,
    require_bold,
)
from fmrisynth.bids.names import in_filename_order
from fmrisynth.bids.sidecars import Sidecars
from fmrisynth.errors import DataError

__all__ = ["RunReader"]

log = logging.getLogger(__name__)

_PHASE_ENCODINGS = {"i", "i-", "j", "j-", "k", "k-"}
# Metadata that derivatives do not repeat, but that hold for them as for the raw image.
_FROM_RAW = ("RepetitionTime", "TaskName", "PhaseEncodingDirection", "InstitutionName")
_LATEST_START = 100.0  # s; half of a TR, and discarded volumes on top


class RunReader:
    """Reads the run of an image; keeps the folder listings of the datasets."""

    def __init__(self, bids_dir: Path, cache: HeaderCache) -> None:
        self.raw = Sidecars(bids_dir)
        self.sidecars = {bids_dir: self.raw}
        self.table = _participants_table(bids_dir / "participants.tsv")
        self.cache = cache

    def read(self, image: Candidate) -> Run:
        """Build the Run of an image, with its events where there are any.

        Raises
        ------
        DataError
            When the image, its sidecars or its mask cannot be used.
        """
        events = self.events_of(image)
        if events is not None:
            check_present(events)
        return Run(**self._fields(image), events=events)

    def read_any(self, image: Candidate) -> BoldRun:
        """Build the Run of an image that has events, the BoldRun of one that has none."""
        run = self.read(image)
        return run if run.events is not None else BoldRun(**self._fields(image))

    def events_of(self, image: Candidate) -> Path | None:
        """Find the events of an image, in the raw dataset or beside the image."""
        entities = in_filename_order(image.run_entities)
        own = self.sidecars.setdefault(image.root, Sidecars(image.root))
        return self.raw.nearest(entities, "_events.tsv") or own.nearest(entities, "_events.tsv")

    def require_events(self, image: Candidate) -> None:
        """Refuse an image without events; the message says where they were looked for."""
        if self.events_of(image) is None:
            entities = in_filename_order(image.run_entities)
            raise DataError(
                f"no events.tsv applies to it, although other runs of the task have events: looked "
                f"for {self._expected_events(entities)} and, by inheritance, above it"
            )

    def _fields(self, image: Candidate) -> dict[str, Any]:
        """Read all that a run has besides its events."""
        own = self.sidecars.setdefault(image.root, Sidecars(image.root))
        entities = in_filename_order(image.run_entities)
        header = self.cache.read(image.path)
        require_bold(header, image.path)
        metadata = self._metadata(image, own, entities)
        mask = _mask(image, own)
        return {
            "entities": entities,
            "bold": image.path,
            "mask": mask,
            "space": image.entities.get("space"),
            "cohort": image.entities.get("cohort"),
            "resolution": image.entities.get("res"),
            "t_r": repetition_time(metadata, header, image.path),
            "start_time": _start_time(metadata, image.path),
            "shape": (header.shape[0], header.shape[1], header.shape[2]),
            "n_volumes": header.shape[3],
            "affine": _affine(header, image.path, (mask, reference_image(image.path))),
            "phase_encoding": _phase_encoding(metadata, entities),
            "site": _site(metadata, self.table.get(entities["sub"])),
            "metadata": metadata,
            "confounds": _confounds(image, own),
        }

    def _metadata(
        self, image: Candidate, own: Sidecars, entities: Mapping[str, str]
    ) -> dict[str, Any]:
        metadata = own.metadata(image.entities, "bold")
        if own is not self.raw:
            raw = self.raw.metadata(entities, "bold")
            if "PhaseEncodingDirection" not in raw:  # multi-echo: the echoes share it
                raw = {**self.raw.metadata({**entities, "echo": "1"}, "bold"), **raw}
            metadata = {key: raw[key] for key in _FROM_RAW if key in raw} | metadata
        return metadata

    def _expected_events(self, entities: Mapping[str, str]) -> Path:
        name = "_".join(f"{key}-{label}" for key, label in entities.items())
        return self.raw.folder_of(entities) / f"{name}_events.tsv"


def _mask(image: Candidate, own: Sidecars) -> Path | None:
    """Find the brain mask of the same run and space."""
    entities = {**image.entities, "desc": "brain"}
    required = {k: v for k, v in entities.items() if k in {"sub", "space", "desc"}}
    for extension in (".nii.gz", ".nii"):
        path = own.nearest(entities, f"_mask{extension}", required)
        if path is not None:
            check_present(path)
            return path
    return None


def _confounds(image: Candidate, own: Sidecars) -> Path | None:
    """Find the table of confounds of the same run, which has no space."""
    entities = {**image.entities, "desc": "confounds"}
    required = {"sub": image.entities["sub"], "desc": "confounds"}
    return own.nearest(entities, "_timeseries.tsv", required)


def _affine(header: ImageHeader, path: Path, others: tuple[Path | None, ...]) -> np.ndarray:
    """Return an image's affine; without an orientation, that of its mask or reference image."""
    if header.has_orientation:
        return header.affine
    for other in others:
        if other is None:
            continue
        known = read_header(other)
        if known.has_orientation and known.shape[:3] == header.shape[:3]:
            log.warning(
                "%s has no orientation in its header (qform_code and sform_code are 0); that of "
                "%s is used",
                path,
                other.name,
            )
            return known.affine
    raise DataError(
        f"{path} has no orientation in its header (qform_code and sform_code are 0), so left and "
        "right, and its place in the space, are unknown. Set sform and its code from the image "
        "that it was made of."
    )


def _phase_encoding(metadata: Mapping[str, Any], entities: Mapping[str, str]) -> str:
    direction = metadata.get("PhaseEncodingDirection")
    if isinstance(direction, str) and direction in _PHASE_ENCODINGS:
        return direction
    return entities.get("dir", UNKNOWN)


def _start_time(metadata: Mapping[str, Any], path: Path) -> float:
    """Read StartTime (s); ignore what is no number of seconds near 0, with a warning."""
    stated = metadata.get("StartTime", 0.0)
    number = isinstance(stated, int | float) and not isinstance(stated, bool)
    if number and abs(stated) <= _LATEST_START:
        return float(stated)
    log.warning(
        "%s: StartTime %.40r is ignored; seconds up to %g are expected", path, stated, _LATEST_START
    )
    return 0.0


def _site(metadata: Mapping[str, Any], from_table: str | None) -> str:
    institution = metadata.get("InstitutionName")
    if isinstance(institution, str) and institution.strip():
        return institution.strip()
    return from_table or UNKNOWN


def _participants_table(participants: Path) -> dict[str, str | None]:
    """Read each participant's site or scanner from participants.tsv; a broken table gives none."""
    try:
        with participants.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s is ignored, it cannot be read: %s", participants, error)
        return {}
    table: dict[str, str | None] = {}
    for row in rows:
        label = (row.get("participant_id") or "").removeprefix("sub-")
        site = row.get("site") or row.get("scanner") or "n/a"
        table[label] = None if site == "n/a" else site
    return table
