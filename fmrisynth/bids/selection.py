"""Select runs by labels and by a BIDS filter file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmrisynth.bids.names import ENTITY_NAMES, strip_prefix
from fmrisynth.bids.sidecars import read_json
from fmrisynth.errors import DataError, NoMatchError, UsageError

__all__ = ["ANY_TASK", "Selection", "matches_filter", "read_filter_file", "require_labels"]

ANY_TASK = ""
"""Key of a table of events that is given without a task: the only task of the runs."""

_SHORT_KEYS = {long: short for short, long in ENTITY_NAMES.items()} | {"resolution": "res"}
_ANY = ("*", "Query.ANY", "Query.REQUIRED")
_NONE = (None, "Query.NONE")
_OPTIONAL = "Query.OPTIONAL"


@dataclass(frozen=True)
class Selection:
    """A selection of runs; an empty tuple, mapping or None selects everything.

    Labels may have their prefix (``sub-01``); it is dropped, as are repeats.

    Attributes
    ----------
    participants, sessions, tasks : tuple of str
        Labels to keep.
    space : str, optional
        The space (and, after colons, cohort and resolution: ``MNIPediatricAsym:cohort-2:res-2``).
    filters : mapping
        Content of the filter file, as `read_filter_file` returns it.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    space: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, entity in (("participants", "sub"), ("sessions", "ses"), ("tasks", "task")):
            object.__setattr__(self, name, strip_prefix(entity, tuple(getattr(self, name))))
        if self.space is not None:
            object.__setattr__(self, "space", self.space.removeprefix("space-"))

    @property
    def space_name(self) -> str | None:
        """The selected space with its cohort, without its resolution."""
        if self.space is None:
            return None
        template, *details = self.space.split(":")
        return ":".join([template, *(part for part in details if part.startswith("cohort-"))])

    @property
    def resolution(self) -> str | None:
        """The selected resolution, from ``space:res-2`` or ``space:2``."""
        details = [] if self.space is None else self.space.split(":")[1:]
        labels = [part.removeprefix("res-") for part in details if not part.startswith("cohort-")]
        return labels[0] if labels else None

    @property
    def bold_filter(self) -> Mapping[str, Any]:
        """The filter of BOLD images, by short entity keys."""
        return {
            _SHORT_KEYS.get(key, key): value for key, value in self.filters.get("bold", {}).items()
        }


def read_filter_file(path: Path) -> dict[str, Any]:
    """Read a BIDS filter file in fMRIPrep's form.

    ``{"bold": {"session": "01", "run": [1, 2], "acquisition": null}}``: a label,
    a list of labels, ``null`` or ``"Query.NONE"`` (the entity must be absent),
    ``"*"`` or ``"Query.ANY"`` (it must be there). Keys other than ``bold``
    (``t1w``, ``fmap``, …) concern images that fmrisynth does not read.

    Raises
    ------
    UsageError
        When there is no such file, or it names an entity that BIDS has not.
    DataError
        When the file is not JSON of this form.
    """
    if not path.is_file():
        raise UsageError(f"--bids-filter-file {path}: there is no such file.")
    content = read_json(path)
    for kind, wanted in content.items():
        if not isinstance(wanted, dict):
            raise DataError(f"{path}: {kind!r} must hold an object of entities, not {wanted!r}")
    known = {*ENTITY_NAMES, *_SHORT_KEYS, "suffix", "datatype", "extension"}
    unknown = sorted(set(content.get("bold", {})) - known)
    if unknown:
        raise UsageError(
            f"{path}: unknown entities in the filter: {', '.join(unknown)}. Known are: "
            + ", ".join(sorted(set(ENTITY_NAMES.values())))
        )
    return content


def matches_filter(entities: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    """Say whether an image's entities match a filter with short keys; numbers ignore zeros."""
    return all(
        _fits(entities.get(key), value)
        for key, value in wanted.items()
        if key not in {"suffix", "datatype", "extension"}  # always bold, func and NIfTI here
    )


def _fits(label: str | None, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(label, item) for item in wanted)
    if wanted in _NONE:
        return label is None
    if wanted == _OPTIONAL or (wanted in _ANY and label is not None):
        return True
    if label is None:
        return False
    wanted = str(wanted)
    if label.isdecimal() and wanted.isdecimal():
        return int(label) == int(wanted)
    return label == wanted


def require_labels(
    entity: str, wanted: Iterable[str], existing: Iterable[str], where: Path
) -> None:
    """Refuse labels that no BOLD image has.

    Parameters
    ----------
    entity : {"sub", "ses", "task"}
        Key of the entity.
    wanted, existing : iterable of str
        Labels that the user has selected, and those of the images.
    where : Path
        Root of the dataset, for the message.

    Raises
    ------
    NoMatchError
        A label does not exist; the message lists those that do.
    """
    labels = sorted(set(existing))
    missing = [label for label in wanted if label not in labels]
    if not missing:
        return
    name = {"sub": "participant", "ses": "session", "task": "task"}[entity]
    shown = ", ".join(labels[:50]) + (f", … ({len(labels)} in all)" if len(labels) > 50 else "")
    raise NoMatchError(
        f"no BOLD image of {name} {', '.join(missing)} in {where.resolve()}. "
        + (f"It has: {shown}" if labels else f"It has no {name} labels.")
    )
