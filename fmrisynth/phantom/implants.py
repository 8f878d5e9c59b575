r"""Implant known responses in real runs: ``fmrisynth.phantom OUT --noise-from BIDS_DIR``.

The signal of a new run is that of a stretch of a real one, :math:`y`, with known responses on
top, in percent of the voxel's mean :math:`\bar y`:

.. math::

    y'(x, t) = y(x, t) + \frac{\bar y(x)}{100} \sum_k b_k(t)\,
        \exp(-|x - \mu_k - j_{pk}|^2 / 2\sigma_k^2) \, G(x)

with the sites :math:`\mu_k` and tissue :math:`G` of the phantom (:mod:`fmrisynth.phantom`), the
participant's displacements :math:`j_{pk}`, and the course :math:`b_k` of a site, which has the
participant's amplitudes and haemodynamic responses of its own
(:mod:`~fmrisynth.phantom.regional`). Where no response reaches, the numbers of the real image
stay as they are: its noise, its levels and its anatomy are real.

The participants' traits (:mod:`~fmrisynth.phantom.traits`) are the leading principal components
of their real mean images, so that their anatomy predicts a part of their responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.images import Bold, load_bold
from fmrisynth.bids.search import find_bold_runs
from fmrisynth.errors import DataError, UsageError
from fmrisynth.phantom.anatomy import Template
from fmrisynth.phantom.assembly import complete_or_absent, run_in_order
from fmrisynth.phantom.config import check_effect_size, check_tasks
from fmrisynth.phantom.files import link, write_image, write_table
from fmrisynth.phantom.implant_texts import (
    derivative_stem,
    write_cohort_texts,
    write_cohort_truth,
    write_participant_truth,
    write_piece_sidecars,
)
from fmrisynth.phantom.regional import (
    RegionalResponse,
    bounded_profiles,
    draw_regional_response,
    regional_courses,
)
from fmrisynth.phantom.responses import activation_maps, event_amplitudes
from fmrisynth.phantom.schedules import PROTOCOLS, conditions_of, draw_events
from fmrisynth.phantom.simulation import scaled_weights
from fmrisynth.phantom.source import (
    Piece,
    SourceGrid,
    choose_tasks,
    percent_reference,
    plan_pieces,
    without_own_responses,
)
from fmrisynth.phantom.texts import DERIVATIVES
from fmrisynth.phantom.traits import N_TRAITS, draw_traits

__all__ = ["OWN_RESPONSES", "ImplantConfig", "implant_responses"]

OWN_RESPONSES = ("keep", "remove")
_KEY = 7  # tells the generators from those of a simulated cohort


@dataclass(frozen=True)
class ImplantConfig:
    """What is implanted into which runs.

    Attributes
    ----------
    noise_from : Path
        BIDS dataset whose runs are the noise, in a standard space.
    own_responses : str
        "remove" subtracts the fitted responses to the dataset's own events; "keep" does not.
    effect_size : tuple of float
        Peak percent signal change of the weakest and of the strongest condition in the
        population map; the other conditions lie between them.
    tasks : tuple of str
        Tasks to implant; empty: as many as give every participant runs of at least 120 s.
    seed : int
        Seed of the responses.

    Raises
    ------
    UsageError
        A value is impossible or a task is unknown.
    """

    noise_from: Path
    own_responses: str = "remove"
    effect_size: tuple[float, float] = (0.6, 1.2)
    tasks: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_effect_size(self.effect_size)
        if self.tasks:
            check_tasks(self.tasks)
        if self.own_responses not in OWN_RESPONSES:
            raise UsageError(
                f"own_responses is {self.own_responses!r}; expected {' or '.join(OWN_RESPONSES)}."
            )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; expected 0 or more.")


@dataclass(frozen=True, eq=False)
class Host:
    """A participant of the real dataset, and how its responses will be.

    Attributes
    ----------
    label : str
        Without ``sub-``.
    index : int
        Place among the participants.
    pieces : tuple of Piece
        Its new runs.
    traits : ndarray of shape (N_TRAITS,)
        τ.
    """

    label: str
    index: int
    pieces: tuple[Piece, ...]
    traits: np.ndarray


def implant_responses(
    out: Path | str, config: ImplantConfig, *, nprocs: int = 1, progress: bool = True
) -> Path:
    """Write real runs with known responses as raw BIDS with derivatives and truth.

    Parameters
    ----------
    out : Path or str
        Folder to create; it may exist if it is empty. It appears when the cohort is complete.
    config : ImplantConfig
        What to implant into which runs.
    nprocs : int
        Processes among which the participants are divided. The files do not depend on it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `out`; the derivatives lie in ``derivatives/fmriprep-phantom``, the truth in
        ``derivatives/truth``.

    Raises
    ------
    OutputError, InputOutputError
        `out` cannot be written.
    NoInputError, NotBIDSError, NoMatchError, DataError
        The dataset cannot be used.
    """
    out = Path(out).resolve()
    runs: dict[str, list[BoldRun]] = {}
    for run in find_bold_runs(config.noise_from):
        runs.setdefault(run.participant, []).append(run)
    tasks = config.tasks or choose_tasks(runs)
    traits = _image_traits([of_one[0] for of_one in runs.values()], config.seed)
    hosts = [
        Host(label, index, plan_pieces(runs[label], tasks, index), traits[index])
        for index, label in enumerate(runs)
    ]
    with complete_or_absent(out) as folder:
        weights = scaled_weights(conditions_of(tasks), config.effect_size)
        arguments = [(host, tasks, weights, config, folder) for host in hosts]
        records = run_in_order(_write_host, arguments, nprocs=nprocs, progress=progress)
        first = hosts[0].pieces[0].run
        grid = SourceGrid(first.shape, first.affine)
        write_cohort_texts(folder, tasks, config.effect_size, records)
        settings = {**asdict(config), "noise_from": config.noise_from.resolve().name}
        write_cohort_truth(
            folder,
            grid,
            _population_maps(grid, weights),
            conditions_of(tasks),
            records=records,
            settings={**settings, "tasks": tasks},
        )
    return out


def _population_maps(grid: SourceGrid, weights: np.ndarray) -> np.ndarray:
    """Return the population's activation maps in percent signal change, (C, X, Y, Z)."""
    position = grid.coordinates(np.ones(grid.shape, bool))
    tissues = Template.load(_edge(grid)).sample(position)
    still = np.zeros((3, 1), np.float32)
    profiles = bounded_profiles(position, tissues[0], still) * (tissues[3] > 0.5)
    return activation_maps(weights, profiles).reshape(-1, *grid.shape)


