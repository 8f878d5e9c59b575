"""Name the files of a synthetic run in each layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.dataset_files import Layout
from fmrisynth.bids.names import compose_name, func_folder, in_filename_order
from fmrisynth.bids.sidecars import read_json
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.errors import DataError, OutputError
from fmrisynth.runtime.files import make_folder

__all__ = ["DESCRIPTIONS", "SPATIAL", "RunFiles"]

SPATIAL = ("space", "cohort", "res")
DESCRIPTIONS: Mapping[Layout, str] = {"derivatives": "synth", "fmriprep": "preproc"}
"""The desc entity of images in the layouts that have one."""
# Entities that BIDS allows for events; part, echo and their like tell images apart alone.
_EVENTS_ENTITIES = {"sub", "ses", "task", "acq", "ce", "rec", "dir", "run"}


class RunFiles:
    """The paths of a synthetic run's files, which never leave the output directory.

    Parameters
    ----------
    out : Path
        Root of the output dataset.
    entities, spatial : mapping of str to str
        Entities of the run, and those of its space.
    layout : {"derivatives", "fmriprep", "raw"}
        Layout of the output.
    has_events : bool
        Whether the run has a task.
    """

    def __init__(
        self,
        out: Path,
        entities: Mapping[str, str],
        spatial: Mapping[str, str],
        layout: Layout,
        *,
        has_events: bool,
    ) -> None:
        self.out, self.layout, self.has_events = out, layout, has_events
        self.entities, self.spatial = entities, spatial
        self.folder = out.joinpath(*func_folder(entities))
        if layout == "raw":  # raw images have no space, and tell reconstructions apart by rec
            image = {**entities, "rec": "synth" + entities.get("rec", "")}
            synth = brain = timing = image
        else:
            image = {**entities, **spatial}
            synth = {**image, "desc": DESCRIPTIONS[layout]}
            brain, timing = {**image, "desc": "brain"}, dict(entities)
        timing = {key: label for key, label in timing.items() if key in _EVENTS_ENTITIES}
        reference = "sbref" if layout == "raw" else "boldref"
        try:
            self.bold = self._path(synth, "bold.nii.gz")
            self.mask = self._path(brain, "mask.nii.gz")
            self.reference = self._path(image, f"{reference}.nii.gz")
            self.events = self._path(timing, "events.tsv")
            self.confounds = self._path({**entities, "desc": "confounds"}, "timeseries.tsv")
        except ValueError as error:
            raise OutputError(f"no file can be named after this run: {error}") from error
        self.bold_json = self._sidecar(self.bold)
        self.mask_json = self._sidecar(self.mask)
        self.reference_json = self._sidecar(self.reference)
        self.events_json = self._sidecar(self.events)
        self.confounds_json = self._sidecar(self.confounds)

    def _path(self, entities: Mapping[str, str], ending: str) -> Path:
        suffix, dot, extension = ending.partition(".")
        return self.folder / compose_name(in_filename_order(entities), suffix, dot + extension)

    def _sidecar(self, path: Path) -> Path:
        return path.with_name(path.name.split(".")[0] + ".json")

    @classmethod
    def of(cls, run: Run, out: Path, entities: Mapping[str, str], layout: Layout) -> RunFiles:
        """Name the files of a synthetic run after the run that it repeats."""
        return cls(out, entities, run.spatial_entities, layout, has_events=run.events is not None)

    def make_folder(self) -> None:
        """Create the folder, unless a link leads it out of the output directory."""
        make_folder(self.folder)
        if not self.folder.resolve().is_relative_to(self.out.resolve()):
            raise OutputError(
                f"{self.folder} leads out of the output directory through a link, to "
                f"{self.folder.resolve()}. Remove the link."
            )

    def complete(self) -> bool:
        """Say whether the run exists; the sidecar of the image is written last."""
        return all(path.is_file() for path in self.all())

    def all(self) -> tuple[Path, ...]:
        """Name the files that a run has to have, the image and its sidecar first."""
        masks = (self.mask, self.mask_json) if self.layout != "raw" else ()
        events = (self.events, self.events_json) if self.has_events else ()
        return (self.bold, self.bold_json, *masks, *events)

    def companions(self) -> tuple[Path, ...]:
        """Name the files beside them: the reference image, and confounds where the layout has any.

        Runs of other generators lack them.
        """
        confounds = (self.confounds, self.confounds_json) if self.layout != "raw" else ()
        return (self.reference, self.reference_json, *confounds)

    def says_events(self) -> bool:
        """Say whether the sidecar promises events, as it does unless it denies them."""
        try:
            provenance = read_json(self.bold_json).get(PROVENANCE_KEY)
        except DataError:
            return True
        return not isinstance(provenance, dict) or bool(provenance.get("Events", True))
