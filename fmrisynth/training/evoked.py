"""Fit the evoked-response pathway by regression: its start, and its individual differences.

Legend: N frames of a run, C latent channels, P latent voxels of the brain, V trial types,
J maps, Q components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fmrisynth.model.denoiser.conditioning import RunCondition
from fmrisynth.model.denoiser.denoiser import RIDGE, Denoiser
from fmrisynth.model.individual_differences import individual_components, split_halves
from fmrisynth.training.windows import Windows

__all__ = ["fit_individual_responses", "start_evoked"]


def start_evoked(denoiser: Denoiser, windows: Windows) -> None:
    """Start the evoked-response pathway at the regression of the latents on the designs.

    Does nothing where there is no pathway, or where it is to start at zero.
    """
    if denoiser.evoked is None or denoiser.config.evoked.start != "regression":
        return
    mask = windows.latent_space.mask
    moments: Tensor | float = 0.0
    products: Tensor | float = 0.0
    for latents, condition in _every_run(windows, "Mean responses"):
        raw = torch.from_numpy(np.asarray(latents, np.float32))
        z = windows.latent_space.standardise(raw)[..., mask].flatten(1).double()  # N C·P
        x = torch.from_numpy(condition.design.evoked).flatten(1).double()  # N V·2
        moments, products = moments + x.T @ x, products + x.T @ z
    assert isinstance(moments, Tensor), "at least one run is needed"
    assert isinstance(products, Tensor)
    denoiser.evoked.start(moments, products, mask)


@torch.no_grad()
def fit_individual_responses(
    denoiser: Denoiser, windows: Windows, participants: Sequence[str]
) -> None:
    """Estimate between-participant differences of the evoked response.

    The residual of each run's latents after the mean response, within the pathway's
    maps, is regressed on the run's design, separately for each participant and for each
    half of the participant's runs of a task (or of the only run).

    Parameters
    ----------
    denoiser : Denoiser
        Trained; the differences of its pathway are set. Without a pathway, or without
        individual components, nothing is done.
    windows : Windows
        The training runs.
    participants : sequence of str
        Participant label of each run.
    """
    evoked = denoiser.evoked
    if evoked is None or not len(evoked.differences):
        return
    mask = windows.latent_space.mask
    maps = (evoked.maps[..., mask].flatten(1) / len(evoked.maps) ** 0.5).double()  # J C·P
    onto_maps, mean = torch.linalg.pinv(maps), evoked.coefficients.double()
    # participant → task → (moments | products) of either half of each run, (2, V, V + J)
    runs: dict[str, dict[str, list[Tensor]]] = {}
    every = zip(participants, _every_run(windows, "Individual responses"), strict=True)
    for participant, (latents, condition) in every:
        raw = torch.from_numpy(np.asarray(latents, np.float32))
        z = windows.latent_space.standardise(raw)[..., mask].flatten(1).double()  # N C·P
        x = torch.from_numpy(condition.design.evoked).double()  # N V 2
        courses = z @ onto_maps - torch.einsum("nvd,vdj->nj", x, mean)
        parts = [
            part.T @ torch.cat([part, rest], dim=1)
            for part, rest in zip(x[..., 0].chunk(2), courses.chunk(2), strict=True)
        ]
        tasks = runs.setdefault(participant, {})
        tasks.setdefault(condition.task, []).append(torch.stack(parts))
    pairs = [_coefficients_in_halves(list(tasks.values())) for tasks in runs.values()]
    first, second = torch.stack(pairs).unbind(1)  # participants V J
    group = torch.arange(first.shape[2]).expand(first.shape[1:])
    evoked.differences.copy_(individual_components(first, second, group, len(evoked.differences)))


def _every_run(windows: Windows, title: str) -> Iterator[tuple[np.ndarray, RunCondition]]:
    """Iterate over latents and condition of each run behind a progress bar."""
    runs = zip(windows.latents, windows.conditions, strict=True)
    yield from tqdm(runs, desc=title, total=len(windows.latents), unit="run")


def _coefficients_in_halves(tasks: Sequence[Sequence[Tensor]]) -> Tensor:
    """Estimate one participant's coefficients from either half of the data, by ridge regression.

    Parameters
    ----------
    tasks : sequence of sequence of Tensor of shape (2, V, V + J)
        Moments beside products of each task and each of its runs, in the first and
        the second half of the run.

    Returns
    -------
    Tensor of shape (2, V, J)
        Coefficients in the first and the second half.
    """
    coefficients = []
    for which in (0, 1):
        total = torch.zeros_like(tasks[0][0][0])
        for runs in tasks:
            parts = [run.sum(0) for run in runs] if len(runs) > 1 else list(runs[0])
            total = total + torch.stack(list(split_halves(parts)[which])).sum(0)
        moments, products = total[:, : len(total)], total[:, len(total) :]
        ridge = RIDGE * moments.diagonal().mean().clamp(min=1e-12)
        coefficients.append(
            torch.linalg.solve(moments + ridge * torch.eye(len(total)).to(total), products)
        )
    return torch.stack(coefficients)
