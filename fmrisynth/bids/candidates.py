"""Choose one BOLD image per run by form of the input, space, resolution and echo."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fmrisynth.bids.ignored import IgnoredFiles
from fmrisynth.bids.index import bold_images
from fmrisynth.bids.names import comparable, current_name, func_folder, name_space, parse_name
from fmrisynth.bids.selection import Selection, matches_filter, require_labels
from fmrisynth.bids.unread import functional_files
from fmrisynth.errors import NoMatchError, UsageError

__all__ = ["Candidate", "Skipped", "choose_images"]

log = logging.getLogger(__name__)

Skipped = list[tuple[Path, str]]
RunKey = tuple[tuple[str, str], ...]

PREFERRED_SPACE = "MNI152NLin2009cAsym"
# Entities that tell versions of one run apart, not runs.
_VERSION_ENTITIES = {"space", "cohort", "res", "den", "desc", "echo"}
_NOT_MAGNITUDE = {"phase", "real", "imag"}


@dataclass(frozen=True)
class Candidate:
    """A BOLD image that may be chosen for its run.

    Attributes
    ----------
    path : Path
        The image.
    root : Path
        Root of the dataset it lies in.
    entities : mapping of str to str
        All entities of its name.
    """

    path: Path
    root: Path
    entities: Mapping[str, str]

    @property
    def run_entities(self) -> dict[str, str]:
        """The entities that name the run."""
        return {k: v for k, v in self.entities.items() if k not in _VERSION_ENTITIES}

    @property
    def key(self) -> RunKey:
        """The run entities as a key, which all versions of a run share."""
        return tuple(comparable(self.run_entities).items())

    @property
    def space(self) -> str | None:
        """Name of the space, with its cohort."""
        return name_space(self.entities.get("space"), self.entities.get("cohort"))


def choose_images(
    bids_dir: Path,
    derivatives: Mapping[str, Path],
    selection: Selection,
    database_dir: Path | None,
    *,
    derivatives_given: bool,
    use_raw: bool = False,
) -> tuple[list[Candidate], Skipped]:
    """Choose one BOLD image for each selected run.

    Preprocessed images of the derivatives are preferred, then those in the BIDS
    directory itself, then raw ones (which then must share one space). Derivatives
    of which none can be read are an error: raw images are another kind of data.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    derivatives : mapping of str to Path
        Name and root of the derivative datasets.
    selection : Selection
        The runs to choose.
    database_dir : Path or None
        Folder for lists of images; see `bold_images`.
    derivatives_given : bool
        The user has named the derivatives: images elsewhere are not considered.
    use_raw : bool
        The user wants raw images, whatever derivatives exist.

    Returns
    -------
    list of Candidate
        Sorted by run.
    list of (Path, str)
        Images that cannot be used, and the reason.

    Raises
    ------
    NoMatchError
        There is no image, or none that the selection matches.
    UsageError
        Several spaces exist and none of them is a usual choice.
    """
    images, skipped = _images_by_form(
        bids_dir,
        derivatives,
        selection,
        database_dir,
        derivatives_given=derivatives_given,
        use_raw=use_raw,
    )
    ignored = IgnoredFiles(bids_dir)
    images = [image for image in images if not _is_ignored(image, ignored)]
    if not images:
        raise NoMatchError(f"all BOLD images are left out by {bids_dir / '.bidsignore'}")
    where = images[0].root if len({image.root for image in images}) == 1 else bids_dir
    for entity, wanted in (
        ("sub", selection.participants),
        ("ses", selection.sessions),
        ("task", selection.tasks),
    ):
        existing = {image.entities[entity] for image in images if entity in image.entities}
        require_labels(entity, wanted, existing, where)
    images = [image for image in images if _is_selected(image, selection)]
    if not images:
        raise NoMatchError(
            f"the BOLD images in {where} exist, but none has the participants, sessions, tasks "
            "and filter-file entities asked for together"
        )
    images = _in_one_space(images, selection, skipped)
    images = _in_one_resolution(images, selection.resolution, skipped)
    skipped = [entry for entry in skipped if _concerns(entry[0], selection)]
    return _one_per_run(images, skipped), skipped


def _images_by_form(
    bids_dir: Path,
    derivatives: Mapping[str, Path],
    selection: Selection,
    database_dir: Path | None,
    *,
    derivatives_given: bool,
    use_raw: bool,
) -> tuple[list[Candidate], Skipped]:
    """Find the images of the first form of input that this tree has."""
    skipped: Skipped = []
    preprocessed: list[Candidate] = []
    for root in derivatives.values():
        images = _parsed(root, database_dir, skipped)
        preprocessed += [image for image in images if _is_preprocessed(image, selection)]
    if preprocessed:
        return preprocessed, skipped
    if derivatives_given:
        _raise_unreadable(list(derivatives.values()), selection)
    own = _parsed(bids_dir, database_dir, skipped)
    preprocessed = [image for image in own if _is_preprocessed(image, selection)]
    if preprocessed:
        return preprocessed, skipped
    if not use_raw and functional_files([bids_dir / "derivatives"]):
        _raise_unreadable([bids_dir / "derivatives"], selection)
    raw = [image for image in own if "desc" not in image.entities]
    if not raw:
        reasons = "".join(f"\n  {path}: {reason}" for path, reason in skipped[:5])
        raise NoMatchError(
            f"no BOLD image of a task (sub-*/[ses-*/]func/*_task-*_bold.nii[.gz]) in {bids_dir} "
            f"or its derivatives{reasons}"
        )
    return raw, skipped


def _raise_unreadable(folders: Sequence[Path], selection: Selection) -> NoReturn:
    """Raise the error about derivatives without an image that can be read; list what is there."""
    files = functional_files(folders)
    listed = "".join(f"\n  {path}" for path in files)
    form = "…_space-NAME_desc-preproc_bold.nii.gz"
    if "desc" in selection.bold_filter:
        form = f"…_space-NAME_desc-{selection.bold_filter['desc']}_bold.nii.gz"
    raise NoMatchError(
        f"no preprocessed BOLD ({form}) of a task in the derivatives "
        + ", ".join(str(folder) for folder in folders)
        + (f". Functional files there:{listed}\n" if files else ". ")
        + "Give the folder that holds preprocessed sub-* folders with --derivatives, another desc "
        'with --bids-filter-file ({"bold": {"desc": NAME}}), or take the raw images with --use-raw.'
    )


def _parsed(root: Path, database_dir: Path | None, skipped: Skipped) -> list[Candidate]:
    """Parse the names of a dataset's BOLD images; wrong names go to `skipped`."""
    images = []
    for path in bold_images(root, database_dir):
        try:
            entities = parse_name(current_name(path.name)).entities
        except ValueError as error:
            skipped.append((path, f"not a BIDS name: {error}"))
            continue
        if "task" not in entities or entities.get("part") in _NOT_MAGNITUDE:
            continue
        parts = func_folder(entities)
        if path.parent != root.joinpath(*parts):
            expected = "/".join(parts)
            skipped.append((path, f"an image of this name belongs in the folder {expected}"))
            continue
        images.append(Candidate(path, root, entities))
    return images


