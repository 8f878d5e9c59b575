"""Plan a training: its settings, seed and budget, and the folder of each of its two stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fmrisynth.config.codec import to_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.autoencoder.taming import read_initial_state
from fmrisynth.model.info import FORMAT
from fmrisynth.model.weights import hash_files, hash_json
from fmrisynth.training.loop import Budget

__all__ = ["TrainingFolders", "TrainingPlan"]

AUTOENCODER_SHARE = 0.35  # of a wall-clock budget
DIFFUSION_SHARE = 0.6  # the rest is left to encoding and noise


class TrainingFolders(NamedTuple):
    """Hold the folders of the training states, named by a hash of all that decides the result.

    Attributes
    ----------
    autoencoder, diffusion : pathlib.Path
        Models that differ in the diffusion's settings alone share the autoencoder's.
    """

    autoencoder: Path
    diffusion: Path


@dataclass(frozen=True)
class TrainingPlan:
    """Describe how a model is to be trained.

    Attributes
    ----------
    config : ModelConfig
        Settings.
    preset : str
        Name of the settings, for the record.
    seed : int
        Seed of everything random.
    max_steps : int or None
        Largest number of steps of each of the two trainings.
    max_seconds : float or None
        Wall-clock budget of both together, s.
    nprocs : int
        Processes that read runs.
    """

    config: ModelConfig
    preset: str
    seed: int
    max_steps: int | None
    max_seconds: float | None
    nprocs: int

    def read_initial_state(self) -> dict[str, Tensor] | None:
        """Read the weights that the autoencoder starts from; None for random ones.

        Raises
        ------
        ModelError
            The checkpoint cannot be read, or does not fit the settings.
        """
        checkpoint = self.config.autoencoder_training.init
        if checkpoint is None:
            return None
        try:
            return read_initial_state(Path(checkpoint), self.config.autoencoder)
        except ModelError as error:
            raise ModelError(f"autoencoder_training.init: {error}") from None

    @property
    def autoencoder_budget(self) -> Budget:
        """Budget of the autoencoder's training."""
        return self._budget(self.config.autoencoder_steps, AUTOENCODER_SHARE)

    @property
    def diffusion_budget(self) -> Budget:
        """Budget of the denoiser's training."""
        return self._budget(self.config.diffusion_steps, DIFFUSION_SHARE)

    def _budget(self, steps: int, share: float) -> Budget:
        """Cap the settings' steps, and take a share of the time."""
        if self.max_steps is not None:
            steps = min(steps, self.max_steps) if self.max_seconds else self.max_steps
        seconds = None if self.max_seconds is None else self.max_seconds * share
        return Budget(steps, seconds)

    def folders(self, work_dir: Path, source: Any) -> TrainingFolders:
        """Name the folders of the two trainings.

        Parameters
        ----------
        work_dir : pathlib.Path
            Where they lie.
        source : JSON value
            All that the training data depend on.
        """
        settings = to_json(self.config)
        settings.pop("sampling")
        checkpoint = self.config.autoencoder_training.init
        if checkpoint is not None:  # its content counts, not its place
            settings["autoencoder_training"]["init"] = hash_files([Path(checkpoint)])
        names = ("preprocess", "autoencoder", "autoencoder_training", "autoencoder_steps")
        autoencoder = self._key({name: settings[name] for name in names}, source)
        diffusion = self._key(settings, autoencoder)
        return TrainingFolders(
            work_dir / f"autoencoder-{autoencoder}", work_dir / f"diffusion-{diffusion}"
        )

    def _key(self, settings: dict[str, Any], source: Any) -> str:
        """Hash all that decides a training's result."""
        content = [FORMAT, settings, self.seed, self.max_steps, self.max_seconds, source]
        return hash_json(content)[:16]
