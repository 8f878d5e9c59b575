"""Parse and compose BIDS file names: entities, suffix and extension.

pybids matches its entity patterns against the *absolute* path, so that a
dataset below a folder named ``sub-99`` has one participant, 99; and it cuts a
label at the first character that it does not know. Names are therefore parsed
here, from the file name alone and strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ENTITY_NAMES",
    "BidsName",
    "check_label",
    "comparable",
    "compose_name",
    "current_name",
    "func_folder",
    "in_filename_order",
    "name_space",
    "parse_name",
    "strip_prefix",
]

# Long name (pybids, filter files) of each entity, in the order of BIDS file names.
ENTITY_NAMES: Mapping[str, str] = {
    "sub": "subject",
    "ses": "session",
    "sample": "sample",
    "task": "task",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inv",
    "mt": "mt",
    "part": "part",
    "proc": "proc",
    "hemi": "hemi",
    "space": "space",
    "cohort": "cohort",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "seg": "segmentation",
    "res": "res",
    "den": "den",
    "label": "label",
    "desc": "desc",
}
# Entities whose labels are numbers: run-01 and run-1 are one run.
_INDICES = {"run", "echo", "flip", "inv", "split"}
# Names that fMRIPrep wrote before derivatives were standardised, and what they are called now.
_OLD_NAMES = (
    (re.compile(r"^(.+)_bold_(space-[^_]+)_preproc(\.[^_]+)$"), r"\1_\2_desc-preproc_bold\3"),
    (re.compile(r"^(.+)_bold_(space-[^_]+)_brainmask(\.[^_]+)$"), r"\1_\2_desc-brain_mask\3"),
    (re.compile(r"^(.+)_bold_confounds(\.[^_]+)$"), r"\1_desc-confounds_timeseries\2"),
    (re.compile(r"^(.+)_desc-confounds_regressors(\.[^_]+)$"), r"\1_desc-confounds_timeseries\2"),
)
_ORDER = {key: position for position, key in enumerate(ENTITY_NAMES)}


@dataclass(frozen=True)
class BidsName:
    """The parts of a BIDS file name.

    Attributes
    ----------
    entities : mapping of str to str
        Short keys and labels, in the order of BIDS file names.
    suffix : str
        ``"bold"``, ``"events"``, …
    extension : str
        From the first dot on: ``".nii.gz"``.
    """

    entities: Mapping[str, str]
    suffix: str
    extension: str


def check_label(entity: str, label: str) -> str:
    """Return `label` when BIDS allows it: such a label cannot lead out of its folder.

    Raises
    ------
    ValueError
        When the label has no letter or digit, or anything but letters, digits and "+".
    """
    if not (label.isascii() and label.replace("+", "").isalnum()):
        raise ValueError(
            f"the label {label!r} of the entity {entity!r} may hold only letters and digits"
        )
    return label


def in_filename_order(entities: Mapping[str, str]) -> dict[str, str]:
    """Sort entities as BIDS file names do; unknown ones come last."""
    return dict(sorted(entities.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))


def parse_name(name: str) -> BidsName:
    """Parse a BIDS file name.

    Raises
    ------
    ValueError
        When the name is not ``key-label[_key-label…]_suffix.extension``.
    """
    stem, extension = _split_extension(name)
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, label = pair.partition("-")
        if not dash or not (key.isascii() and key.isalpha() and key.islower()):
            raise ValueError(f"{pair!r} is not an entity of the form key-label")
        if key in entities:
            raise ValueError(f"the entity {key!r} appears twice")
        entities[key] = check_label(key, label)
    if not suffix.isascii() or not suffix.isalnum():
        raise ValueError(f"{suffix!r} is not a BIDS suffix")
    return BidsName(in_filename_order(entities), suffix, extension)


def current_name(name: str) -> str:
    """Translate a file name of old fMRIPrep versions (1.0, 1.1) into the present spelling."""
    for pattern, replacement in _OLD_NAMES:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def comparable(entities: Mapping[str, str]) -> dict[str, str]:
    """Drop leading zeros of the labels that are numbers, so that run-01 equals run-1."""
    return {
        key: str(int(label)) if key in _INDICES and label.isdecimal() else label
        for key, label in entities.items()
    }


def name_space(space: str | None, cohort: str | None) -> str | None:
    """Name a space with its cohort, as TemplateFlow does: ``MNIPediatricAsym:cohort-2``."""
    return f"{space}:cohort-{cohort}" if space and cohort else space


def _split_extension(name: str) -> tuple[str, str]:
    # The last underscore starts the suffix, and the extension starts at the first dot after
    # it; dots before it belong to a (wrong) label, which parse_name then names.
    head, underscore, tail = name.rpartition("_")
    suffix, dot, extension = tail.partition(".")
    return head + underscore + suffix, dot + extension


def compose_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Compose a BIDS file name; the labels are checked.

    Raises
    ------
    ValueError
        When a label holds characters that BIDS does not allow.
    """
    pairs = [f"{key}-{check_label(key, label)}" for key, label in entities.items()]
    return "_".join([*pairs, suffix]) + extension


def strip_prefix(entity: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Drop a leading ``sub-``/``ses-``/``task-`` from labels, and repeated labels."""
    return tuple(dict.fromkeys(label.removeprefix(f"{entity}-") for label in labels))


def func_folder(entities: Mapping[str, str]) -> list[str]:
    """Return the parts of the folder of functional images: sub-, ses- where there is one, func."""
    parts = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return [*parts, "func"]
