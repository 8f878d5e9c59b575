"""The command line, after the BIDS-App convention: options in, exit code out.

What does the work is imported once it is known that there is work: help, the
version and wrong input are answered without loading the networks.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fmrisynth import __version__
from fmrisynth.bids.locations import check_output_dir
from fmrisynth.bids.selection import Selection, read_filter_file
from fmrisynth.bids.sources import require_dataset
from fmrisynth.cli.log import has_started, start_log
from fmrisynth.cli.options import app_options
from fmrisynth.cli.parsing import BidsAppCommand
from fmrisynth.cli.signals import ending_on_sigterm
from fmrisynth.errors import FmrisynthError, InputOutputError, UsageError

if TYPE_CHECKING:
    from fmrisynth.workflow.settings import Settings

__all__ = ["command", "main"]

UNKNOWN_LEVEL = 17  # exit code of the BIDS execution specification
USAGE = 64
LEVELS = ("participant", "group")

log = logging.getLogger("fmrisynth")


def _level(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuse an unknown analysis level with the exit code that the specification has for it."""
    if value not in LEVELS:
        click.echo(
            f"fmrisynth: unknown analysis level {value!r}; expected {' or '.join(LEVELS)}.",
            err=True,
        )
        sys.exit(UNKNOWN_LEVEL)
    return value


@click.command(cls=BidsAppCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bids_dir", type=click.Path(path_type=Path))
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("analysis_level", callback=_level)
@app_options
@click.version_option(__version__, message="%(prog)s %(version)s")
def command(bids_dir: Path, output_dir: Path, analysis_level: str, **options: Any) -> None:
    """Learn task fMRI from a BIDS dataset and write synthetic runs as BIDS derivatives.

    ANALYSIS_LEVEL participant learns (or loads) a model and writes synthetic runs;
    group compares them with held-out real runs and writes a report.
    """
    if analysis_level != "group" and options["reports_only"]:
        raise UsageError("--reports-only belongs to the group level, which writes the reports.")
    filters = options["bids_filter_file"]
    selection = Selection(
        participants=options["participant_label"],
        sessions=options["session_id"],
        tasks=options["task_id"],
        space=options["space"],
        filters=read_filter_file(filters) if filters else {},
    )
    require_dataset(bids_dir)  # before anything is created
    check_output_dir(bids_dir, output_dir, options["derivatives"].values())
    settings = _settings(bids_dir, output_dir, selection, options)
    if options["dry_run"]:
        from fmrisynth.cli.dry_run import preview

        click.echo(preview(settings, analysis_level))
        return
    start_log(output_dir, verbose=options["verbose"] > 0)
    log.info("fmrisynth %s: %s", __version__, " ".join(sys.argv[1:]))
    started = time.monotonic()
    from fmrisynth.workflow.group import run_group
    from fmrisynth.workflow.participant import run_participant

    run = run_participant if analysis_level == "participant" else run_group
    run(settings)
    log.info("%s level done in %.0f s", analysis_level, time.monotonic() - started)


def _settings(
    bids_dir: Path, output_dir: Path, selection: Selection, options: Mapping[str, Any]
) -> Settings:
    """Resolve the options."""
    from fmrisynth.runtime.resources import available_cpus, limit_threads
    from fmrisynth.workflow.settings import Settings

    nprocs = options["nprocs"] or available_cpus()
    limit_threads(options["omp_nthreads"] or nprocs, options["omp_nthreads"] or 1)
    return Settings(
        bids_dir=bids_dir,
        output_dir=output_dir,
        selection=selection,
        derivatives=options["derivatives"],
        database_dir=options["bids_database_dir"],
        skip_validation=options["skip_bids_validation"],
        model_dir=options["model_dir"],
        work_dir=options["work_dir"],
        preset=options["preset"],
        assignments=options["assignments"],
        train_only=options["train_only"],
        max_steps=options["max_steps"],
        max_seconds=options["max_time"],
        n_samples=options["n_samples"],
        events=options["events"],
        guidance=options["guidance"],
        sampler=options["sampler"],
        sampling_steps=options["sampling_steps"],
        layout=options["output_layout"],
        seed=options["random_seed"],
        device=options["device"],
        precision=options["precision"],
        nprocs=nprocs,
        memory=options["mem"],
        skip_bad_runs=options["skip_bad_runs"],
        baselines=options["baselines"],
        compare=options["compare"],
        contrasts=options["contrasts"],
        reports_only=options["reports_only"],
    )


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with a code of the BIDS execution specification."""
    _prepare_surroundings()
    try:
        with ending_on_sigterm():
            command.main(args=None if args is None else list(args), standalone_mode=False)
    except FmrisynthError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            _fail(
                f"{error}; free some space and run the same command again.",
                InputOutputError.exit_code,
            )
        raise
    sys.exit(0)


def _prepare_surroundings() -> None:
    """Set what libraries look for in the environment when they are loaded."""
    # Threads that wait are not to spin: two calls on the same cores would take ten times as long
    # as one after the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # a user without HOME and without an entry in passwd
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.sep


def _fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, in the log too, and exit."""
    if has_started():
        log.error("%s", message)
    else:
        click.echo(f"fmrisynth: {message}", err=True)
    sys.exit(code)
