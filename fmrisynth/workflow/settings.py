"""What the command line asked for, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fmrisynth.bids.dataset_files import Layout
from fmrisynth.bids.selection import Selection
from fmrisynth.choices import GROUP_GLM
from fmrisynth.config.codec import override
from fmrisynth.config.model import ModelConfig, SamplingConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.errors import UsageError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What the command line asked for; its help says what each means."""

    bids_dir: Path
    output_dir: Path
    selection: Selection = field(default_factory=Selection)
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    database_dir: Path | None = None
    skip_validation: bool = False
    model_dir: Path | None = None
    work_dir: Path | None = None
    preset: str = "demo"
    assignments: Mapping[str, str] = field(default_factory=dict)
    train_only: bool = False
    max_steps: int | None = None
    max_seconds: float | None = None
    n_samples: int = 1
    events: Mapping[str, Path] = field(default_factory=dict)
    guidance: float | None = None
    sampler: str | None = None
    sampling_steps: int | None = None
    layout: Layout = "derivatives"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    nprocs: int = 1
    memory: float | None = None
    skip_bad_runs: bool = False
    baselines: tuple[str, ...] = (GROUP_GLM,)
    compare: Mapping[str, Path] = field(default_factory=dict)
    contrasts: Path | None = None
    reports_only: bool = False

    @property
    def model_path(self) -> Path:
        """The model asked for, or the one that this output holds."""
        return self.model_dir or self.output_dir / "model"

    @property
    def work_path(self) -> Path:
        """Caches and training states."""
        return self.work_dir or self.output_dir / "work"

    @property
    def evaluation_path(self) -> Path:
        """What the group level keeps for ``--reports-only``."""
        return self.output_dir / "group" / "evaluation"

    @property
    def simulating(self) -> bool:
        """Whether the group level writes baselines."""
        return bool(self.baselines) and not self.reports_only

    def config(self) -> ModelConfig:
        """Return the preset with its overrides."""
        if self.preset not in PRESETS:
            raise UsageError(f"--preset {self.preset}: expected one of {', '.join(PRESETS)}.")
        return override(PRESETS[self.preset], self.assignments)

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """Return the model's own way of drawing, with what was asked for instead."""
        return replace(
            default,
            sampler=self.sampler or default.sampler,
            steps=self.sampling_steps or default.steps,
            guidance=default.guidance if self.guidance is None else self.guidance,
        )
