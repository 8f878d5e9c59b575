"""Draw the noise of training windows as synthesis draws that of runs: their participants' own.

A network that starts from the group's noise learns to turn it into that of the participant at
hand. Synthetic runs start from noise inferred from the participant's other runs, where this
would be done twice.

Legend: N frames of a run, T frames of a window, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.runtime.progress import track
from fmrisynth.training.prepare import sample_runs
from fmrisynth.training.stored_noise import NoiseStore, StoredNoise

__all__ = ["WindowNoise"]

OWN_RUNS = 256  # whose participants' noise is inferred, at most: a few megabytes on disk
OTHER_RUNS = 6  # of a participant that a run's noise is inferred from, at most


class WindowNoise:
    """Hold the noise model of every run: of its participant, or of the group.

    Parameters
    ----------
    models : sequence of NoiseModel or StoredNoise
        One per run, on the CPU, where windows are drawn.
    participants : sequence of str
        Participant label of each run.
    group : NoiseModel
        What they were inferred with, whose modes they share.
    """

    def __init__(
        self,
        models: Sequence[NoiseModel | StoredNoise],
        participants: Sequence[str],
        group: NoiseModel,
    ) -> None:
        self.models, self.participants, self.group = models, participants, group

    @classmethod
    def infer(
        cls,
        group: NoiseModel,
        noise_of: Callable[[int], Tensor],
        participants: Sequence[str],
        removed: np.ndarray,
        seed: int,
        folder: Path,
    ) -> WindowNoise:
        """Infer the noise of each run from its participant's other runs, as synthesis does.

        Runs beyond `OWN_RUNS`, and those of participants with one run, have the group's; so have
        all where participants are not seen to differ, and no run is read.

        Parameters
        ----------
        group : NoiseModel
            Says how participants differ.
        noise_of : callable
            Returns the latents of a run by its index without response and level,
            (N, C, X, Y, Z), as `NoiseModel.fit` takes them.
        participants : sequence of str
            Participant label of each run.
        removed : ndarray of shape (N, K)
            Orthonormal: mean and drift, which runs are without.
        seed : int
            Seed of the choice of runs.
        folder : pathlib.Path
            Gets a file of what was inferred, as long as it is in use.
        """
        models: list[NoiseModel | StoredNoise] = [group] * len(participants)
        if not group.individual:
            return cls(models, participants, group)
        chosen = set(sample_runs(len(participants), seed, OWN_RUNS))
        store = NoiseStore(group, folder, len(chosen))
        for label in track(sorted(set(participants)), desc="Own noise", unit="participant"):
            mine = [i for i, p in enumerate(participants) if p == label]
            wanted = [i for i in mine if i in chosen]
            if len(mine) < 2 or not wanted:
                continue
            # those that the wanted runs are inferred from
            known = {i: group.statistics(noise_of(i)) for i in mine[: OTHER_RUNS + 1]}
            for index in wanted:
                others = [s for i, s in known.items() if i != index and s is not None]
                own = group.infer(others[:OTHER_RUNS], removed)
                models[index] = own if own is group else store.add(own)
        return cls(models, participants, group)

    def of(self, participants: Sequence[str]) -> WindowNoise:
        """Return the noise of some participants' runs, in their order."""
        chosen = [i for i, label in enumerate(self.participants) if label in participants]
        return WindowNoise(
            [self.models[i] for i in chosen], [self.participants[i] for i in chosen], self.group
        )

    def mode_sd(self, run: int) -> Tensor:
        """Return the standard deviation of a run's noise along each mode, (1, K)."""
        return self.models[run].mode_sd[None]

    def draw(self, run: int, length: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of a window of a run.

        Parameters
        ----------
        run : int
            Index of the run.
        length : int
            Frames T.
        generator : torch.Generator
            On the CPU.

        Returns
        -------
        Tensor of shape (T, C, X, Y, Z)
            float32.
        """
        # of a run without noise of its own, that of a synthetic participant
        participant = int(torch.randint(2**62, (), generator=generator))
        with torch.autocast("cpu", enabled=False):  # spectra need all of float32
            return self.models[run].sample_window(length, generator, participant)
