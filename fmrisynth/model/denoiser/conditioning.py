"""Describe a run to the denoiser: its attributes, events and anatomy as tensors.

A condition has run attributes (task, phase encoding, site, TR), the share of each frame
in which each trial type is on with its haemodynamic regressors (and a history before the
window's first frame), the regressors of the evoked-response pathway, and the
participant's anatomy.

Legend: B batch, A attributes, L frames with history, T frames of a window,
V trial types, X Y Z model grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import ModelError
from fmrisynth.preprocess.design import Design, design_of

__all__ = ["Condition", "RunCondition", "Vocabulary", "collate"]

HISTORY = 20.0  # s of events before the window's first frame, about the HRF's length
FEATURES = 3  # per trial type and frame: share of the TR, HRF, HRF derivative


@dataclass(frozen=True)
class Vocabulary:
    """Hold the names that a model knows; index 0 of every attribute is "unknown".

    Attributes
    ----------
    trial_types : tuple of (task, trial_type)
        The V conditions.
    tasks, phase_encodings, sites : tuple of str
        Values of the attributes.
    longest_history : int
        Frames of history at the shortest TR learned.
    """

    trial_types: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]
    phase_encodings: tuple[str, ...]
    sites: tuple[str, ...]
    longest_history: int

    @classmethod
    def of(cls, runs: Iterable[Run], events: Iterable[pd.DataFrame]) -> Vocabulary:
        """Collect the names in a set of runs and their events."""
        runs = list(runs)
        trial_types = sorted(
            {
                (r.task, str(t))
                for r, e in zip(runs, events, strict=True)
                for t in e["trial_type"].unique()
            }
        )
        return cls(
            tuple(trial_types),
            tuple(sorted({r.task for r in runs})),
            tuple(sorted({r.phase_encoding for r in runs} - {"unknown"})),
            tuple(sorted({r.site for r in runs} - {"unknown"})),
            max(math.ceil(HISTORY / r.t_r) for r in runs),
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Vocabulary:
        """Read a vocabulary from the lists of `to_json`."""
        return cls(
            tuple((str(task), str(name)) for task, name in content["trial_types"]),
            tuple(content["tasks"]),
            tuple(content["phase_encodings"]),
            tuple(content["sites"]),
            int(content["longest_history"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, for config.json."""
        return {
            f.name: (
                [list(v) if isinstance(v, tuple) else v for v in value]
                if isinstance(value := getattr(self, f.name), tuple)
                else value
            )
            for f in fields(self)
        }

    @property
    def attribute_sizes(self) -> tuple[int, ...]:
        """Number of values of each attribute, "unknown" included."""
        return tuple(1 + len(v) for v in (self.tasks, self.phase_encodings, self.sites))

    def attributes(self, run: Run) -> list[int]:
        """Return the indices of a run's attributes; 0 for what the model has not learned."""
        known = (
            (self.tasks, run.task),
            (self.phase_encodings, run.phase_encoding),
            (self.sites, run.site),
        )
        return [values.index(v) + 1 if v in values else 0 for values, v in known]

    def known_events(self, task: str, events: pd.DataFrame, source: str) -> pd.DataFrame:
        """Return the events of trial types that the model has learned; others are baseline.

        Raises
        ------
        ModelError
            The model has not learned the task, or none of the trial types.
        """
        names = [name for own, name in self.trial_types if own == task]
        known = events[events["trial_type"].astype(str).isin(names)]
        if task not in self.tasks or (len(events) and known.empty):
            self.check(task, events, source)
        return known

    def check(self, task: str, events: pd.DataFrame, source: str) -> None:
        """Refuse trial types that the model has not learned.

        Raises
        ------
        ModelError
            Lists those it has for the task, or the tasks it has.
        """
        names = {name for t, name in self.trial_types if t == task}
        if task not in self.tasks:
            raise ModelError(
                f"{source}: the model has not learned task {task!r}; it has "
                f"{', '.join(self.tasks)}. "
                "Select those with --task-id, or train a model with this task."
            )
        unknown = sorted(set(events["trial_type"].astype(str)) - names)
        if unknown:
            raise ModelError(
                f"{source}: the model has not learned trial types {', '.join(map(repr, unknown))} "
                f"of task {task}; it has {', '.join(sorted(names)) or 'none'}."
            )

    def design(self, run: Run, events: pd.DataFrame, n_volumes: int, high_pass: float) -> Design:
        """Model the events of a run by the trial types of its task; others have no events.

        Parameters
        ----------
        run : Run
            Task and timing.
        events : pandas.DataFrame
            As `read_events` returns them.
        n_volumes : int
            Frames; may differ from the run's.
        high_pass : float
            Hz.
        """
        return design_of(
            events,
            [name if task == run.task else "" for task, name in self.trial_types],
            n_volumes,
            run.t_r,
            start_time=run.start_time,
            high_pass=high_pass,
        )


