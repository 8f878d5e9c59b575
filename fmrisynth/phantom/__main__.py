"""Write a phantom cohort from the command line: ``python -m fmrisynth.phantom OUT``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fmrisynth.errors import FmrisynthError, UsageError
from fmrisynth.phantom import ImplantConfig, PhantomConfig, implant_responses, simulate_cohort
from fmrisynth.phantom.config import REALISM
from fmrisynth.phantom.implants import OWN_RESPONSES
from fmrisynth.phantom.schedules import PROTOCOLS

_DEFAULT = PhantomConfig()
# Options that a real dataset decides.
_SIMULATED = (
    *("n_participants", "n_volumes", "t_r", "voxel_size", "tsnr", "realism", "n_runs"),
    *("site", "hrf_delay", "distortion", "intensity", "spikes"),
)


def _usable_cpus() -> int:
    """Return the processors this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--n-participants", default=_DEFAULT.n_participants, help="Number of simulated participants."
)
@click.option("--n-volumes", default=_DEFAULT.n_volumes, help="Volumes per run.")
@click.option("--t-r", default=_DEFAULT.t_r, help="Repetition time in s.")
@click.option("--voxel-size", default=_DEFAULT.voxel_size, help="Edge of the voxels in mm.")
@click.option(
    "--tsnr", default=_DEFAULT.tsnr, help="Temporal signal-to-noise ratio, median over the brain."
)
@click.option(
    "--effect-size",
    nargs=2,
    type=float,
    default=_DEFAULT.effect_size,
    metavar="LOW HIGH",
    help="Peak percent signal change of the weakest and the strongest condition.",
)
@click.option(
    "-t",
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(list(PROTOCOLS)),
    default=list(PROTOCOLS),
    help="Task to simulate; repeat it for several.",
)
@click.option(
    "--realism",
    type=click.Choice(REALISM),
    default=_DEFAULT.realism,
    help="Stationary Gaussian noise, or what real runs have beyond it: traits, region-wise "
    "haemodynamics, arousal, coupling that depends on the task, motion, breath and heart, heavy "
    "tails, and levels that differ.",
)
@click.option(
    "--n-runs", default=_DEFAULT.n_runs, help="Runs per task and phase-encoding direction."
)
@click.option(
    "--site",
    default=_DEFAULT.site,
    metavar="NAME",
    help="Name of the site, which becomes InstitutionName. Of one --seed, cohorts of 3 to 5 mm "
    "have the same participants at every site.",
)
@click.option(
    "--hrf-delay",
    default=_DEFAULT.hrf_delay,
    help="Seconds by which all haemodynamic responses are later at this site.",
)
@click.option(
    "--distortion", default=_DEFAULT.distortion, help="Factor on the susceptibility shift."
)
@click.option("--intensity", default=_DEFAULT.intensity, help="Factor on the images' units.")
@click.option(
    "--spikes",
    default=_DEFAULT.spikes,
    help="Mean number of volumes of a run in which the head jerks, with Gaussian noise.",
)
@click.option(
    "--noise-from",
    type=click.Path(path_type=Path),
    metavar="BIDS_DIR",
    help="Implant the responses into the real runs of this dataset, which may be resting state, "
    "in place of a simulation. Then --effect-size is 0.6 1.2 and --task as many as give every "
    "participant runs of 120 s, unless given.",
)
@click.option(
    "--own-responses",
    type=click.Choice(OWN_RESPONSES),
    default="remove",
    help="What becomes of the fitted responses to the events of --noise-from.",
)
@click.option("--seed", default=_DEFAULT.seed, help="Seed of the participants and their runs.")
@click.option(
    "--nprocs",
    type=int,
    default=_usable_cpus,
    show_default="all",
    help="Processes; no effect on the files.",
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def main(
    *,
    out: Path,
    n_participants: int,
    n_volumes: int,
    t_r: float,
    voxel_size: float,
    tsnr: float,
    effect_size: tuple[float, float],
    tasks: tuple[str, ...],
    realism: str,
    n_runs: int,
    site: str,
    hrf_delay: float,
    distortion: float,
    intensity: float,
    spikes: float,
    noise_from: Path | None,
    own_responses: str,
    seed: int,
    nprocs: int,
    quiet: bool,
) -> None:
    """Write a simulated task-fMRI cohort with a known truth to the new folder OUT.

    OUT becomes a raw BIDS dataset; OUT/derivatives holds the same runs with brain masks under
    the names of fMRIPrep, and the true activation maps.
    """
    try:
        if noise_from is None:
            _refuse(("own_responses",), "needs --noise-from")
            config = PhantomConfig(
                n_participants,
                n_volumes,
                t_r,
                voxel_size,
                tsnr,
                effect_size,
                tasks,
                seed,
                realism,
                n_runs,
                site,
                hrf_delay,
                distortion,
                intensity,
                spikes,
            )
            simulate_cohort(out, config, nprocs=nprocs, progress=not quiet)
        else:
            _refuse(_SIMULATED, "is decided by the dataset of --noise-from")
            given: dict[str, Any] = {"effect_size": effect_size, "tasks": tasks}
            chosen = {name: value for name, value in given.items() if _is_given(name)}
            implants = ImplantConfig(noise_from, own_responses, seed=seed, **chosen)
            implant_responses(out, implants, nprocs=nprocs, progress=not quiet)
    except FmrisynthError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(f"Wrote the cohort to {out}")


def _is_given(name: str) -> bool:
    """Tell whether an option stands on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


def _refuse(names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if _is_given(name):
            raise UsageError(f"--{name.replace('_', '-')} {reason}; leave it out.")


if __name__ == "__main__":
    main()
