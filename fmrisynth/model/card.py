"""README.md of a model directory: what the model was trained on and what it is for."""

from __future__ import annotations

from collections.abc import Mapping

from fmrisynth import __version__
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.preprocess.splits import Split

__all__ = ["model_card"]


def model_card(
    preset: str,
    split: Split,
    vocabulary: Vocabulary,
    space: str | None,
    shape: tuple[int, int, int],
    parameters: Mapping[str, int],
) -> str:
    """Write the card of a model; `parameters` counts those of each of its parts."""
    held_out = ", ".join(split.held_out) or (
        "none, so nothing it makes can be checked against unseen people"
    )
    trial_types = "\n".join(f"- {task}: {name}" for task, name in vocabulary.trial_types)
    return f"""# An fmrisynth model

Generates synthetic task fMRI. What it writes is not measured data.

- written by fmrisynth {__version__}, preset `{preset}`
- learned from {len(split.training)} participants; {len(split.held_out)} were held out
  and never seen: {held_out}
- autoencoder {parameters["autoencoder"]:,} parameters, diffusion {parameters["denoiser"]:,}
- space {space or "as the input"}, grid {" × ".join(map(str, shape))}

## Conditions it knows

{trial_types}

## Limits

It can only be trusted for what the group report of its output shows. The evoked-response pathway
is close to a low-rank general linear model learned inside the network. Weights trained on people's
data can reveal something of them: share the model only where the data may be shared.
"""
