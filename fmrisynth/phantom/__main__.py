"""Write a phantom cohort from the command line: ``python -m fmrisynth.phantom OUT``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from fmrisynth.errors import FmrisynthError
from fmrisynth.phantom import PhantomConfig, simulate_cohort
from fmrisynth.phantom.schedules import PROTOCOLS

_DEFAULT = PhantomConfig()


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
    seed: int,
    nprocs: int,
    quiet: bool,
) -> None:
    """Write a simulated task-fMRI cohort with a known truth to the new folder OUT.

    OUT becomes a raw BIDS dataset; OUT/derivatives holds the same runs with brain masks under
    the names of fMRIPrep, and the true activation maps.
    """
    try:
        config = PhantomConfig(
            n_participants, n_volumes, t_r, voxel_size, tsnr, effect_size, tasks, seed
        )
        simulate_cohort(out, config, nprocs=nprocs, progress=not quiet)
    except FmrisynthError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(f"Wrote {n_participants} participants to {out}")


if __name__ == "__main__":
    main()
