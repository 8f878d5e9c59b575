"""Write a synthetic run with all that stands beside it: confounds, truth, maps and series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import write_synthetic_run
from fmrisynth.bids.effect_maps import write_effect_maps, write_parcel_series
from fmrisynth.bids.events import read_events
from fmrisynth.bids.synthetic_sidecars import CARRIER_KEY
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.grids import Rois
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.synthesis.confounds import confounds_of
from fmrisynth.synthesis.implants import Implants

__all__ = ["MAPS", "SERIES", "Companions", "evoked_by_model"]

MAPS, SERIES = "maps", "timeseries"
_RESPONSES = (
    "Response of the synthetic participant to the trial type, per unit of a regressor with the "
    "canonical haemodynamic response. It was given to the run by the model, not estimated from it."
)
_TRUTH = (
    "Effect that was added to the synthetic run: the truth, per unit of the canonical response."
)


@dataclass(frozen=True)
class Companions:
    """Say what is added to synthetic runs, and what is written beside them.

    Attributes
    ----------
    implants : Implants or None
        Effects to add.
    maps : bool
        Whether to write the response of each trial type.
    atlas : Atlas or None
        Parcels whose mean series are written.
    """

    implants: Implants | None = None
    maps: bool = False
    atlas: Atlas | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What a sidecar says of them, so that runs without them are written anew."""
        content: dict[str, Any] = {"Confounds": True}
        if self.implants is not None:
            content["Implant"] = self.implants.digest
        beside = [name for name, on in ((MAPS, self.maps), (SERIES, self.atlas is not None)) if on]
        return content | ({"Also": beside} if beside else {})

    def write(
        self,
        out: Path,
        run: Run,
        data: np.ndarray,
        mask: np.ndarray,
        responses: Mapping[str, np.ndarray],
        motion: np.ndarray,
        *,
        seed: int,
        provenance: Mapping[str, Any],
        sample: int,
        n_samples: int,
        sources: Mapping[str, Path],
    ) -> None:
        """Add the effects to a run, and write it with what stands beside it.

        Parameters
        ----------
        out : Path
            Root of the output dataset.
        run : Run
            The real run that is imitated.
        data : ndarray of shape (X, Y, Z, T)
            Synthetic volumes; changed in place.
        mask : ndarray of shape (X, Y, Z), bool
            Brain voxels.
        responses : mapping of str to ndarray of shape (X, Y, Z)
            Response of each trial type, where they are to be written.
        motion : ndarray of shape (T, 6)
            Head motion for the confounds.
        seed : int
            The user's seed.
        provenance, sample, n_samples, sources
            As in `write_synthetic_run`.

        Raises
        ------
        DataError
            The events of the run cannot be used.
        OutputError, InputOutputError
            Writing fails.
        """
        if self.implants is not None:
            events = read_events(run.events, duration=run.duration)
            truth = self.implants.add(data, mask, run, events, seed)
            write_effect_maps(
                out, run, truth, _TRUTH, desc="truth", sample=sample, n_samples=n_samples
            )
        if self.maps:
            write_effect_maps(out, run, responses, _RESPONSES, sample=sample, n_samples=n_samples)
        if self.atlas is not None:
            self._write_series(out, run, data, mask, sample, n_samples)
        write_synthetic_run(
            out,
            run,
            data,
            mask,
            provenance=provenance,
            sources=sources,
            confounds=confounds_of(run, data, mask, motion, own=provenance[CARRIER_KEY] == "own"),
            sample=sample,
            n_samples=n_samples,
        )

    def _write_series(
        self, out: Path, run: Run, data: np.ndarray, mask: np.ndarray, sample: int, n_samples: int
    ) -> None:
        """Average percent signal change over the parcels of the atlas."""
        assert self.atlas is not None
        inside = mask & (data.mean(axis=3) > 0)
        series = data[inside]
        change = 100 * (series / series.mean(axis=1, keepdims=True) - 1)
        labels, means = Rois.of(self.atlas).series(change, inside, run.affine)
        names = [self.atlas.labels.get(int(label), str(label)) for label in labels]
        write_parcel_series(
            out, run, means, names, self.atlas.name, sample=sample, n_samples=n_samples
        )


def evoked_by_model(
    events: pd.DataFrame, task: str, vocabulary: Vocabulary, implants: Implants | None
) -> pd.DataFrame:
    """Leave out events that evoke implanted effects alone, since the model has not learned them."""
    if implants is None:
        return events
    names = events["trial_type"].astype(str)
    implanted = [
        implants.concern(task, name) and (task, name) not in vocabulary.trial_types
        for name in names
    ]
    return events[~np.array(implanted, dtype=bool)]