@dataclass  # not frozen: Fabric moves and casts what enters a module field by field
class Condition:
    """Hold the conditions of a batch of windows.

    Attributes
    ----------
    attributes : Tensor of shape (B, A), int64
        Index of each attribute's value, 0 for unknown.
    t_r : Tensor of shape (B,)
        Repetition time, s.
    frames : Tensor of shape (B, L, V·3)
        Share of the TR, HRF, HRF derivative of each trial type.
    times : Tensor of shape (B, L)
        Time after the window's first frame, s; negative in the history.
    valid : Tensor of shape (B, L), bool
        False for frames before the run's first.
    evoked : Tensor of shape (B, T, V, 2)
        Regressors without mean and drift.
    anatomy : Tensor of shape (B, 2, X, Y, Z)
        Mean image and noise level.
    condition_mask, anatomy_mask : Tensor of shape (B,)
        1 where the condition, and the anatomy, are given; 0 where they are withheld.
    mode_sd : Tensor of shape (B, K)
        Standard deviation of the diffusion's noise along each of its modes; K is 0 where nothing
        asks for it.
    """

    attributes: Tensor
    t_r: Tensor
    frames: Tensor
    times: Tensor
    valid: Tensor
    evoked: Tensor
    anatomy: Tensor
    condition_mask: Tensor
    anatomy_mask: Tensor
    mode_sd: Tensor

    def to(self, device: torch.device) -> Condition:
        """Return a copy on another device."""
        return Condition(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def unconditional(self) -> Condition:
        """Return the same batch with events and attributes withheld; anatomy stays."""
        return replace(self, condition_mask=torch.zeros_like(self.condition_mask))

    def __getitem__(self, index: slice) -> Condition:
        """Return a part of the batch."""
        return Condition(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def collate(conditions: Sequence[Condition]) -> Condition:
    """Join conditions along the batch."""
    return Condition(
        **{f.name: torch.cat([getattr(c, f.name) for c in conditions]) for f in fields(Condition)}
    )


class RunCondition:
    """Describe one run, and cut the conditions of its windows.

    Parameters
    ----------
    run : Run
        Attributes and timing.
    events : pandas.DataFrame
        Events, as `read_events` returns them.
    anatomy : array-like of shape (2, X, Y, Z)
        The carrier's mean, relative to its median, and noise level (%). An array is made of it
        for each window.
    vocabulary : Vocabulary
        The model's names.
    n_volumes : int
        Frames; may differ from the run's, as for a design without a scan.
    high_pass : float
        Hz.

    Attributes
    ----------
    attributes : Tensor of shape (1, A), int64
        Index of each attribute's value, 0 for unknown.
    """

    def __init__(
        self,
        run: Run,
        events: pd.DataFrame,
        anatomy: ArrayLike,
        vocabulary: Vocabulary,
        n_volumes: int,
        high_pass: float,
    ) -> None:
        self.design = vocabulary.design(run, events, n_volumes, high_pass)
        self.onsets = np.clip(
            np.floor((events["onset"].to_numpy(float) - run.start_time) / run.t_r), 0, n_volumes - 1
        ).astype(int)
        self.task = run.task
        self.t_r = run.t_r
        self._history = math.ceil(HISTORY / run.t_r)
        self._longest = vocabulary.longest_history
        self.attributes = torch.tensor([vocabulary.attributes(run)])
        self._maps = anatomy
        features = np.concatenate([self.design.share[..., None], self.design.hrf], axis=2)
        self._features = features.reshape(n_volumes, -1)
        self.n_volumes = n_volumes

    @property
    def _anatomy(self) -> Tensor:
        """Mean image and noise level, (1, 2, X, Y, Z)."""
        return torch.from_numpy(np.asarray(self._maps, np.float32))[None]

    @property
    def mean_image(self) -> Tensor:
        """The carrier's mean, relative to its median, (X, Y, Z)."""
        return self._anatomy[0, 0]

    def window(self, start: int, length: int) -> Condition:
        """Cut the condition of one window, as a batch of one."""
        first = start - self._longest
        index = np.arange(first, start + length)
        valid = (index >= start - self._history) & (index >= 0) & (index < self.n_volumes)
        frames = np.where(valid[:, None], self._features[np.clip(index, 0, self.n_volumes - 1)], 0)
        evoked = np.zeros((length, *self.design.evoked.shape[1:]), np.float32)
        part = self.design.evoked[start : start + length]  # shorter where the run ends
        evoked[: len(part)] = part
        return Condition(
            attributes=self.attributes,
            t_r=torch.tensor([self.t_r]),
            frames=torch.from_numpy(frames)[None],
            times=torch.from_numpy((index - start) * np.float32(self.t_r))[None].float(),
            valid=torch.from_numpy(valid)[None],
            evoked=torch.from_numpy(evoked)[None],
            anatomy=self._anatomy,
            condition_mask=torch.ones(1),
            anatomy_mask=torch.ones(1),
            mode_sd=torch.zeros(1, 0),
        )