def _is_ignored(image: Candidate, ignored: IgnoredFiles) -> bool:
    """Say whether the dataset leaves out an image, or the raw image that it was made of."""
    if image.path.is_relative_to(ignored.root) and image.path in ignored:
        return True
    raw = ignored.root / image.path.parent.relative_to(image.root)
    name = "_".join(f"{key}-{label}" for key, label in image.run_entities.items())
    return any(raw / f"{name}_bold.{end}" in ignored for end in ("nii.gz", "nii"))


def _is_preprocessed(image: Candidate, selection: Selection) -> bool:
    desc = image.entities.get("desc")
    if "desc" in selection.bold_filter and desc != "synth":
        return matches_filter(image.entities, {"desc": selection.bold_filter["desc"]}) and (
            desc is not None or "space" in image.entities
        )
    return desc == "preproc" or (desc is None and "space" in image.entities)


def _is_selected(image: Candidate, selection: Selection) -> bool:
    wanted = (
        ("sub", selection.participants),
        ("ses", selection.sessions),
        ("task", selection.tasks),
    )
    return all(
        not labels or image.entities.get(entity) in labels for entity, labels in wanted
    ) and matches_filter(image.entities, selection.bold_filter)


def _concerns(path: Path, selection: Selection) -> bool:
    """Say whether a file with an unusable name may belong to the selection."""
    return not selection.participants or any(
        f"sub-{label}" in path.parts for label in selection.participants
    )


