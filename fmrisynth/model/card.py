"""Write the card of a model: README.md, which says how it was trained and what it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmrisynth import __version__
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.model.skill import Skill
from fmrisynth.preprocess.splits import Split

__all__ = ["model_card"]


def model_card(
    provenance: Mapping[str, Any],
    split: Split,
    vocabulary: Vocabulary,
    space: str | None,
    shape: tuple[int, int, int],
    parameters: Mapping[str, int],
    skill: Sequence[Skill],
    datasets: Sequence[str] = (),
) -> str:
    """Write the card of a model.

    Parameters
    ----------
    provenance : mapping
        How it was trained, as in `ModelInfo`; entries that are missing are left out.
    split : Split
        Training and held-out participants.
    vocabulary : Vocabulary
        Names of the conditions.
    space : str or None
        Space of the training runs.
    shape : tuple of int
        Shape of the model grid.
    parameters : mapping of str to int
        Number of parameters of each part.
    skill : sequence of Skill
        Gains of the parts on held-out participants; may be empty.
    datasets : sequence of str
        Names of the datasets that were learned from; may be empty.
    """
    held_out = ", ".join(split.held_out) or (
        "none, so nothing it generates can be checked against unseen participants"
    )
    trial_types = "\n".join(f"- {task}: {name}" for task, name in vocabulary.trial_types)
    return f"""# An fmrisynth model

Generates synthetic task fMRI. What it writes is not measured data.

- written by fmrisynth {__version__}, preset `{provenance.get("preset", "custom")}`
- learned from {len(split.training)} participants; {len(split.held_out)} were held out
  and never seen: {held_out}
- autoencoder {parameters["autoencoder"]:,} parameters, diffusion {parameters["denoiser"]:,}
{_of(datasets)}- space {space or "as the input"}, grid {" × ".join(map(str, shape))}
{_training(provenance)}{_skill(skill)}
## Conditions it knows

{trial_types}

## Limits

It can only be trusted for what the group report of its output shows. The response model is
a low-rank general linear model, which a small network adapts to a participant's anatomy. Weights
trained on participants' data can reveal something of them: share the model only where the data
may be shared.
"""


def _of(datasets: Sequence[str]) -> str:
    """Write the line about the datasets; none where nobody said which."""
    return f"- learned from: {'; '.join(datasets)}\n" if datasets else ""


def _training(provenance: Mapping[str, Any]) -> str:
    """Write the section about the training: steps and seconds of each stage, and versions."""
    seconds, steps = provenance.get("seconds", {}), provenance.get("steps", {})
    rows = [
        f"| {stage.replace('_', ' ')} | {steps.get(stage, '')} | {spent:.1f} |"
        for stage, spent in seconds.items()
    ]
    table = ["| stage | steps | seconds |", "|---|---|---|", *rows, ""] if rows else []
    versions = ", ".join(f"{name} {v}" for name, v in provenance.get("versions", {}).items())
    lines = [*table, *([f"Versions: {versions}.", ""] if versions else [])]
    return "\n".join(["", "## Training", "", *lines]) if lines else ""


def _skill(skill: Sequence[Skill]) -> str:
    """Write the section about what each part adds to the prediction of unseen participants."""
    if not skill:
        return ""
    rows = [
        f"| {row.theta:.2f} | {row.part} | {row.gain:+.4f} "
        f"| {row.ci_low:+.4f} to {row.ci_high:+.4f} |"
        for row in skill
    ]
    return "\n".join(
        [
            "",
            "## Skill on held-out participants",
            "",
            "Loss of v that a part takes away, of about 1 (the backbone: on top of the others).",
            "",
            "| angle | part | gain | 95 % |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