def _edge(grid: SourceGrid) -> float:
    """Return the edge in mm of a cube as large as a voxel."""
    return float(np.prod(grid.zooms) ** (1 / 3))


def _write_host(
    host: Host,
    tasks: tuple[str, ...],
    population_weights: np.ndarray,
    config: ImplantConfig,
    folder: Path,
) -> dict[str, Any]:
    """Write all runs of one participant; return what the tables say about it."""
    rng = np.random.default_rng([config.seed, _KEY, host.index])
    conditions = conditions_of(tasks)
    response = draw_regional_response(conditions, host.traits, rng)
    weights = population_weights * response.gain
    first = host.pieces[0].run
    template = Template.load(_edge(SourceGrid(first.shape, first.affine)))
    truth: np.ndarray | None = None
    loaded: tuple[BoldRun, Bold] | None = None
    for number, piece in enumerate(host.pieces):
        if loaded is None or loaded[0] is not piece.run:
            loaded = piece.run, _load(piece.run, config.own_responses)
        bold = loaded[1]
        grid = SourceGrid(piece.run.shape, piece.run.affine)
        profiles = _profiles(template, grid, bold.mask, response, piece.run)
        rng = np.random.default_rng([config.seed, _KEY, host.index, number])
        events = draw_events(piece.task, piece.n_volumes * piece.run.t_r, rng)
        rows = [i for i, (task, _) in enumerate(conditions) if task == piece.task]
        courses = regional_courses(
            events,
            event_amplitudes(events, rng),
            PROTOCOLS[piece.task].trial_types,
            weights[rows],
            response,
            piece.run.t_r * np.arange(piece.n_volumes),
        )
        _write_piece(folder, piece, bold, grid, courses, profiles)
        write_table(folder / _func(piece) / f"{piece.stem}_events.tsv", events)
        write_piece_sidecars(folder, piece, _func(piece))
        if truth is None:
            truth = np.zeros((len(conditions), *grid.shape), np.float32)
        if truth.shape[1:] != grid.shape:
            raise DataError(
                f"{piece.run.bold} has the grid {grid.shape}, another run of the participant "
                f"{truth.shape[1:]}; expected one grid. Give images of one space and resolution."
            )
        truth[:, bold.mask] = activation_maps(weights, profiles)
    assert truth is not None  # every participant has a run
    write_participant_truth(folder, host.label, grid, truth, response)
    return {
        "participant_id": f"sub-{host.label}",
        "response_latency": round(response.latency, 4),
        "response_gain": round(float(response.gain.mean()), 4),
        **{f"trait_{i + 1}": round(float(t), 4) for i, t in enumerate(host.traits)},
    }