def _in_one_space(
    images: Sequence[Candidate], selection: Selection, skipped: Skipped
) -> list[Candidate]:
    """Keep the images of the chosen space; runs that lack it go to `skipped`."""
    spaces = Counter(image.space for image in images)
    wanted = selection.space_name
    matching = [space for space in spaces if space == wanted or _template(space) == wanted]
    if wanted is not None and not matching:
        raise NoMatchError(f"no BOLD image in the space {wanted}. There are: {_listed(spaces)}")
    space = _usual_space(spaces) if wanted is None else _only_cohort(matching)
    if len(spaces) > 1 and wanted is None:
        log.warning(
            "BOLD images exist in several spaces (%s); %s is used. Choose another with --space.",
            _listed(spaces),
            space,
        )
    in_space = [image for image in images if image.space == space]
    present = {image.key for image in in_space}
    lacking = {image.key: image for image in reversed(images) if image.key not in present}
    for image in reversed(lacking.values()):
        if _template(image.space) == _template(space):  # the user chose another cohort
            log.info("%s is left out: %s was chosen", image.path.name, space)
            continue
        skipped.append((image.path, f"the run does not exist in the space {space}"))
    return in_space


def _usual_space(spaces: Iterable[str | None]) -> str | None:
    labels = set(spaces)
    if len(labels) == 1:
        return labels.pop()
    if len({_template(label) for label in labels}) == 1:
        return _only_cohort(sorted(label for label in labels if label))
    if PREFERRED_SPACE in labels:
        return PREFERRED_SPACE
    standard = sorted(label for label in labels if label is not None and label.startswith("MNI"))
    if not standard:
        raise UsageError(
            f"BOLD images exist in several spaces, none of them MNI: {_listed(labels)}. Choose "
            "one with --space."
        )
    return _only_cohort([space for space in standard if _template(space) == _template(standard[0])])


def _template(space: str | None) -> str | None:
    """Return the name of a space without its cohort."""
    return space and space.split(":")[0]


def _only_cohort(spaces: Sequence[str | None]) -> str | None:
    """Return the only cohort of a template; cohorts are different spaces and are not mixed."""
    if len(spaces) > 1:
        raise UsageError(
            f"BOLD images exist in several cohorts of one template: {_listed(spaces)}. They are "
            "different spaces; choose one with --space NAME:cohort-LABEL."
        )
    return spaces[0]


def _listed(spaces: Iterable[str | None]) -> str:
    return ", ".join(sorted(space or "(no space entity)" for space in set(spaces)))


def _in_one_resolution(
    images: Sequence[Candidate], wanted: str | None, skipped: Skipped
) -> list[Candidate]:
    """Keep one resolution per run: the wanted one, else the one that most runs have.

    Of equally frequent ones the native one (no `res`, or ``res-native``) is
    preferred, then the first label in alphabetical order.
    """
    resolutions = Counter(image.entities.get("res") for image in images)
    if wanted is not None:
        matching = [image for image in images if image.entities.get("res") == wanted]
        if not matching:
            existing = ", ".join(sorted(label or "(no res entity)" for label in resolutions))
            raise NoMatchError(f"no BOLD image with res-{wanted}. There are: {existing}")
        return matching

    def preference(label: str | None) -> tuple[int, bool, str]:
        return (-resolutions[label], label not in (None, "native"), label or "")

    best: dict[tuple[RunKey, str | None, Path], Candidate] = {}
    for image in images:
        key = (image.key, image.entities.get("echo"), image.root)
        other = best.get(key)
        if other is not None and image.entities.get("res") == other.entities.get("res"):
            skipped.append((image.path, f"it names the same run as {other.path.name}"))
        elif other is None or preference(image.entities.get("res")) < preference(
            other.entities.get("res")
        ):
            best[key] = image
    if len(resolutions) > 1:
        used = sorted({image.entities.get("res") or "native" for image in best.values()})
        log.warning("BOLD images exist in several resolutions; used: %s", ", ".join(used))
    return list(best.values())


def _one_per_run(images: Sequence[Candidate], skipped: Skipped) -> list[Candidate]:
    """Keep one image per run: of the first dataset, with combined echoes."""
    groups: dict[RunKey, list[Candidate]] = {}
    for image in images:
        groups.setdefault(image.key, []).append(image)
    chosen = []
    for key in sorted(groups):
        group = groups[key]
        if len({image.root for image in group}) > 1:
            log.warning(
                "%s exists in several derivatives; the one in %s is used. Choose with "
                "--derivatives.",
                group[0].path.name,
                group[0].root,
            )
            group = [image for image in group if image.root == group[0].root]
        combined = [image for image in group if "echo" not in image.entities]
        if not combined and len(group) > 1:
            skipped.append(
                (
                    group[0].path,
                    f"only {len(group)} single echoes exist; combine them first, or choose one "
                    'with --bids-filter-file {"bold": {"echo": 2}}',
                )
            )
            continue
        chosen.append((combined or group)[0])
    return chosen
