"""Train a model and synthesise runs from Python, with the functions that the command line calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import write_dataset_files, write_participants
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.locations import check_output_dir
from fmrisynth.config.model import ModelConfig, SamplingConfig
from fmrisynth.config.presets import PRESETS, read_preset
from fmrisynth.errors import DataError
from fmrisynth.model.model import Model
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.runtime.files import make_folder
from fmrisynth.synthesis.runs import SynthesisPlan, role_of, write_synthetic_runs
from fmrisynth.training.learn import learn_model
from fmrisynth.training.plan import TrainingPlan

__all__ = ["synthesise", "train"]


def train(
    runs: Sequence[Run],
    config: str | ModelConfig = "demo",
    *,
    work_dir: str | Path,
    seed: int = 0,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    nprocs: int = 1,
) -> Model:
    """Train a model on runs, holding some of their participants out.

    Parameters
    ----------
    runs : sequence of Run
        Real runs, as ``find_runs(...).runs``.
    config : str or ModelConfig
        Name of a preset, or settings; ``config.held_out_share`` of the
        participants are held out (``model.info.split`` names them).
    work_dir : str or Path
        Folder of caches and training states, outside of the dataset. A training
        that was interrupted continues from there.
    seed : int
        Seed of everything random.
    max_steps : int, optional
        Largest number of steps of each of the two trainings; by default the
        settings'.
    max_seconds : float, optional
        Time for both trainings together (s); by default they end with their steps.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    precision : {"auto", "32-true", "bf16-mixed"}
        Precision of the networks.
    nprocs : int
        Processes that read runs.

    Returns
    -------
    Model
        On the CPU; `Model.save` writes it to a directory.

    Raises
    ------
    UsageError
        There is no preset of this name.
    DataError
        No run can be used.
    ModelError
        A training state in `work_dir` is damaged.
    """
    preset = read_preset(config) if isinstance(config, str) else "custom"
    settings = PRESETS[preset] if isinstance(config, str) else config
    plan = TrainingPlan(settings, preset, seed, max_steps, max_seconds, nprocs)
    fabric = make_fabric(device, precision, seed)
    return learn_model(runs, plan, make_folder(Path(work_dir)), fabric)


def synthesise(
    model: Model,
    runs: Sequence[Run],
    out: str | Path,
    *,
    source: Dataset,
    sampling: SamplingConfig | None = None,
    n_samples: int = 1,
    individuals: str | None = None,
    carrier: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> tuple[Run, ...]:
    """Write a synthetic run for each real run, as a BIDS derivative dataset.

    Runs that are finished already are kept.

    Parameters
    ----------
    model : Model
        A trained model.
    runs : sequence of Run
        Real runs; a synthetic run has the events, length, grid and mean image of
        its real one. For another design, replace ``run.events``.
    out : str or Path
        Root of the output dataset.
    source : Dataset
        The dataset of the runs, which the output's description names.
    sampling : SamplingConfig, optional
        Sampler, steps and guidance; by default the model's.
    n_samples : int
        Synthetic runs for each real one.
    individuals : {"own", "drawn", "group"}, optional
        Whose responses the runs have: their participant's own, as far as its other runs
        tell them (the default where the model can), nobody's, or everybody's.
    carrier : {"own", "drawn", "group-mean"}, optional
        Whose mean image, noise level, drift and mask the runs have: by default their
        participant's own.
    seed : int
        Seed of all noise; each run derives its own from it.
    device, precision : str
        As in `train`.

    Returns
    -------
    tuple of Run
        All finished synthetic runs of the output.

    Raises
    ------
    UsageError
        The model knows no individual differences or carriers, but they are asked for.
    DataError
        A run cannot be used; all others are written.
    OutputError, InputOutputError
        The output touches an input, or cannot be written.
    """
    known = model.info.recognise(source)
    model = replace(model, info=model.info.known_as(known))
    runs = model.info.state_sites(runs, known)
    root = check_output_dir(source.root, Path(out), source.derivatives.values())
    sources = write_dataset_files(root, source.root, source.derivatives)
    plan = SynthesisPlan(
        out=root,
        sampling=sampling or model.info.config.sampling,
        n_samples=n_samples,
        seed=seed,
        sources=sources,
        siblings=model.info.state_sites(source.runs, known),
        individuals=individuals,
        carrier=carrier,
    )
    fabric = make_fabric(device, precision, seed)
    failed = write_synthetic_runs(plan, model, runs, fabric)
    synthetic = find_synthetic_runs(root)
    roles = {run.participant: role_of(run, model.info.split) for run in synthetic}
    write_participants(root, roles)
    if failed:
        reasons = "".join(f"\n  {path}: {reason}" for path, reason in failed.items())
        raise DataError(f"{len(failed)} runs could not be used; all others are written:{reasons}")
    return synthetic