def _func(piece: Piece) -> Path:
    """Return the folder of a run below the root of a dataset."""
    session = [f"ses-{piece.entities['ses']}"] if "ses" in piece.entities else []
    return Path(f"sub-{piece.entities['sub']}", *session, "func")


def _load(run: BoldRun, own_responses: str) -> Bold:
    bold = load_bold(run)
    if own_responses == "remove":
        bold.data[bold.mask] = without_own_responses(bold.data[bold.mask].T, run).T
    return bold


def _profiles(
    template: Template,
    grid: SourceGrid,
    mask: np.ndarray,
    response: RegionalResponse,
    run: BoldRun,
) -> np.ndarray:
    """Return the profiles of the participant's sites at the voxels of the brain, (K, V)."""
    position = grid.coordinates(mask)
    tissues = template.sample(position)
    inside = float((tissues[3] > 0.2).mean())
    if inside < 0.5:
        raise DataError(
            f"only {inside:.0%} of the brain of {run.bold} lies where the MNI brain is; at least "
            "half is expected. Give images in a standard space."
        )
    return bounded_profiles(position, tissues[0], response.displacement)


def _write_piece(
    folder: Path,
    piece: Piece,
    bold: Bold,
    grid: SourceGrid,
    courses: np.ndarray,
    profiles: np.ndarray,
) -> None:
    """Add the responses to a stretch of a run and write it, raw and derived, with its mask."""
    reached = np.flatnonzero(np.abs(courses).max(axis=0) > 0)
    active = np.flatnonzero(profiles[reached].any(axis=0))
    percent = np.einsum("tk,kv->vt", courses[:, reached], profiles[np.ix_(reached, active)])
    brain = np.stack(np.nonzero(bold.mask))[:, active]
    data = bold.data[..., piece.start : piece.stop].copy()
    scale = percent_reference(bold, piece.run)[active, None] / 100.0
    data[tuple(brain)] += (scale * percent).astype(np.float32)
    raw, derived = folder / _func(piece), folder / DERIVATIVES / _func(piece)
    for place in (raw, derived):
        place.mkdir(parents=True, exist_ok=True)
    stem = derivative_stem(piece)
    target = derived / f"{stem}_desc-preproc_bold.nii.gz"
    text = "real BOLD with implanted responses, fmrisynth"
    write_image(target, data.T, grid, description=text, t_r=piece.run.t_r)
    link(target, raw / f"{piece.stem}_bold.nii.gz")
    write_image(
        derived / f"{stem}_desc-brain_mask.nii.gz",
        bold.mask.T.astype(np.uint8),
        grid,
        description="brain mask of the real run",
    )


def _image_traits(runs: Sequence[BoldRun], seed: int) -> np.ndarray:
    """Return the traits of the participants, (N, N_TRAITS), from one run of each.

    Normal scores of the principal components of the logarithm of the mean images; drawn at
    random where the participants are too few or their grids differ.
    """
    rng = np.random.default_rng([seed, _KEY])
    same = all(
        run.shape == runs[0].shape and np.allclose(run.affine, runs[0].affine) for run in runs
    )
    if len(runs) < N_TRAITS + 2 or not same:
        return np.stack([draw_traits(rng) for _ in runs])
    means, masks = [], []
    for run in runs:
        bold = load_bold(run)
        means.append(bold.data.mean(axis=-1, dtype=np.float64))
        masks.append(bold.mask & (means[-1] > 0))
    common = np.mean(masks, axis=0) == 1.0
    if not common.any():
        return np.stack([draw_traits(rng) for _ in runs])
    logarithm = np.stack([np.log(mean[common] / np.median(mean[common])) for mean in means])
    left, _, _ = np.linalg.svd(logarithm - logarithm.mean(axis=0), full_matrices=False)
    scores = left[:, :N_TRAITS]
    scores = scores * np.sign(scores[np.abs(scores).argmax(axis=0), range(N_TRAITS)])
    # Normal scores of the ranks: no participant is an outlier, and no digit of a matrix library
    # reaches the images.
    return stats.norm.ppf((stats.rankdata(scores, axis=0) - 0.5) / len(runs))
